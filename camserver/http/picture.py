"""The first whole picture in a body, found while the body comes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from camserver.http.head import end_of_head, parse_head
from camserver.jpeg_file import JpegEnd

MAX_PICTURE_BYTES = 32 * 1024 * 1024
MAX_PART_HEAD_BYTES = 16 * 1024
MAX_BLANKS = 4096
BLANKS = b"\r\n \t\0"
KIND_BYTES = 12
"""How many bytes tell what a picture is."""
MAX_OTHER_BYTES = 64 * 1024
"""How much is kept of a body that is no picture."""


class Kind(StrEnum):
    """What a body is. The values are libav's names of codecs, but for `other`."""

    JPEG = "mjpeg"
    PNG = "png"
    WEBP = "webp"
    BMP = "bmp"
    OTHER = "other"


def kind_of(data: bytes | bytearray) -> Kind:
    """What `data` begins like."""
    if data.startswith(b"\xff\xd8"):
        return Kind.JPEG
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return Kind.PNG
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Kind.WEBP
    if data.startswith(b"BM") and data[6:10] == b"\0\0\0\0":
        return Kind.BMP
    return Kind.OTHER


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it came."""

    kind: Kind
    data: bytes


class PictureFinder:
    """Finds the picture in a body that comes piece by piece.

    A JPEG is whole when its end marker has come, whatever the headers say of its length. Others are
    whole at the end of the body, or of their part.
    """

    def __init__(self, content_type: str) -> None:
        self._in_parts = content_type.startswith("multipart/")
        self._data = bytearray()
        self._received = 0
        self._kind: Kind | None = None  # None: too little has come
        self._jpeg = JpegEnd()
        self._blanks = 0
        self._searched = 0
        self._part_bytes: int | None = None
        self._length: int | None = None  # of the whole picture

    @property
    def came(self) -> bytes:
        """What came of the picture, or the beginning of what came instead of one."""
        return bytes(self._data)

    @property
    def is_unfinished_jpeg(self) -> bool:
        """Whether a JPEG has begun and not ended."""
        return self._kind is Kind.JPEG and self._length is None

    @property
    def is_whole(self) -> bool:
        """Whether the picture is whole without waiting for the end of the body."""
        return self._length is not None

    def feed(self, data: bytes) -> None:
        """Take bytes of the body. Raises ValueError when they are too many."""
        self._received += len(data)
        if self._received > MAX_PICTURE_BYTES:
            raise ValueError(f"it sends more than {MAX_PICTURE_BYTES} bytes")
        if self._kind is Kind.OTHER and len(self._data) >= MAX_OTHER_BYTES:
            return
        self._data += data
        if self._kind is None:
            self._begin()
        if self._kind is Kind.JPEG and self._length is None:
            self._length = self._jpeg.find(self._data)
        elif self._part_bytes is not None and len(self._data) >= self._part_bytes:
            self._length = self._part_bytes

    def ended(self) -> Picture | None:
        """The picture when no more comes. None when there is none that may be whole."""
        kind = kind_of(self._data)
        if kind is Kind.OTHER or self.is_unfinished_jpeg:
            return None
        return Picture(kind, bytes(self._data[: self._length]))

    def _begin(self) -> None:
        """Cut what comes before the picture, and tell what it is, if enough has come."""
        if self._data[:1] and self._data[0] in BLANKS:
            blanks = len(self._data) - len(self._data.lstrip(BLANKS))
            self._blanks += blanks
            if self._blanks <= MAX_BLANKS:
                del self._data[:blanks]
        if self._in_parts and self._data.startswith(b"--"):
            end = end_of_head(self._data, self._searched)
            self._searched = len(self._data)
            if end is None and len(self._data) <= MAX_PART_HEAD_BYTES:
                return
            head = parse_head(b"HTTP/1.1 200\n" + bytes(self._data[: end or 0]))
            self._part_bytes = head.content_length
            del self._data[: end or 0]
            self._in_parts = False
        if len(self._data) >= KIND_BYTES or self._data.startswith(b"\xff\xd8"):
            self._kind = kind_of(self._data)
