"""The least that a client needs: a socket that reads just enough.

It is a client for a well-behaved server. It asks nothing that is not needed, checks nothing, and
stops at the last byte of the first keyframe.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast
from urllib.parse import urlsplit

IRAP = range(16, 22)
"""H.265: NAL unit types of pictures that can be decoded alone."""
WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Least:
    """What one session needed to the end of its first keyframe.

    `round_trips` counts TCP's handshake, too. `packets_before` came before the keyframe: with 0 the
    stream began with it.
    """

    wall_s: float
    round_trips: int
    bytes: int
    packets_before: int


class BareClient:
    """Opens sessions of one URL. `control` is the URL of the track, once it is known."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.control = ""
        self._codec = ""

    def first_keyframe(self) -> Least:
        """Read one keyframe. Raises OSError, or ValueError when the server gives none."""
        parts = urlsplit(self.url)
        began = time.monotonic()
        with socket.create_connection((parts.hostname or "", parts.port or 554), WAIT_S) as made:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = _Session(made)
            if not self.control:
                self._learn(*session.ask("DESCRIBE", self.url, "Accept: application/sdp"))
            transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"
            head, _ = session.ask("SETUP", self.control, transport)
            name = f"Session: {_header(head, 'Session').split(';')[0]}"
            session.ask("PLAY", self.url, name, "Range: npt=0-")
            before = session.read_keyframe(self._codec)
            took, bytes_, requests = time.monotonic() - began, session.bytes, session.requests
            session.end(self.url, name)
        return Least(took, 1 + requests, bytes_, before)

    def _learn(self, head: str, body: bytes) -> None:
        sdp = body.decode()
        base = _header(head, "Content-Base") or self.url + "/"
        video = sdp[sdp.index("m=video") :]
        control = re.search(r"^a=control:(\S+)", video, re.MULTILINE)
        codec = re.search(r"^a=rtpmap:\d+ (H26[45])/", video, re.MULTILINE)
        if control is None or codec is None:
            raise ValueError("a description without a track of H.264 or H.265")
        self.control = control[1] if "://" in control[1] else base.rstrip("/") + "/" + control[1]
        self._codec = codec[1]


class _Session:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = cast("BinaryIO", connection.makefile("rb"))
        self.bytes = self.requests = 0

    def ask(self, method: str, url: str, *headers: str) -> tuple[str, bytes]:
        """(head, body) of the answer."""
        self.requests += 1
        lines = (f"{method} {url} RTSP/1.0", f"CSeq: {self.requests}", *headers, "", "")
        self._connection.sendall("\r\n".join(lines).encode())
        while (first := self._read(1)) == b"$":
            self._read(int.from_bytes(self._read(3)[1:], "big"))
        head = first
        while not head.endswith(b"\r\n\r\n"):
            head += self._read(1)
        text = head.decode()
        if " 200 " not in text.splitlines()[0]:
            raise ValueError(text.splitlines()[0])
        return text, self._read(int(_header(text, "Content-Length") or 0))

    def read_keyframe(self, codec: str) -> int:
        """Read to the last packet of a keyframe. Returns how many packets came before it."""
        before, began = 0, False
        while True:
            head = self._read(4)
            if head[0] != ord("$"):
                raise ValueError("no interleaved packet")
            packet = self._read(int.from_bytes(head[2:], "big"))
            if head[1] != 0:
                continue
            began = began or any(_is_key(codec, nal) for nal in _units(codec, packet[12:]))
            before += not began
            if began and packet[1] & 0x80:
                return before

    def end(self, url: str, name: str) -> None:
        """End the session, and see the connection closed."""
        self._connection.sendall(f"TEARDOWN {url} RTSP/1.0\r\nCSeq: 9\r\n{name}\r\n\r\n".encode())
        self._connection.shutdown(socket.SHUT_WR)
        while self._stream.read(65536):
            pass

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise ValueError("the server closed the connection")
        self.bytes += count
        return data


def _units(codec: str, payload: bytes) -> Iterator[int]:
    """The NAL unit types in a payload (RFC 6184, 5; RFC 7798, 4.4)."""
    head, aggregate, fragment = (1, 24, 28) if codec == "H264" else (2, 48, 49)
    kind = _kind(codec, payload)
    if kind == fragment:
        yield payload[head] & (0x1F if codec == "H264" else 0x3F)
    elif kind == aggregate:
        at = head
        while at + 2 < len(payload):
            yield _kind(codec, payload[at + 2 :])
            at += 2 + int.from_bytes(payload[at : at + 2], "big")
    else:
        yield kind


def _kind(codec: str, nal: bytes) -> int:
    return nal[0] & 0x1F if codec == "H264" else nal[0] >> 1 & 0x3F


def _is_key(codec: str, kind: int) -> bool:
    return kind == 5 if codec == "H264" else kind in IRAP


def _header(head: str, name: str) -> str:
    found = re.search(rf"^{name}:[ \t]*(.*?)\r?$", head, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""
