"""Depacketiser of JPEG (RFC 2435), and of whole JFIF files sent as JPEG. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PADDING_BYTES = 1024
MAX_SIDE = 2040
EXTENSION_PROFILE = 0xFFD8
DQT, SOF0, DHT, SOS = 0xDB, 0xC0, 0xC4, 0xDA

# ITU-T T.81, Annex K: the tables that RFC 2435 packets do not contain. Quantisation tables are in
# zigzag order.
_QUANTISERS = tuple(
    bytes.fromhex(text)
    for text in (
        (
            "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e4044"
            "57453738506d51575f626768673e4d71797064785c656763"
        ),
        (
            "1112121815182f1a1a2f634238426363636363636363636363636363636363636363636363636363"
            "636363636363636363636363636363636363636363636363"
        ),
    )
)
_HUFFMAN = {  # class and destination, as in a DHT segment -> counts and values
    0x00: bytes.fromhex("00010501010101010100000000000000000102030405060708090a0b"),
    0x10: bytes.fromhex(
        "0002010303020403050504040000017d01020300041105122131410613516107227114328191a108"
        "2342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a43444546474849"
        "4a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798"
        "999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2"
        "e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
    ),
    0x01: bytes.fromhex("00030101010101010101010000000000000102030405060708090a0b"),
    0x11: bytes.fromhex(
        "00020102040403040705040400010277000102031104052131061241510761711322328108144291"
        "a1b1c109233352f0156272d10a162434e125f11718191a262728292a35363738393a434445464748"
        "494a535455565758595a636465666768696a737475767778797a82838485868788898a9293949596"
        "9798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9da"
        "e2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa"
    ),
}


@dataclass(frozen=True, slots=True)
class _MainHeader:
    """The main header of a picture's first fragment (RFC 2435, 3.1). Sizes are in pixels."""

    kind: int
    q: int
    width: int
    height: int
    restart: int


