"""RTSP 1.0 messages and interleaved frames (RFC 2326), with strict limits. Pure.

The parser accepts what cameras send: lines that end with LF only, folded header lines, and header
names in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from camserver.header_text import CONTROL, bytes_of, text_of

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    453: "Not Enough Bandwidth",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}
_AROUND = "".join(map(chr, range(0x21))) + "\x7f"
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f]|\s")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(r"\s*RTSP/[0-9][.0-9]*\s+([0-9]{3})(?![0-9])", re.ASCII)
_REQUEST_LINE = re.compile(r"\s*([A-Za-z_]{1,32})\s+(\S+)\s+RTSP/[0-9][.0-9]*\s*$", re.ASCII)
_LINE = re.compile(rb"[^\x00-\x08\x0a-\x1f]*")
_BLANK = re.compile(rb"[\r\n]+")
_MAY_BEGIN = re.compile(rb"[A-Za-z]")
_CANDIDATE = re.compile(
    rb"\$|RTSP/[0-9]|HTTP/[0-9]|(?<![A-Z_])[A-Z_]{3,32} [!-~]{1,2000} RTSP/[0-9]"
)
_UNDECIDED_BYTES = 8
MAX_STRAY_BYTES = 16 * 1024
MAX_HEADER_LINES = 128
MAX_FALSE_STARTS = 1000
"""How many places of one connection may look like the beginning of a message, and be none. Each
costs as much as a message.
"""
MAX_STRAY_CHANNEL = 31
"""The highest channel that is accepted in an interleaved frame after stray bytes."""


class RtspProtocolError(Exception):
    """Raised when bytes are not RTSP, or exceed a limit."""


class HttpAnswerError(RtspProtocolError):
    """Raised when an HTTP server answers: the port belongs to another service."""


def sendable_url(url: str) -> str:
    """`url` for a request line. Characters that would end or split the line are percent-encoded."""
    return _UNSENDABLE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), url)


class Headers(dict[str, str]):
    """Header fields by name. Names ignore case. `add` joins repeated fields with commas."""

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(name.title(), value)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.title())

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        """The value, or `default` when the field is missing."""
        return super().get(name.title(), default)

    def add(self, name: str, value: str) -> None:
        """Add a field that may occur more than once."""
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
        return _encode(
            f"RTSP/1.0 {self.status} {REASONS.get(self.status, 'Unknown')}", self.headers, self.body
        )


@dataclass(frozen=True, slots=True)
class Interleaved:
    """One binary frame on the RTSP connection (RFC 2326, 10.12)."""

    channel: int
    payload: bytes

    def encode(self) -> bytes:
        """The bytes of the frame. A payload has at most 65,535 bytes."""
        return b"$" + bytes((self.channel,)) + len(self.payload).to_bytes(2, "big") + self.payload


Message = Request | Response | Interleaved


class MessageParser:
    """Parses bytes to whole messages. It keeps at most one incomplete message of limited size.

    Bytes that belong to no message are skipped, up to MAX_STRAY_BYTES in a row. Cameras send stray
    bytes, and Content-Length values that are too small. If packets are lost in skipped bytes, the
    RTP sequence numbers show it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        # A message whose body is incomplete: start line, headers, head bytes, bytes in all
        self._head: tuple[str, Headers, int, int] | None = None
        self._stray_bytes = 0  # bytes skipped since the newest message
        self._blank_bytes = 0  # empty lines since the newest message
        self._false_starts = 0  # places that looked like the beginning of a message
        self.stray_bytes_total = 0
        """All bytes that belonged to no message."""

    def add(self, data: bytes) -> None:
        """Add received bytes."""
        del self._buffer[: self._at]
        self._at = 0
        self._buffer += data

    def messages(self) -> Iterator[Message]:
        """The whole messages that are not given yet. The caller may stop, and go on later.

        Raises RtspProtocolError. Then the connection cannot be used any more.
        """
        while (message := self._next()) is not None:
            self._stray_bytes = self._blank_bytes = 0
            yield message

    def feed(self, data: bytes) -> Iterator[Message]:
        """Add received bytes, and give all messages that they complete, as `messages` does."""
        self.add(data)
        return self.messages()

    def _next(self) -> Message | None:
        while self._head is None:
            if not self._find_start():
                return None
            at = self._at
            if self._buffer[at] == ord("$"):
                return self._interleaved(at)
            if not self._read_head(at):
                return None
        start, headers, head_bytes, all_bytes = self._head
        at = self._at
        if len(self._buffer) < at + all_bytes:
            return None
        self._at = at + all_bytes
        self._head = None
        return _message(start, headers, bytes(self._buffer[at + head_bytes : self._at]))

    def _find_start(self) -> bool:
        """Go to the place where a message may begin. False when it is not known yet."""
        buffer = self._buffer
        if blank := _BLANK.match(buffer, self._at):
            self._at = blank.end()
            self._blank_bytes += len(blank[0])
            if self._blank_bytes > MAX_STRAY_BYTES:
                raise RtspProtocolError(f"more than {MAX_STRAY_BYTES} blank bytes in a row")
        if self._at >= len(buffer):
            return False
        if not self._stray_bytes and (
            buffer[self._at] == ord("$") or _MAY_BEGIN.match(buffer, self._at)
        ):
            return True
        for candidate in _CANDIDATE.finditer(buffer, self._at):
            at = candidate.start()
            if buffer[at] != ord("$") or _is_rtp_frame(buffer, at):
                self._skip(at - self._at)
                return True
        # The last bytes may be the beginning of a message
        self._skip(max(0, len(buffer) - _UNDECIDED_BYTES - self._at))
        return False

    def _skip(self, count: int) -> None:
        self._at += count
        self._stray_bytes += count
        self.stray_bytes_total += count
        if self._stray_bytes > MAX_STRAY_BYTES:
            raise RtspProtocolError(f"more than {MAX_STRAY_BYTES} bytes in a row that are no RTSP")

    def _skip_false_start(self) -> None:
        self._false_starts += 1
        if self._false_starts > MAX_FALSE_STARTS:
            raise RtspProtocolError(f"more than {MAX_FALSE_STARTS} beginnings of no message")
        self._skip(1)

    def _interleaved(self, at: int) -> Interleaved | None:
        buffer = self._buffer
        end = at + 4 + int.from_bytes(buffer[at + 2 : at + 4], "big")
        if len(buffer) < at + 4 or len(buffer) < end:
            return None
        self._at = end
        return Interleaved(buffer[at + 1], bytes(buffer[at + 4 : end]))

    def _read_head(self, at: int) -> bool:
        """Read a complete head, or skip a byte that begins none. False when more is needed."""
        buffer = self._buffer
        line = _LINE.match(buffer, at, at + MAX_HEAD_BYTES)
        line_end = at if line is None else line.end()
        known = line_end < len(buffer) and line_end < at + MAX_HEAD_BYTES
        if known and not _is_start_line(buffer[at:line_end].decode("utf-8", "replace")):
            if buffer.startswith(b"HTTP/", at):
                raise HttpAnswerError("an HTTP server answers on this port, no RTSP server")
            self._skip_false_start()
            return True
        end = _HEAD_END.search(buffer, at, at + MAX_HEAD_BYTES)
        if end is None:
            if len(buffer) - at >= MAX_HEAD_BYTES:
                raise RtspProtocolError(f"a message head of more than {MAX_HEAD_BYTES} bytes")
            return False
        start, headers = _parse_head(bytes(buffer[at : end.start()]))
        if not _is_start_line(start):
            self._skip_false_start()
            return True
        length = headers.get("Content-Length", "0").split(",")[0].strip()
        if not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > MAX_BODY_BYTES:
            raise RtspProtocolError(f"a Content-Length that is no number up to {MAX_BODY_BYTES}")
        self._head = start, headers, end.end() - at, end.end() - at + int(length)
        return True


