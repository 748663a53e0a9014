"""Read H.264 and H.265 byte streams: NAL units, slice headers, recovery points, profiles. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

START_CODE = b"\0\0\0\1"
SHORT_START_CODE = b"\0\0\1"
RECOVERY_POINT = b"\x06\x06\x01\xc4\x80"
"""An SEI message that camserver inserts: recovery point, frame count 0, exact match.

Source: H.264, D.1.8.
"""
_EMULATION_PREVENTION = re.compile(rb"\x00\x00\x03")
_SLICE_HEADER_BYTES = 16
# I and SI (H.264, table 7-6). The same types plus 5: all slices of the picture have this type.
_INTRA_SLICE_TYPES = frozenset((2, 4))


def split_annex_b(data: bytes) -> list[bytes]:
    """The NAL units between start codes of 3 or 4 bytes, without the zeros before a start code.

    A NAL unit never ends with a zero byte and never contains a start code (H.264, 7.4.1; H.265,
    7.4.2). So data without a start code is one unit.
    """
    parts = data.split(SHORT_START_CODE)
    return [unit for unit in (part.rstrip(b"\0") for part in parts) if unit]


def h264_is_intra(nal: bytes) -> bool:
    """Whether a coded slice (kinds 1 and 5) needs no other picture (H.264, 7.3.3)."""
    head = _EMULATION_PREVENTION.sub(b"\0\0", nal[1 : 1 + _SLICE_HEADER_BYTES])
    values = _exp_golomb(head)
    next(values, None)  # first_mb_in_slice
    slice_type = next(values, None)
    return slice_type is not None and slice_type % 5 in _INTRA_SLICE_TYPES


def _exp_golomb(data: bytes) -> Iterator[int]:
    """The unsigned Exp-Golomb numbers at the beginning of `data` (H.264, 9.1)."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0
    while (one := bits.find("1", at)) >= 0:
        zeros = one - at
        end = one + zeros + 1
        if end > len(bits):
            return
        yield int(bits[one:end], 2) - 1
        at = end


PROFILES = {
    66: "Baseline",
    77: "Main",
    88: "Extended",
    100: "High",
    110: "High 10",
    122: "High 4:2:2",
}


def profile_name(codec: str, data: bytes) -> str:
    """The profile in the parameter sets of a keyframe (H.264, 7.3.2.1.1; H.265, 7.3.3).

    Empty when there is no parameter set.
    """
    for nal in split_annex_b(data):
        if codec == "h264" and len(nal) > 3 and nal[0] & 0x1F == 7:
            return f"{PROFILES.get(nal[1], f'profile {nal[1]}')} {nal[3] / 10:g}"
        if codec == "hevc" and len(nal) > 3 and nal[0] >> 1 & 0x3F == 33:
            return {1: "Main", 2: "Main 10"}.get(nal[3] & 0x1F, f"profile {nal[3] & 0x1F}")
    return ""
