"""Depacketisers of H.264 (RFC 6184, modes 0 and 1) and H.265 (RFC 7798, without DONL): payloads to Annex B. Pure.

Parameter sets are remembered, from the session description or in band, and put before a key picture that has none.
"""

from __future__ import annotations

from collections.abc import Iterable

from camserver.rtsp.rtp import split_annex_b

START_CODE = b"\0\0\0\1"
MAX_SETS_OF_A_KIND = 4
MAX_SET_BYTES = 4096
"""Cameras' parameter sets have some dozen bytes; they are put before every key picture that lacks them."""
MAX_UNITS = 4096
"""NAL units of one picture; cameras make a few dozen, slices of single macroblocks a few thousand."""


class NalDepacketiser:
    """What both have in common; the codec says how a NAL unit's kind, a fragment and an aggregate look."""

    HEADER_BYTES: int
    SETS: frozenset[int]
    KEYS: frozenset[int]
    PICTURES: frozenset[int]
    OPENERS: frozenset[int]
    AGGREGATE: int
    FRAGMENT: int

    def __init__(self, parameter_sets: Iterable[bytes] = ()) -> None:
        self._sets: dict[int, list[bytes]] = {}
        for nal in parameter_sets:
            self._remember(nal)
        self.begin()

    def begin(self) -> None:
        """Forget the picture before; parameter sets stay."""
        self._units: list[bytes] = []
        self._fragment: bytearray | None = None
        self._complete = True

    def opens(self, payload: bytes) -> bool:
        """A first slice, or what may stand before it only: filler and suffix messages come in the middle of pictures."""
        head = self.HEADER_BYTES
        if len(payload) <= head:
            return False
        kind = self.kind(payload)
        if kind == self.FRAGMENT:
            if not payload[head] & 0x80:
                return False
            payload = self.rebuilt_header(payload) + payload[head + 1 :]
        elif kind == self.AGGREGATE:
            payload = payload[head + 2 :]
        if len(payload) <= head:
            return False
        kind = self.kind(payload)
        return kind in self.OPENERS or (kind in self.PICTURES and bool(payload[head] & 0x80))

    def add(self, payload: bytes) -> None:
        """A single NAL unit, an aggregate or a fragment."""
        if len(payload) <= self.HEADER_BYTES:
            return
        kind = self.kind(payload)
        if kind == self.FRAGMENT:
            self._add_fragment(payload)
            return
        self._complete &= self._fragment is None    # a fragmented unit was never finished
        self._fragment = None
        if kind == self.AGGREGATE:
            self._add_aggregate(payload)
        elif self.is_single(kind):
            self._add_unit(payload)
        else:
            self._complete = False                  # interleaved modes and PACI: not negotiated, not understood

    def starts(self) -> bool:
        """Whether the first slice says that it is the picture's first (first_mb_in_slice 0, first_slice_segment…)."""
        first = next((nal for nal in self._units if self.kind(nal) in self.PICTURES), b"")
        if not first and self._fragment is not None:
            first = bytes(self._fragment[:8])
        return len(first) > self.HEADER_BYTES and bool(first[self.HEADER_BYTES] & 0x80)

    def slices(self) -> int:
        """Slices of the picture that are complete."""
        return sum(self.kind(nal) in self.PICTURES for nal in self._units)

    def ends(self) -> bool:
        """Never: how many slices follow is not written in any."""
        return False

    def finish(self) -> tuple[bytes, bool, bool]:
        """(Annex B, key, complete)."""
        kinds = {self.kind(nal) for nal in self._units}
        slices = (self.kind(nal) for nal in self._units if self.kind(nal) in self.PICTURES)
        key = next(slices, None) in self.KEYS
        units = self._units
        if key:
            missing = [nal for kind in sorted(self.SETS - kinds) for nal in self._sets.get(kind, ())]
            units = missing + units
            # Without parameter sets nobody can decode it.
            self._complete &= kinds | self._sets.keys() >= self.SETS
        return b"".join(START_CODE + nal for nal in units), key, self._complete and self._fragment is None

    @staticmethod
    def kind(nal: bytes) -> int:
        """nal_unit_type."""
        raise NotImplementedError

    def is_single(self, kind: int) -> bool:
        """Whether a payload of this kind is a NAL unit."""
        raise NotImplementedError

    def rebuilt_header(self, payload: bytes) -> bytes:
        """The NAL unit header that a fragment's headers stand for."""
        raise NotImplementedError

    def _add_unit(self, nal: bytes) -> None:
        if START_CODE in nal:       # some cameras put an Annex B stream into packets
            for part in split_annex_b(nal):
                if len(part) > self.HEADER_BYTES:
                    self._add_unit(part)
            return
        if len(self._units) >= MAX_UNITS:
            self._complete = False
            return
        self._units.append(nal)
        self._remember(nal)

    def _remember(self, nal: bytes) -> None:
        kind = self.kind(nal)
        if kind in self.SETS and len(nal) <= MAX_SET_BYTES:
            known = self._sets.setdefault(kind, [])
            if nal in known:
                known.remove(nal)
            known.append(nal)       # the newest last: it counts when two have one id
            del known[:-MAX_SETS_OF_A_KIND]

    def _add_aggregate(self, payload: bytes) -> None:
        at = self.HEADER_BYTES
        while at + 2 <= len(payload):
            size = int.from_bytes(payload[at : at + 2], "big")
            nal = payload[at + 2 : at + 2 + size]
            at += 2 + size
            if len(nal) != size or size <= self.HEADER_BYTES - 1 or len(self._units) >= MAX_UNITS:
                self._complete = False
                return
            self._add_unit(nal)
        self._complete &= at == len(payload)

    def _add_fragment(self, payload: bytes) -> None:
        head = self.HEADER_BYTES
        if len(payload) < head + 2:
            self._complete = False
            return
        flags = payload[head]
        if flags & 0x80:
            self._complete &= self._fragment is None
            self._fragment = bytearray(self.rebuilt_header(payload))
        if self._fragment is None:
            self._complete = False
            return
        self._fragment += payload[head + 1 :]
        if flags & 0x40:
            nal, self._fragment = bytes(self._fragment), None
            self._add_unit(nal)


