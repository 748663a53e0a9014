"""RTP packets, RTCP sender reports (RFC 3550) and payload formats. Sender's side. Pure.

Payload formats: H.264 (RFC 6184), H.265 (RFC 7798), JPEG (RFC 2435).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

CLOCK_HZ = 90_000
MAX_PAYLOAD_BYTES = 1400
NTP_EPOCH_S = 2_208_988_800  # 1900 to 1970


@dataclass(slots=True)
class RtpSender:
    """Numbers the packets of one stream of one session."""

    payload_type: int
    ssrc: int
    sequence: int
    packets: int = 0
    octets: int = 0

    def packet(self, payload: bytes, timestamp: int, *, marker: bool) -> bytes:
        """The next packet."""
        header = struct.pack(
            ">BBHII",
            0x80,
            self.payload_type | (marker << 7),
            self.sequence & 0xFFFF,
            timestamp & 0xFFFFFFFF,
            self.ssrc,
        )
        self.sequence += 1
        self.packets += 1
        self.octets += len(payload)
        return header + payload

    def sender_report(self, wall_s: float, timestamp: int) -> bytes:
        """An RTCP SR: at RTP `timestamp` the camera's clock was `wall_s` (seconds since 1970)."""
        seconds, fraction = divmod(wall_s + NTP_EPOCH_S, 1)
        return struct.pack(
            ">BBHIIIIII",
            0x80,
            200,
            6,
            self.ssrc,
            int(seconds),
            int(fraction * 2**32),
            timestamp & 0xFFFFFFFF,
            self.packets & 0xFFFFFFFF,
            self.octets & 0xFFFFFFFF,
        )


def h264_payloads(nals: list[bytes], limit: int = MAX_PAYLOAD_BYTES) -> Iterator[bytes]:
    """Single NAL unit packets and FU-A fragments (RFC 6184, 5.6 and 5.8)."""
    for nal in nals:
        if len(nal) <= limit:
            yield nal
            continue
        indicator, kind = (nal[0] & 0xE0) | 28, nal[0] & 0x1F
        pieces = [nal[i : i + limit - 2] for i in range(1, len(nal), limit - 2)]
        for i, piece in enumerate(pieces):
            yield bytes((indicator, kind | ((i == 0) << 7) | ((i == len(pieces) - 1) << 6))) + piece


def h265_payloads(nals: list[bytes], limit: int = MAX_PAYLOAD_BYTES) -> Iterator[bytes]:
    """Single NAL unit packets and fragmentation units (RFC 7798, 4.4.1 and 4.4.3)."""
    for nal in nals:
        if len(nal) <= limit:
            yield nal
            continue
        kind = (nal[0] >> 1) & 0x3F
        head = bytes(((nal[0] & 0x81) | (49 << 1), nal[1]))
        pieces = [nal[i : i + limit - 3] for i in range(2, len(nal), limit - 3)]
        for i, piece in enumerate(pieces):
            yield head + bytes((kind | ((i == 0) << 7) | ((i == len(pieces) - 1) << 6),)) + piece


def jpeg_payloads(jpeg: bytes, limit: int = MAX_PAYLOAD_BYTES) -> Iterator[bytes]:
    """The payloads of a baseline 4:2:0 JFIF file with standard Huffman tables.

    They have type 1, Q 255 and tables in band (RFC 2435).

    Raises ValueError for another kind of JPEG, or for a side of more than 2040 pixels.
    """
    tables, size, scan = _parse_jpeg(jpeg)
    width, height = size
    if max(width, height) > 2040:
        raise ValueError("RFC 2435 ends at 2040 pixels")
    offset = 0
    while offset < len(scan):
        header = struct.pack(
            ">B3sBBBB", 0, offset.to_bytes(3, "big"), 1, 255, (width + 7) // 8, (height + 7) // 8
        )
        if offset == 0:
            header += struct.pack(">BBH", 0, 0, len(tables)) + tables
        piece = scan[offset : offset + limit - len(header)]
        yield header + piece
        offset += len(piece)


def _parse_jpeg(jpeg: bytes) -> tuple[bytes, tuple[int, int], bytes]:
    tables: dict[int, bytes] = {}
    size = (0, 0)
    position = 2
    while position + 4 <= len(jpeg):
        marker, length = (
            jpeg[position + 1],
            int.from_bytes(jpeg[position + 2 : position + 4], "big"),
        )
        body = jpeg[position + 4 : position + 2 + length]
        position += 2 + length
        if marker == 0xDB:
            for i in range(0, len(body), 65):
                tables[body[i] & 15] = body[i + 1 : i + 65]
        elif marker == 0xC0:
            size = (int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big"))
            if body[7] != 0x22:
                raise ValueError("not 4:2:0")
        elif marker == 0xDA:
            return tables[0] + tables.get(1, tables[0]), size, jpeg[position:-2]
    raise ValueError("no baseline JPEG")
