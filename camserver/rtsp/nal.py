"""Depacketisers of H.264 (RFC 6184, modes 0 and 1) and H.265 (RFC 7798): payloads to Annex B. Pure.

Slices and parameter sets are kept, because a still needs them. Side information (SEI) and units of
unknown kinds are dropped, so a fault in them cannot damage a picture. Kinds that carry picture data
but are not supported make a picture incomplete. Parameter sets are remembered, from the session
description or in band, and put before a keyframe that has none.
"""

from __future__ import annotations

from collections.abc import Iterable

from camserver.rtsp.bitstream import (
    RECOVERY_POINT,
    SHORT_START_CODE,
    START_CODE,
    h264_is_intra,
    split_annex_b,
)

MAX_SETS_OF_A_KIND = 4
MAX_SET_BYTES = 4096
"""The size limit of a parameter set. Parameter sets of cameras have some dozen bytes.

The limit is needed because they are put before every keyframe without them.
"""
MAX_UNITS = 4096
"""The limit of NAL units in one picture.

Cameras make a few dozen. With slices of single macroblocks there would be a few thousand.
"""


MAX_AGGREGATED = 256
"""The limit of NAL units in one packet. A packet of 1500 bytes has a few dozen at most."""


class NalDepacketiser:
    """The common part of both depacketisers.

    A subclass defines the form of NAL unit kinds, fragments and aggregates.
    """

    HEADER_BYTES: int
    SETS: frozenset[int]
    KEYS: frozenset[int]
    PICTURES: frozenset[int]
    OPENERS: frozenset[int]
    AGGREGATE: int
    FRAGMENT: int
    REFUSED: frozenset[int]
    """Kinds of payload that carry picture data in modes that are not negotiated."""

    def __init__(
        self, parameter_sets: Iterable[bytes] = (), *, order_numbers: bool = False
    ) -> None:
        """`order_numbers`: payloads carry decoding order numbers (DONL; RFC 7798, 4.4)."""
        self._sets: dict[int, list[bytes]] = {}
        self._start_bits = False  # whether this sender marks first fragments
        self._end_bits = False  # whether this sender marks last fragments
        self._order_numbers = order_numbers
        for nal in parameter_sets:
            for unit in split_annex_b(nal):
                self._remember(unit)
        self.begin()

    def begin(self) -> None:
        """Forget the picture before. Parameter sets are kept."""
        self._units: list[bytes] = []
        self._fragment: bytearray | None = None
        self._complete = True
        # Whether the first slice's beginning is certain; None before the first slice
        self._first_slice_marked: bool | None = None

    @property
    def obstacle(self) -> str:
        """Always empty: no obstacle is known for these codecs."""
        return ""

    def opens(self, payload: bytes) -> bool:
        """Whether this is a first slice, or a unit that comes only before the first slice.

        Filler data and suffix messages are not such units: they come in the middle of pictures.
        """
        nal = self._first_unit(payload)
        if nal is None:
            return False
        kind = self.kind(nal)
        if kind in self.OPENERS:
            return True
        return kind in self.PICTURES and bool(nal[self.HEADER_BYTES] & 0x80)

    def continues(self, payload: bytes) -> bool:
        """Whether this payload can only be in the middle of a picture.

        This is a later slice or a later fragment.
        """
        head = self.HEADER_BYTES
        if len(payload) > head and self.kind(payload) == self.FRAGMENT and not payload[head] & 0x80:
            return self._start_bits
        nal = self._first_unit(payload)
        if nal is None or self.kind(nal) not in self.PICTURES:
            return False
        return not nal[head] & 0x80

    def add(self, payload: bytes) -> None:
        """Add a single NAL unit, an aggregate or a fragment."""
        payload = self._without_start_code(payload)
        if len(payload) <= self.HEADER_BYTES:
            return
        kind = self.kind(payload)
        if kind == self.FRAGMENT:
            self._add_fragment(payload)
            return
        self._close_fragment()
        if kind == self.AGGREGATE:
            self._add_aggregate(payload)
        elif kind in self.REFUSED:
            self._complete = False
        else:
            if self._order_numbers:
                payload = payload[: self.HEADER_BYTES] + payload[self.HEADER_BYTES + 2 :]
            self._add_unit(payload, marked=True)

    def add_extension(self, profile: int, words: bytes) -> None:
        """Ignore it: a still needs nothing from RTP header extensions."""

    def starts(self) -> bool:
        """Whether the first slice is marked as the first of the picture.

        In H.264 first_mb_in_slice is 0. In H.265 first_slice_segment_in_pic_flag is set.
        """
        if not self._first_slice_marked:
            return False
        first = next((nal for nal in self._units if self.kind(nal) in self.PICTURES), b"")
        if not first and self._fragment is not None:
            first = bytes(self._fragment[:8])
        return len(first) > self.HEADER_BYTES and bool(first[self.HEADER_BYTES] & 0x80)

    def slices(self) -> int:
        """The number of complete slices of the picture."""
        units, _ = self._finished()
        return sum(self.kind(nal) in self.PICTURES for nal in units)

    def ends(self) -> bool:
        """Always False: no slice says how many slices follow."""
        return False

    def finish(self) -> tuple[bytes, bool, bool]:
        """(Annex B, key, complete)."""
        units, complete = self._finished()
        kinds = {self.kind(nal) for nal in units}
        slices = [nal for nal in units if self.kind(nal) in self.PICTURES]
        key = self.is_key(slices)
        kept = [nal for nal in units if self.kind(nal) in self.PICTURES | self.SETS]
        if key:
            missing = [
                nal for kind in sorted(self.SETS - kinds) for nal in self._sets.get(kind, ())
            ]
            kept = self.decodable([*missing, *kept])
            # Without parameter sets the keyframe cannot be decoded
            complete &= kinds | self._sets.keys() >= self.SETS
        return b"".join(START_CODE + nal for nal in kept), key, complete

    @staticmethod
    def kind(nal: bytes) -> int:
        """nal_unit_type."""
        raise NotImplementedError

    def is_key(self, slices: list[bytes]) -> bool:
        """Whether a picture of these slices can be decoded alone."""
        return bool(slices) and self.kind(slices[0]) in self.KEYS

    def decodable(self, units: list[bytes]) -> list[bytes]:
        """The units of a keyframe, in a form that a decoder accepts as a keyframe."""
        return units

    def rebuilt_header(self, payload: bytes) -> bytes:
        """The NAL unit header, rebuilt from a fragment's headers."""
        raise NotImplementedError

    def _without_start_code(self, payload: bytes) -> bytes:
        """The payload without a start code at its beginning.

        Some cameras put an Annex B stream into packets. Then the header of the first unit comes
        after a start code.
        """
        for code in (START_CODE, SHORT_START_CODE):
            if payload.startswith(code):
                return payload[len(code) :]
        return payload

    def _first_unit(self, payload: bytes) -> bytes | None:
        """The beginning of the first NAL unit that starts in a payload. None when none starts."""
        head = self.HEADER_BYTES
        payload = self._without_start_code(payload)
        if len(payload) <= head:
            return None
        skipped = 2 if self._order_numbers else 0
        kind = self.kind(payload)
        if kind == self.FRAGMENT:
            if not payload[head] & 0x80:
                return None
            payload = self.rebuilt_header(payload) + self._without_start_code(
                payload[head + 1 + skipped : head + 9 + skipped]
            )
        elif kind == self.AGGREGATE:
            payload = payload[head + skipped + 2 :]
        elif skipped:
            payload = payload[:head] + payload[head + skipped :]
        return payload if len(payload) > head else None

    def _finished(self) -> tuple[list[bytes], bool]:
        """(units, complete) as if the picture ended now. The state is not changed."""
        if self._fragment is None:
            return self._units, self._complete
        if self._end_bits:  # this sender marks last fragments, and this one is missing
            return self._units, False
        return [*self._units, bytes(self._fragment)], self._complete

    def _close_fragment(self) -> None:
        """End the current fragmented unit, because another unit begins."""
        if self._fragment is None:
            return
        fragment, self._fragment = bytes(self._fragment), None
        if self._end_bits:
            self._complete = False
        else:
            self._add_unit(fragment, marked=True)

    def _add_unit(self, nal: bytes, *, marked: bool) -> None:
        if SHORT_START_CODE in nal:
            for part in split_annex_b(nal):
                if len(self._units) >= MAX_UNITS:
                    self._complete = False
                    return
                if len(part) > self.HEADER_BYTES:
                    self._add_unit(part, marked=marked)
            return
        if len(nal) <= self.HEADER_BYTES:
            return
        if len(self._units) >= MAX_UNITS:
            self._complete = False
            return
        self._note_first_slice(nal, marked=marked)
        self._units.append(nal)
        self._remember(nal)

    def _note_first_slice(self, nal: bytes | bytearray, *, marked: bool) -> None:
        if self._first_slice_marked is None and self.kind(bytes(nal[:2])) in self.PICTURES:
            self._first_slice_marked = marked

    def _remember(self, nal: bytes) -> None:
        if len(nal) <= self.HEADER_BYTES:
            return
        kind = self.kind(nal)
        if kind in self.SETS and len(nal) <= MAX_SET_BYTES:
            known = self._sets.setdefault(kind, [])
            if nal in known:
                known.remove(nal)
            known.append(nal)  # the newest is last, so that it counts when two have the same id
            del known[:-MAX_SETS_OF_A_KIND]

    def _add_aggregate(self, payload: bytes) -> None:
        at = self.HEADER_BYTES + (2 if self._order_numbers else 0)
        count = 0
        while at < len(payload):
            if count and self._order_numbers:
                at += 1  # DOND
            size = int.from_bytes(payload[at : at + 2], "big")
            if not size and not payload[at:].strip(b"\0"):
                return  # padding
            nal = payload[at + 2 : at + 2 + size]
            at += 2 + size
            count += 1
            is_sound = len(nal) == size >= self.HEADER_BYTES and count <= MAX_AGGREGATED
            if not is_sound or len(self._units) >= MAX_UNITS:
                self._complete = False
                return
            self._add_unit(nal, marked=True)

    def _add_fragment(self, payload: bytes) -> None:
        head = self.HEADER_BYTES
        flags = payload[head]
        start, end = bool(flags & 0x80), bool(flags & 0x40)
        self._start_bits |= start
        self._end_bits |= end
        header, data = self.rebuilt_header(payload), payload[head + 1 :]
        if start:
            self._close_fragment()
            if self._order_numbers:
                data = data[2:]
        elif self._fragment is None and self._start_bits:
            self._complete = False
            return
        elif self._fragment is not None and not self._start_bits and self._other_unit(header):
            self._close_fragment()
        if self._fragment is None:
            self._fragment = bytearray(header)
            self._note_first_slice(self._fragment, marked=start)
        self._fragment += data
        if end:
            nal, self._fragment = bytes(self._fragment), None
            self._add_unit(nal, marked=start)

    def _other_unit(self, header: bytes) -> bool:
        """Whether a unit with another header has begun. For senders that mark no first fragment."""
        return self._fragment is not None and not self._fragment.startswith(header)


