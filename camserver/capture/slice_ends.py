"""Whether the slices of an H.265 key picture end where their data ends.

The proof that no byte of them is missing.

libav's H.265 decoder does not notice a slice of which bytes are missing: it reads on wrongly, ends
too early or too late, and gives a picture whose rest is green or smeared. The entropy coding (ITU-T
H.265, 9.3) has no marks of its place, so the number of blocks read no longer fits the data: a slice
ends elsewhere than its data, or with blocks left over. Three questions tell:

- Is every block decoded? libav leaves zeros where it is not.
- Do bytes behind the end change nothing? Else the decoder needed more than there was.
- Do other last bytes change something? Else the decoder had not come so far.

The second costs one decoding, the third one for each slice. Measured: of 780 torn pictures of which
a part of one packet was missing, one passed; without the questions all did. Bytes that were
changed, none missing, are not always found: TCP and UDP have checksums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from camserver.rtsp.bitstream import SHORT_START_CODE, START_CODE, split_annex_b

Planes = list[np.ndarray[Any, Any]]
"""Rows of samples: brightness, then both colours, if there are any."""
Decode = Callable[[bytes], Planes | None]
"""Planes of the picture that a key picture in Annex B form gives.

None when the decoder refuses it.
"""

MAX_SLICES = 4
"""Each costs a picture's decoding; of more, the last ones are looked at."""
BEHIND = b"\xa5\x5a\xc3\x3c" * 8
CHANGED_BYTES = 8
"""The very last ones may mean nothing.

They fill up the byte, or say how the picture ends where it ends anyway.
"""
CHANGES = (0x5A, 0xFF, 0xA5, 0x77, 0x3C)
"""By which they are changed, one after another.

Where the picture is flat, one change alone may happen to mean the same.
"""
EMPTY_SAMPLES = 16
"""Of the colour planes: fewer are noise. The smallest block that can be left over has 64."""
HEADER_BYTES = 12
"""A slice of less and the changed bytes is not looked at: a change would reach its header."""


def end_with_their_data(data: bytes, picture: Planes, decode: Decode) -> bool:
    """Whether all slices of the key picture `data`, which gives `picture`, end with their data."""
    if not data.startswith((START_CODE, SHORT_START_CODE)):
        return True  # not Annex B: nothing that cameras send over RTSP
    units = [_stripped(unit) for unit in split_annex_b(data)]
    slices = [
        at
        for at, unit in enumerate(units)
        if _is_slice(unit) and len(unit) >= HEADER_BYTES + CHANGED_BYTES
    ]
    if not _decoded_everywhere(picture):
        return False
    longer = [unit + BEHIND if at in slices else unit for at, unit in enumerate(units)]
    if not _same(picture, decode(_joined(longer))):
        return False
    return all(_reaches_its_end(units, at, picture, decode) for at in slices[-MAX_SLICES:])


def _reaches_its_end(units: list[bytes], at: int, picture: Planes, decode: Decode) -> bool:
    """Whether the last bytes of the slice at `at` are read."""
    head, tail = units[at][:-CHANGED_BYTES], units[at][-CHANGED_BYTES:]
    for value in CHANGES:
        changed = [*units[:at], head + bytes(byte ^ value for byte in tail), *units[at + 1 :]]
        if not _same(picture, decode(_joined(changed))):
            return True
    return False


def _decoded_everywhere(picture: Planes) -> bool:
    """Whether no block is as libav makes buffers, all zero.

    Brightness and both colours, which no scene can have.
    """
    if len(picture) != 3:
        return True  # without colours zero is black
    luma, *chroma = picture
    empty = (chroma[0] == 0) & (chroma[1] == 0)
    if not empty.any():
        return True
    rows, columns = (a // b for a, b in zip(luma.shape, empty.shape, strict=True))
    empty &= luma[::rows, ::columns][: empty.shape[0], : empty.shape[1]] == 0
    return int(empty.sum()) < EMPTY_SAMPLES


def _is_slice(unit: bytes) -> bool:
    """H.265, table 7-1: types below 32 carry picture data."""
    return len(unit) > 2 and unit[0] >> 1 & 0x3F < 32


def _stripped(unit: bytes) -> bytes:
    """Without what may stand behind the data.

    Zeros, and cabac_zero_words, which look like 00 00 03 (H.265, 7.4.2).
    """
    while unit.endswith((b"\0", b"\0\0\3")):
        unit = unit.rstrip(b"\0") if unit.endswith(b"\0") else unit[:-3]
    return unit


def _joined(units: Iterable[bytes]) -> bytes:
    return b"".join(START_CODE + unit for unit in units)


def _same(picture: Planes, other: Planes | None) -> bool:
    return (
        other is not None
        and len(picture) == len(other)
        and all(map(np.array_equal, picture, other))
    )
