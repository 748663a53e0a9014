"""Where a JPEG file ends (ITU-T T.81, annex B). Pure.

The end marker is not the first 0xFFD9: a thumbnail in the header has its own. So the segments are
followed one by one. Cameras send more bytes after the end, and stray bytes between segments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SOI, EOI, SOS, TEM, COM = 0xD8, 0xD9, 0xDA, 0x01, 0xFE
RESTARTS = range(0xD0, 0xD8)
APPLICATION = range(0xE0, 0xF0)
# Without the fill bytes before it: a pattern that takes them, too, costs quadratic time
_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_MARKER_IN_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


class JpegEnd:
    """Finds the end of a JPEG file that comes piece by piece."""

    def __init__(self) -> None:
        self._at = 2
        self._in_scan = False

    def find(self, data: bytes | bytearray) -> int | None:
        """The length of the file at the start of `data`; None while its end has not come.

        `data` may only grow between calls. Each call continues where the last one ended.
        """
        while True:
            pattern = _MARKER_IN_SCAN if self._in_scan else _MARKER
            found = pattern.search(data, self._at)
            if found is None:
                # A marker may have come in part
                self._at = max(self._at, len(data) - (data[-1:] == b"\xff"))
                return None
            marker = found[1][0]
            if marker == EOI:
                return found.end()
            if marker in (SOI, TEM) or marker in RESTARTS:
                self._at = found.end()
                continue
            length = int.from_bytes(data[found.end() : found.end() + 2], "big")
            if len(data) < found.end() + max(2, length):
                self._at = found.start()
                return None
            self._at, self._in_scan = found.end() + length, marker == SOS


def whole_jpeg(data: bytes) -> bytes | None:
    """The JPEG file at the start of `data`, without what follows it. None when it is not whole."""
    length = JpegEnd().find(data) if data.startswith(b"\xff\xd8") else None
    return None if length is None else data[:length]


def without_comments(jpeg: bytes) -> bytes:
    """A whole JPEG without stray bytes before its first scan, comments and application segments.

    libjpeg warns of what it finds there, though the picture is whole.
    """
    parts, end = [jpeg[:2]], 2
    for marker, start, end in _segments(jpeg):
        if marker == SOS:
            return b"".join([*parts, jpeg[start:]])
        if marker != COM and marker not in APPLICATION:
            parts.append(jpeg[start:end])
    return b"".join([*parts, jpeg[end:]])


def exif_segment(jpeg: bytes) -> bytes:
    """The Exif segment before the first scan, with its marker. Empty when there is none."""
    for marker, start, end in _segments(jpeg):
        if marker == SOS:
            break
        if marker == 0xE1 and jpeg[start + 4 : start + 10] == b"Exif\0\0":
            return jpeg[start:end]
    return b""


def _segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment up to the first scan header."""
    at = 2
    while (found := _MARKER.search(jpeg, at)) is not None:
        marker = found[1][0]
        start = found.start()
        length = int.from_bytes(jpeg[found.end() : found.end() + 2], "big")
        if marker in (SOI, EOI, TEM) or marker in RESTARTS or length < 2:
            at = found.end()
            continue
        at = found.end() + length
        yield marker, start, at
        if marker == SOS:
            return