def _is_rtp_frame(buffer: bytearray, at: int) -> bool:
    """Whether a "$" among stray bytes begins an interleaved frame.

    The channel must be at most MAX_STRAY_CHANNEL, and the version 2, as in RTP and RTCP.
    """
    channel_and_version = buffer[at + 1 : at + 2] + buffer[at + 4 : at + 5]
    if len(channel_and_version) < 2:
        return True  # not known yet
    return channel_and_version[0] <= MAX_STRAY_CHANNEL and channel_and_version[1] >> 6 == 2


def _parse_head(head: bytes) -> tuple[str, Headers]:
    text = re.sub(r"\r?\n[ \t]+", " ", text_of(head))  # folded lines
    start, *lines = re.split(r"\r?\n", text)
    if len(lines) > MAX_HEADER_LINES:
        raise RtspProtocolError(f"a message head of more than {MAX_HEADER_LINES} lines")
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name.strip():  # a line without a name has no meaning
            headers.add(name.strip(), value.strip(_AROUND))
    return start, headers


def _is_start_line(start: str) -> bool:
    return _STATUS_LINE.match(start) is not None or _REQUEST_LINE.match(start) is not None


def _message(start: str, headers: Headers, body: bytes) -> Message:
    if status := _STATUS_LINE.match(start):
        return Response(int(status[1]), headers, body)
    request = _REQUEST_LINE.match(start)
    assert request is not None  # noqa: S101 - `start` is one of the two kinds of start line
    return Request(request[1].upper(), request[2], headers, body)


def _encode(start: str, headers: Headers, body: bytes) -> bytes:
    if body:
        headers["Content-Length"] = str(len(body))
    # A value may come from the camera. A control character in it could end the line.
    fields = (f"{name}: {CONTROL.sub(' ', value)}" for name, value in headers.items())
    lines = [start, *fields]
    return bytes_of("\r\n".join(lines)) + b"\r\n\r\n" + body
