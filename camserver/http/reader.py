"""One connection of HTTP/1.1 from the client's side, without I/O.

h11 does the framing. It refuses heads as cameras send them, so it gets a head that `head.py` has
read. A body ends early when its picture is whole, and late when its length was too small.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import h11

from camserver.header_text import bytes_of
from camserver.http.head import MAX_HEAD_BYTES, Head, end_of_head, parse_head
from camserver.http.picture import MAX_OTHER_BYTES, Picture, PictureFinder

MAX_INFORMATIONAL = 10
MAX_GROWTH = 20
"""How many times larger a compressed body may become. A picture hardly grows."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `picture` is the whole picture in it. `body` is what came instead of one.

    `is_cut` says that a picture began and did not end. `may_reuse`: another request may be sent on
    this connection.
    """

    head: Head
    picture: Picture | None
    body: bytes = b""
    is_cut: bool = False
    may_reuse: bool = False


class HttpReader:
    """Writes requests and reads answers. One request at a time."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._waiting = bytearray()
        self._searched = 0
        self._informational = 0
        self._body: _Body | None = None
        self._head: Head | None = None
        self.goes_on = False
        """Whether the body has ended by its headers, and its JPEG has not."""
        self.answer: Answer | None = None
        """The answer, once it is complete."""

    @property
    def head(self) -> Head | None:
        """The head of the answer, once it has come."""
        return self._head

    @property
    def received(self) -> int:
        """How many bytes of the body have come."""
        return 0 if self._body is None else self._body.received

    def request(self, target: str, fields: list[tuple[str, str]]) -> bytes:
        """The bytes of a GET. Raises ValueError for a target that cannot be sent."""
        if self.answer is not None:
            self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
            self._waiting.clear()
            self._searched, self._informational, self.goes_on = 0, 0, False
            self._body = self._head = self.answer = None
        sent = [(name.encode(), bytes_of(value)) for name, value in fields]
        try:
            head = self._http.send(h11.Request(method="GET", target=target, headers=sent))
        except h11.LocalProtocolError:
            raise ValueError("the URL has characters that HTTP does not allow") from None
        return (head or b"") + (self._http.send(h11.EndOfMessage()) or b"")

    def feed(self, data: bytes) -> None:
        """Take received bytes. Raises ValueError for what is not HTTP, or too much."""
        if self.answer is not None or not data:
            return
        if self.goes_on and self._body is not None:
            self._body.feed(data)
        elif self._head is None:
            self._waiting += data
            self._read_heads()
        else:
            self._read_body(data)
        self._stop_when_whole()

    def end(self) -> None:
        """Wait for no more: what came is the answer, if its head is there."""
        if self._head is not None and self.answer is None:
            self._finish()

    def _read_heads(self) -> None:
        while self._head is None:
            blanks = len(self._waiting) - len(self._waiting.lstrip(b"\r\n"))
            del self._waiting[:blanks]  # the end of the body before, perhaps
            end = end_of_head(self._waiting, self._searched)
            self._searched = len(self._waiting)
            if end is None:
                if len(self._waiting) > MAX_HEAD_BYTES:
                    raise ValueError(f"its head has more than {MAX_HEAD_BYTES} bytes")
                return
            head = parse_head(bytes(self._waiting[:end]))
            del self._waiting[:end]
            self._searched = 0
            if head.status // 100 == 1:
                self._informational += 1
                if self._informational > MAX_INFORMATIONAL:
                    raise ValueError(f"it sends more than {MAX_INFORMATIONAL} heads before one")
                continue
            self._begin(head)

    def _begin(self, head: Head) -> None:
        self._head, self._body = head, _Body(head)
        fields = [("Connection", "close")] if head.closes else []
        if head.is_chunked:
            fields.append(("Transfer-Encoding", "chunked"))
        elif head.content_length is not None:
            fields.append(("Content-Length", str(head.content_length)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        rest, self._waiting = bytes(self._waiting), bytearray()
        self._read_body(f"HTTP/1.1 {head.status} x\r\n{lines}\r\n".encode() + rest)

    def _read_body(self, data: bytes) -> None:
        assert self._body is not None  # noqa: S101 - the head has come
        self._http.receive_data(data)
        try:
            while self.answer is None and not self._body.is_whole:
                event = self._http.next_event()
                if isinstance(event, h11.Data):
                    self._body.feed(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._ended()
                elif not isinstance(event, h11.Response):
                    return  # more bytes are needed
        except h11.RemoteProtocolError:  # chunks that are none
            self._finish()

    def _ended(self) -> None:
        """The body has ended, by its headers."""
        assert self._body is not None  # noqa: S101 - the head has come
        if self._body.is_unfinished_jpeg:
            self.goes_on = True  # its length was too small
            self._body.feed(self._http.trailing_data[0])
        else:
            self._finish()

    def _stop_when_whole(self) -> None:
        if self.answer is None and self._body is not None and self._body.is_whole:
            self._finish()

    def _finish(self) -> None:
        assert self._head is not None and self._body is not None  # noqa: S101, PT018
        http = self._http
        # A line end after the body does not matter; anything else may be a part of the next answer
        has_more = bool(http.trailing_data[0].strip())
        is_done = http.their_state is http.our_state is h11.DONE and not has_more
        self.answer = self._body.answer(may_reuse=is_done and not self.goes_on)


class _Body:
    """A body that comes piece by piece."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._finder = PictureFinder(head.content_type) if head.status == 200 else None
        self._other = bytearray()
        self._inflate = None
        if head.first("content-encoding").strip().lower() in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self.received = 0

    @property
    def is_whole(self) -> bool:
        """Whether the picture is whole before the body ends."""
        return self._finder is not None and self._finder.is_whole

    @property
    def is_unfinished_jpeg(self) -> bool:
        """Whether a JPEG has begun and not ended."""
        return self._finder is not None and self._finder.is_unfinished_jpeg

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises ValueError."""
        self.received += len(data)
        if self._inflate is not None:
            data = self._inflated(data)
        if self._finder is not None:
            self._finder.feed(data)
        else:
            self._other += data[: MAX_OTHER_BYTES - len(self._other)]

    def answer(self, *, may_reuse: bool) -> Answer:
        """The answer, when no more bytes come or none are needed."""
        finder = self._finder
        if finder is None:
            return Answer(self._head, None, bytes(self._other), may_reuse=may_reuse)
        picture = finder.ended()
        came = b"" if picture is not None else finder.came
        return Answer(self._head, picture, came, self.is_unfinished_jpeg, may_reuse)

    def _inflated(self, data: bytes) -> bytes:
        """The decompressed bytes. Raises ValueError when they are damaged, or far too many."""
        assert self._inflate is not None  # noqa: S101 - the caller has looked
        try:
            out = self._inflate.decompress(data, MAX_GROWTH * (len(data) + 1024))
        except zlib.error:
            raise ValueError("its compressed answer is damaged") from None
        if self._inflate.unconsumed_tail:
            raise ValueError("its compressed answer grows too much")
        return out