class JpegDepacketiser:
    """Joins the fragments of a scan to a JFIF file.

    Tables with Q 128 to 254 are kept, because they may come only once.

    RFC 2435 gives sizes in units of 8 pixels, up to 2040 pixels. The size of a larger picture is in
    the description (a=x-dimensions), or in a header extension (ONVIF Streaming Specification,
    5.1.3). The extension contains the frame header, and tables if they are not the standard ones.
    """

    def __init__(self, dimensions: tuple[int, int] | None = None) -> None:
        """`dimensions` are the width and height in the description, in pixels."""
        self._dimensions = dimensions
        self._tables: dict[int, bytes] = {}
        self._obstacle = ""
        self.begin()

    def begin(self) -> None:
        """Forget the picture before."""
        self._scan = bytearray()
        self._header: _MainHeader | None = None
        self._extension: dict[int, list[bytes]] = {}
        self._whole_file = False
        self._complete = True

    @property
    def obstacle(self) -> str:
        """Why no picture can be made of the packets, as text. Empty when one can."""
        return self._obstacle

    def opens(self, payload: bytes) -> bool:
        """Whether this is the fragment at offset 0, or the beginning of a whole file."""
        return payload[1:4] == b"\0\0\0" or payload[:2] == b"\xff\xd8"

    def continues(self, payload: bytes) -> bool:
        """Whether this is a fragment at another offset.

        False within a whole file, because its payloads do not show their place.
        """
        return not self._whole_file and not self.opens(payload)

    def add_extension(self, profile: int, words: bytes) -> None:
        """Add segments of the JPEG header. They follow each other and are padded with 0xFF."""
        if profile != EXTENSION_PROFILE or self._scan:
            return
        for marker, body in _segments(words):
            self._extension.setdefault(marker, []).append(body)

    def add(self, payload: bytes) -> None:
        """Add a payload: main header, restart and quantisation headers, and a part of the scan."""
        if not self._scan and payload[:2] == b"\xff\xd8":
            self._whole_file = True
        if self._whole_file:
            self._scan += payload
            return
        if len(payload) < 8:
            self._complete = False
            return
        offset, kind, q, width, height = (int.from_bytes(payload[1:4], "big"), *payload[4:8])
        at, restart = 8, 0
        if 64 <= kind < 128:
            restart = int.from_bytes(payload[8:10], "big")
            at += 4
        if offset == 0 and q >= 128:
            length = int.from_bytes(payload[at + 2 : at + 4], "big")
            if length:
                self._tables[q] = payload[at + 4 : at + 4 + length]
            at += 4 + length
        self._complete &= offset == len(self._scan) and len(payload) > at
        if offset == 0:
            self._header = _MainHeader(kind, q, *self._size(width, height), restart)
        self._scan += payload[at:]

    def starts(self) -> bool:
        """Whether the first fragment has come."""
        return self._header is not None or self._whole_file

    def slices(self) -> int:
        """The number of slices: always 1, because JPEG has no slices."""
        return 1

    def ends(self) -> bool:
        """Whether this is a whole file with its end marker, or any scan.

        A scan may end without the marker. The decoder reads all of it and finds missing data.
        """
        return bool(self._scan) and (not self._whole_file or self._end_marked())

    def finish(self) -> tuple[bytes, bool, bool]:
        """(JFIF file, True because every JPEG picture is a keyframe, complete)."""
        if self._whole_file:
            return bytes(self._scan), True, self._complete
        if self._header is None:
            return b"", True, False
        tables = self._quantisers(self._header)
        frame = self._frame_header(self._header)
        if not tables or not frame:
            return b"", True, False
        end = b"" if self._end_marked() else b"\xff\xd9"
        return (
            self._file_header(self._header, tables, frame) + bytes(self._scan) + end,
            True,
            self._complete,
        )

    def _end_marked(self) -> bool:
        """Whether the data ends with the end marker, apart from padding.

        This is called for every packet with an RTP marker. So it reads only the last bytes.
        """
        return self._scan[-MAX_PADDING_BYTES:].rstrip(b"\0").endswith(b"\xff\xd9")

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels.

        The size in the description is used when the header fields fit it. They may be 0 or
        truncated to 8 bits.
        """
        if self._dimensions is not None:
            sides = zip((width, height), self._dimensions, strict=True)
            if all(side in (0, (pixels + 7) // 8 & 0xFF) for side, pixels in sides):
                return self._dimensions
        return width * 8, height * 8

    def _quantisers(self, header: _MainHeader) -> list[bytes]:
        """The luma and chroma tables of 64 bytes each (RFC 2435, 4.2 and appendix A).

        Empty when the tables are not known.
        """
        if header.q >= 128:
            tables = self._tables.get(header.q, b"") or self._extension_tables()
            if len(tables) in (64, 128):
                return [tables[:64], tables[64:128] or tables[:64]]
            self._obstacle = f"the camera does not send its quantisation tables (Q {header.q})"
            return []
        if not 1 <= header.q <= 99:
            self._obstacle = (
                f"the camera names a quantisation that nobody has defined (Q {header.q})"
            )
            return []
        scale = 5000 // header.q if header.q < 50 else 200 - header.q * 2
        return [
            bytes(max(1, min(255, (value * scale + 50) // 100)) for value in table)
            for table in _QUANTISERS
        ]

    def _extension_tables(self) -> bytes:
        """The 8-bit tables 0 and 1 from the DQT segments of the extension."""
        found: dict[int, bytes] = {}
        for body in self._extension.get(DQT, ()):
            for at in range(0, len(body) - 64, 65):
                found[body[at]] = body[at + 1 : at + 65]
        return found.get(0, b"") + found.get(1, b"")

    def _frame_header(self, header: _MainHeader) -> bytes:
        """The body of the SOF0 segment. Empty when the picture's size or JPEG type is unknown."""
        for body in self._extension.get(SOF0, ()):
            if len(body) == 15 and body[0] == 8 and any(body[1:3]) and any(body[3:5]):
                return body
        kind = header.kind & 0x3F
        if kind > 1:
            self._obstacle = (
                f"the camera sends JPEG of a type that nobody has defined ({header.kind})"
            )
            return b""
        if 0 in (header.width, header.height):
            self._obstacle = (
                f"the picture has more than {MAX_SIDE} pixels a side, which RTP has no room for,"
                " and the camera says its size neither in its description nor in a header"
                " extension"
            )
            return b""
        luma_sampling = 0x21 if kind == 0 else 0x22  # 4:2:2, 4:2:0
        return struct.pack(">BHHB", 8, header.height, header.width, 3) + bytes(
            (1, luma_sampling, 0, 2, 0x11, 1, 3, 0x11, 1)
        )

    def _file_header(self, header: _MainHeader, tables: list[bytes], frame: bytes) -> bytes:
        parts = [b"\xff\xd8", _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")]
        parts += [_segment(DQT, bytes((number,)) + table) for number, table in enumerate(tables)]
        parts.append(_segment(SOF0, frame))
        huffman = self._extension.get(DHT) or [
            bytes((number,)) + table for number, table in _HUFFMAN.items()
        ]
        parts += [_segment(DHT, body) for body in huffman]
        if header.restart:
            parts.append(_segment(0xDD, header.restart.to_bytes(2, "big")))
        components = frame[6], frame[9], frame[12]
        parts.append(
            _segment(
                SOS,
                bytes((3, components[0], 0x00, components[1], 0x11, components[2], 0x11, 0, 63, 0)),
            )
        )
        return b"".join(parts)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of each whole segment in `data`."""
    at = 0
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] in (0xFF, 0xD8, 0x00):
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            return
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + length


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body