class H264Depacketiser(NalDepacketiser):
    """Single NAL units, STAP-A, FU-A (RFC 6184, 5.6 to 5.8)."""

    HEADER_BYTES = 1
    SETS = frozenset((7, 8))
    KEYS = frozenset((5,))
    PICTURES = frozenset((1, 2, 5))
    OPENERS = frozenset((6, 7, 8, 9))           # SEI, SPS, PPS, access unit delimiter
    AGGREGATE = 24
    FRAGMENT = 28

    @staticmethod
    def kind(nal: bytes) -> int:
        """nal_unit_type (H.264, 7.3.1)."""
        return nal[0] & 0x1F

    def is_single(self, kind: int) -> bool:
        """Kinds 1 to 23."""
        return 0 < kind < 24

    def rebuilt_header(self, payload: bytes) -> bytes:
        """F and NRI of the indicator, the type of the FU header."""
        return bytes((payload[0] & 0xE0 | payload[1] & 0x1F,))


class H265Depacketiser(NalDepacketiser):
    """Single NAL units, aggregation packets, fragmentation units (RFC 7798, 4.4)."""

    HEADER_BYTES = 2
    SETS = frozenset((32, 33, 34))
    KEYS = frozenset(range(16, 22))
    PICTURES = frozenset(range(32))
    OPENERS = frozenset((32, 33, 34, 35, 39))   # VPS, SPS, PPS, access unit delimiter, prefix SEI
    AGGREGATE = 48
    FRAGMENT = 49

    @staticmethod
    def kind(nal: bytes) -> int:
        """nal_unit_type (H.265, 7.3.1.2)."""
        return nal[0] >> 1 & 0x3F

    def is_single(self, kind: int) -> bool:
        """Kinds 0 to 47."""
        return kind < 48

    def rebuilt_header(self, payload: bytes) -> bytes:
        """F, layer and temporal id of the payload header, the type of the FU header."""
        return bytes((payload[0] & 0x81 | (payload[2] & 0x3F) << 1, payload[1]))
