"""RTSP 1.0 messages and interleaved frames (RFC 2326), with strict limits. Pure.

Lenient where cameras are: bare LF ends a line, header lines may be folded, header names have any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
           453: "Not Enough Bandwidth", 454: "Session Not Found", 455: "Method Not Valid in This State",
           461: "Unsupported Transport", 500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f]|\s")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class RtspProtocolError(Exception):
    """Raised when bytes are no RTSP, or over a limit."""


def sendable_url(url: str) -> str:
    """`url` fit for a request line: what would end or split it is percent-encoded."""
    return _UNSENDABLE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), url)


class Headers(dict[str, str]):
    """Header fields by name; names compare without case, a repeated field is joined with commas."""

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(name.title(), value)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.title())

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        """The value, or `default` when the field is missing."""
        return super().get(name.title(), default)

    def add(self, name: str, value: str) -> None:
        """Add a field that may stand more than once."""
        known = self.get(name)
        self[name] = f"{known}, {value}" if known else value


@dataclass(slots=True)
class Request:
    """One request."""

    method: str
    uri: str
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    def encode(self) -> bytes:
        """The bytes of the message."""
        return _encode(f"{self.method} {self.uri} RTSP/1.0", self.headers, self.body)


@dataclass(slots=True)
class Response:
    """One response."""

    status: int
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""

    def encode(self) -> bytes:
        """The bytes of the message."""
        return _encode(f"RTSP/1.0 {self.status} {REASONS.get(self.status, 'Unknown')}", self.headers, self.body)


@dataclass(frozen=True, slots=True)
class Interleaved:
    """One binary frame on the RTSP connection (RFC 2326, 10.12)."""

    channel: int
    payload: bytes

    def encode(self) -> bytes:
        """The bytes of the frame; a payload is at most 65,535 bytes."""
        return b"$" + bytes((self.channel,)) + len(self.payload).to_bytes(2, "big") + self.payload


Message = Request | Response | Interleaved


class MessageParser:
    """Feeds on bytes, gives whole messages; keeps at most one incomplete message of limited size."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._head: tuple[str, Headers, int, int] | None = None     # of a message whose body is coming: its bytes, and in all

    def feed(self, data: bytes) -> Iterator[Message]:
        """All messages that `data` completes. Raises RtspProtocolError; the connection is then beyond repair."""
        self._buffer += data
        while (message := self._next()) is not None:
            yield message
        del self._buffer[: self._at]
        self._at = 0

    def _next(self) -> Message | None:
        buffer = self._buffer
        while self._at < len(buffer) and buffer[self._at] in b"\r\n":
            self._at += 1
        at = self._at
        if at < len(buffer) and buffer[at] == ord("$"):
            end = at + 4 + int.from_bytes(buffer[at + 2 : at + 4], "big")
            if len(buffer) < at + 4 or len(buffer) < end:
                return None
            self._at = end
            return Interleaved(buffer[at + 1], bytes(buffer[at + 4 : end]))
        if self._head is None and (head := _HEAD_END.search(buffer, at, at + MAX_HEAD_BYTES)) is not None:
            start, headers = _parse_head(bytes(buffer[at : head.start()]))
            length = headers.get("Content-Length", "0").strip()
            if not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > MAX_BODY_BYTES:
                raise RtspProtocolError(f"a Content-Length that is no number up to {MAX_BODY_BYTES}")
            self._head = start, headers, head.end() - at, head.end() - at + int(length)
        if self._head is None:
            if len(buffer) - at >= MAX_HEAD_BYTES:
                raise RtspProtocolError(f"a message head of more than {MAX_HEAD_BYTES} bytes")
            return None
        start, headers, head_bytes, all_bytes = self._head
        if len(buffer) < at + all_bytes:
            return None
        self._at = at + all_bytes
        self._head = None
        return _message(start, headers, bytes(buffer[at + head_bytes : self._at]))


def _parse_head(head: bytes) -> tuple[str, Headers]:
    text = re.sub(r"\r?\n[ \t]+", " ", head.decode("utf-8", "replace"))     # folded lines
    start, *lines = re.split(r"\r?\n", text)
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise RtspProtocolError("a header line without a name")
        headers.add(name.strip(), _CONTROL.sub(" ", value).strip())     # it may be sent back in a header of ours
    return start, headers


def _message(start: str, headers: Headers, body: bytes) -> Message:
    parts = start.split()
    if len(parts) >= 2 and parts[0].startswith("RTSP/1.") and re.fullmatch(r"[0-9]{3}", parts[1]):
        return Response(int(parts[1]), headers, body)
    if len(parts) == 3 and parts[2].startswith("RTSP/1.") and parts[0].isascii() and parts[0].replace("_", "").isalpha():
        return Request(parts[0].upper(), parts[1], headers, body)
    raise RtspProtocolError("neither a request nor a response of RTSP 1.0")


def _encode(start: str, headers: Headers, body: bytes) -> bytes:
    if body:
        headers["Content-Length"] = str(len(body))
    lines = [start, *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
