"""Depacketiser of JPEG (RFC 2435), and of the whole-JFIF kind some cameras send under the same name. Pure."""

from __future__ import annotations

import struct

MAX_PADDING_BYTES = 1024

# ITU-T T.81, Annex K: the tables RFC 2435 leaves out of the packets. Quantisation in zigzag order.
_QUANTISERS = tuple(bytes.fromhex(text) for text in (
    "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71"
    "797064785c656763",
    "1112121815182f1a1a2f63423842636363636363636363636363636363636363636363636363636363636363636363636363636363636363"
    "6363636363636363",
))
_HUFFMAN = {    # class and destination, as in a DHT segment -> counts and values
    0x00: bytes.fromhex(
        "00010501010101010100000000000000000102030405060708090a0b"),
    0x10: bytes.fromhex(
        "0002010303020403050504040000017d01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a16"
        "1718191a25262728292a3435363738393a434445464748494a535455565758595a636465666768696a737475767778797a83848586878889"
        "8a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9ea"
        "f1f2f3f4f5f6f7f8f9fa"),
    0x01: bytes.fromhex(
        "00030101010101010101010000000000000102030405060708090a0b"),
    0x11: bytes.fromhex(
        "00020102040403040705040400010277000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434"
        "e125f11718191a262728292a35363738393a434445464748494a535455565758595a636465666768696a737475767778797a828384858687"
        "88898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9"
        "eaf2f3f4f5f6f7f8f9fa"),
}


class JpegDepacketiser:
    """Fragments of a scan to a JFIF file; tables with Q 128 to 254 are kept, as they may come only once."""

    def __init__(self) -> None:
        self._tables: dict[int, bytes] = {}
        self.begin()

    def begin(self) -> None:
        """Forget the picture before."""
        self._scan = bytearray()
        self._header: tuple[int, int, int, int, int] | None = None      # type, Q, width, height, restart interval
        self._whole_file = False
        self._complete = True

    def opens(self, payload: bytes) -> bool:
        """The fragment at offset 0, or the beginning of a whole file."""
        return payload[1:4] == b"\0\0\0" or payload[:2] == b"\xff\xd8"

    def add(self, payload: bytes) -> None:
        """One payload: main header, restart and quantisation headers where they belong, a piece of the scan."""
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
            self._header = (kind, q, width * 8, height * 8, restart)
        self._scan += payload[at:]

    def starts(self) -> bool:
        """Whether the first fragment is there."""
        return self._header is not None or self._whole_file

    def slices(self) -> int:
        """One."""
        return 1

    def ends(self) -> bool:
        """A whole file with its end marker. A scan may end without one; the decoder reads all of it and sees a hole."""
        return bool(self._scan) and (not self._whole_file or self._end_marked())

    def finish(self) -> tuple[bytes, bool, bool]:
        """(JFIF file, True: every picture is a key picture, complete)."""
        if self._whole_file:
            return bytes(self._scan), True, self._complete
        tables = self._quantisers()
        if self._header is None or not tables or 0 in self._header[2:4] or self._header[0] & 0x3F > 1:
            return b"", True, False     # over 2040 pixels, or a type nobody has defined
        scan = bytes(self._scan)
        end = b"" if self._end_marked() else b"\xff\xd9"
        return self._file_header(tables) + scan + end, True, self._complete

    def _end_marked(self) -> bool:
        """Whether the end marker stands at the end, padding left aside; asked for every packet with RTP's marker."""
        return self._scan[-MAX_PADDING_BYTES:].rstrip(b"\0").endswith(b"\xff\xd9")

    def _quantisers(self) -> list[bytes]:
        """Luma's and chroma's tables of 64 bytes (RFC 2435, 4.2 and appendix A)."""
        q = self._header[1] if self._header else 0
        if q >= 128:
            tables = self._tables.get(q, b"")
            return [tables[:64], tables[64:128] or tables[:64]] if len(tables) in (64, 128) else []
        if not 1 <= q <= 99:
            return []
        scale = 5000 // q if q < 50 else 200 - q * 2
        return [bytes(max(1, min(255, (value * scale + 50) // 100)) for value in table) for table in _QUANTISERS]

    def _file_header(self, tables: list[bytes]) -> bytes:
        assert self._header is not None  # noqa: S101 - finish() looked
        kind, _, width, height, restart = self._header
        luma_sampling = 0x21 if kind & 0x3F == 0 else 0x22     # 4:2:2, 4:2:0
        parts = [b"\xff\xd8", _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")]
        parts += [_segment(0xDB, bytes((number,)) + table) for number, table in enumerate(tables)]
        parts.append(_segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + bytes(
            (1, luma_sampling, 0, 2, 0x11, 1, 3, 0x11, 1))))
        parts += [_segment(0xC4, bytes((number,)) + table) for number, table in _HUFFMAN.items()]
        if restart:
            parts.append(_segment(0xDD, restart.to_bytes(2, "big")))
        parts.append(_segment(0xDA, bytes((3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0))))
        return b"".join(parts)


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body