class H264Depacketiser(NalDepacketiser):
    """Single NAL units, STAP-A, FU-A (RFC 6184, 5.6 to 5.8)."""

    HEADER_BYTES = 1
    SETS = frozenset((7, 8))
    KEYS = frozenset((5,))
    PICTURES = frozenset((1, 2, 5))
    OPENERS = frozenset((6, 7, 8, 9))  # SEI, SPS, PPS, access unit delimiter
    AGGREGATE = 24
    FRAGMENT = 28
    REFUSED = frozenset((25, 26, 27, 29))  # STAP-B, MTAP16, MTAP24, FU-B: interleaved mode

    @staticmethod
    def kind(nal: bytes) -> int:
        """nal_unit_type (H.264, 7.3.1)."""
        return nal[0] & 0x1F

    def is_key(self, slices: list[bytes]) -> bool:
        """Whether it is an IDR picture, or has only I slices, which refer to no other picture."""
        if super().is_key(slices):
            return True
        return bool(slices) and all(self.kind(nal) == 1 and h264_is_intra(nal) for nal in slices)

    def decodable(self, units: list[bytes]) -> list[bytes]:
        """The units, with a recovery point if there is no IDR slice.

        A decoder outputs pictures only from an IDR picture or a recovery point on.
        """
        if any(self.kind(nal) in self.KEYS for nal in units):
            return units
        at = next(i for i, nal in enumerate(units) if self.kind(nal) in self.PICTURES)
        return [*units[:at], RECOVERY_POINT, *units[at:]]

    def rebuilt_header(self, payload: bytes) -> bytes:
        """F and NRI from the FU indicator, and the type from the FU header."""
        return bytes((payload[0] & 0xE0 | payload[1] & 0x1F,))


class H265Depacketiser(NalDepacketiser):
    """Single NAL units, aggregation packets, fragmentation units (RFC 7798, 4.4)."""

    HEADER_BYTES = 2
    SETS = frozenset((32, 33, 34))
    KEYS = frozenset(range(16, 22))
    PICTURES = frozenset((*range(10), *range(16, 22)))  # the others are reserved (H.265, table 7-1)
    OPENERS = frozenset((32, 33, 34, 35, 39))  # VPS, SPS, PPS, access unit delimiter, prefix SEI
    AGGREGATE = 48
    FRAGMENT = 49
    REFUSED = frozenset((50,))  # PACI: a wrapper of other payloads

    @staticmethod
    def kind(nal: bytes) -> int:
        """nal_unit_type (H.265, 7.3.1.2)."""
        return nal[0] >> 1 & 0x3F

    def rebuilt_header(self, payload: bytes) -> bytes:
        """F, layer and temporal id from the payload header, and the type from the FU header."""
        return bytes((payload[0] & 0x81 | (payload[2] & 0x3F) << 1, payload[1]))
