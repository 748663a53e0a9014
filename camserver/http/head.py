"""The head of an HTTP answer, read as curl reads it: a line that makes no sense is left out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from camserver.header_text import text_of

MAX_HEAD_BYTES = 64 * 1024
MAX_LINES = 500
MAX_VALUE_CHARS = 16 * 1024
MAX_RETRY_S = 3600.0
_STATUS = re.compile(rb"HTTP/(\d+(?:\.\d+)?)[ \t]+(\d{3})(?!\d)")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_END = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True)
class Head:
    """A status, and the headers in order, with names in lower case."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()

    def all(self, name: str) -> list[str]:
        """The values of all headers with this name."""
        return [value for known, value in self.fields if known == name]

    def first(self, name: str) -> str:
        """The value of the first header with this name, or ""."""
        return next(iter(self.all(name)), "")

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters."""
        return self.first("content-type").partition(";")[0].strip().lower()

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return any("chunked" in value.lower() for value in self.all("transfer-encoding"))

    @property
    def content_length(self) -> int | None:
        """The length of the body. None without a header, or with headers that contradict."""
        found = {value.strip() for value in self.all("content-length")}
        text = found.pop() if len(found) == 1 else ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None

    @property
    def closes(self) -> bool:
        """Whether the server says that it closes the connection."""
        return any("close" in value.lower() for value in self.all("connection"))

    def retry_after_s(self, now: float) -> float:
        """How many seconds to wait before the next request; 0 when the header does not say.

        `now` is in seconds since 1970.
        """
        text = self.first("retry-after").strip()
        if text.isascii() and text.isdigit():
            return min(MAX_RETRY_S, float(text[:9]))
        try:
            moment = parsedate_to_datetime(text).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            return 0.0
        return min(MAX_RETRY_S, max(0.0, moment - now))


def end_of_head(data: bytes | bytearray, searched: int) -> int | None:
    """Where the head at the start of `data` ends; None while it has not come.

    The first `searched` bytes were searched before.
    """
    found = _END.search(data, max(0, searched - 3))
    return None if found is None else found.end()


def parse_head(data: bytes) -> Head:
    """The head in `data`. Raises ValueError when it is not HTTP, or has too many lines."""
    first, *lines = data.split(b"\n")
    status = _STATUS.match(first)
    if status is None:
        raise ValueError("what answers is not HTTP")
    if len(lines) > MAX_LINES:
        raise ValueError(f"the head has more than {MAX_LINES} lines")
    fields = []
    for line in lines:
        name, colon, value = text_of(line).partition(":")
        if colon and _NAME.fullmatch(name.rstrip()):
            fields.append((name.rstrip().lower(), value.strip()[:MAX_VALUE_CHARS]))
    if status[1] == b"1.0" and not any(
        name == "connection" and "keep-alive" in value.lower() for name, value in fields
    ):
        fields.append(("connection", "close"))  # RFC 9112, 9.3
    return Head(int(status[2]), tuple(fields))
