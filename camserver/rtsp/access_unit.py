"""Assemble RTP packets to access units, each with the proof that it is whole. Pure.

A picture is whole when all of these are true:

- Its first packet is known to be the first: the packet before it belonged to another picture, or
  its first slice says that it begins the picture.
- No sequence number is missing from there to its last packet.
- Every fragmented unit has its start and its end.
- Its last packet is known to be the last. The next packet has another timestamp; or the format
  itself says so; or the packet has the marker, the sender's markers are proved to end pictures, and
  the picture is like the one that proved them.

Time proves nothing: a sender that marks every slice may stall after the first slice.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from camserver.rtsp.receive import RtpPacket

MAX_PICTURE_BYTES = 32 * 1024 * 1024
MAX_RECENT_PACKETS = 128
"""A repeated packet is recognised among this many newest packets."""


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One access unit: Annex B or a JFIF file.

    `key`: it is a keyframe. `whole`: nothing of it is missing.
    """

    data: bytes
    timestamp: int
    key: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof that a sender's markers end pictures.

    It was seen at the end of a keyframe with this number of slices and bytes. It is valid only for
    keyframes like that one. A sender may begin to mark every slice, for example after an update.
    Then its first marker comes after fewer slices or far fewer bytes. An H.265 decoder would decode
    such an incomplete picture without an error.
    """

    slices: int
    bytes: int

    def covers(self, slices: int, bytes_: int) -> bool:
        """Whether a picture is like the one that proved the markers.

        The number of slices must be equal, because it is a setting. The size may differ, because
        scenes change.
        """
        return slices == self.slices and bytes_ * 4 >= self.bytes * 3


class Depacketiser(Protocol):
    """Collects the payloads of one picture at a time (RFC 6184, RFC 7798, RFC 2435)."""

    def begin(self) -> None:
        """Forget the picture before."""

    @property
    def obstacle(self) -> str:
        """Why no picture can be made of the packets, as text. Empty when one can."""

    def opens(self, payload: bytes) -> bool:
        """Whether this payload can only be the first of a picture."""

    def continues(self, payload: bytes) -> bool:
        """Whether this payload can only be in the middle of a picture."""

    def add(self, payload: bytes) -> None:
        """Add the next payload of this picture."""

    def add_extension(self, profile: int, words: bytes) -> None:
        """Add the RTP header extension of the next payload."""

    def starts(self) -> bool:
        """Whether the payloads so far are proved to begin a picture."""

    def slices(self) -> int:
        """The number of complete slices."""

    def ends(self) -> bool:
        """Whether the payloads so far are proved to be a whole picture."""

    def finish(self) -> tuple[bytes, bool, bool]:
        """(coded data, whether it is a keyframe, whether every unit in it is complete)."""


class PictureAssembler:
    """Takes the packets of one track in order, and gives access units.

    An access unit is held until its end is certain.
    """

    def __init__(self, depacketiser: Depacketiser, *, proof: Proof | None = None) -> None:
        self.proof = proof
        """The proof that this sender's markers end pictures.

        A marker was seen at the end of a keyframe, and never in the middle of a picture. Pictures
        between keyframes prove nothing: they may have one slice where a keyframe has several
        slices, each with a marker.
        """
        self._markers_lied = False
        self._depacketiser = depacketiser
        self._last: RtpPacket | None = None
        self._begun = False  # whether the picture's beginning is certain
        self._gap = False
        self._bytes = 0
        self._given = True  # no picture is being collected, or it was given at its marker
        # Sequence number -> hash of the payload
        self._recent: OrderedDict[int, int] = OrderedDict()
        self.lost = False
        """Whether sequence numbers were missing or out of order: packets are lost on the way."""

    def feed(self, packet: RtpPacket) -> list[AccessUnit]:
        """The access units that `packet` completes.

        These are the one it belongs to, the one before, both, or none.
        """
        if self._is_repeat(packet):
            return []
        last = self._last
        pictures: list[AccessUnit] = []
        contiguous = last is not None and packet.sequence == (last.sequence + 1) % 65536
        self.lost |= last is not None and not contiguous
        # A sender without a clock gives all pictures one timestamp. Then pictures are separated by
        # a marker and a payload after it that can only be the first of a picture. Some senders give
        # each slice its own timestamp. So a payload that can only be in the middle of a picture
        # does not begin one.
        same_time = last is not None and packet.timestamp == last.timestamp
        if (
            not same_time
            and contiguous
            and not self._given
            and self._depacketiser.continues(packet.payload)
        ):
            same_time = True
        if (
            last is None
            or not same_time
            or (last.marker and self._depacketiser.opens(packet.payload))
        ):
            pictures += self._give(ended=contiguous)
            if (
                last is not None
                and last.marker
                and not self._markers_lied
                and any(p.key and p.whole for p in pictures)
            ):
                self.proof = Proof(self._depacketiser.slices(), self._bytes)
            self._begun, self._gap, self._bytes, self._given = contiguous, False, 0, False
            self._depacketiser.begin()
        else:
            self._gap |= not contiguous
            if last.marker:  # a marker in the middle of a picture: this sender marks slices
                self._markers_lied, self.proof = True, None
        self._last = packet
        self._bytes += len(packet.payload) + len(packet.extension[1])
        if not self._given and self._bytes <= MAX_PICTURE_BYTES:
            if packet.extension[1]:
                self._depacketiser.add_extension(*packet.extension)
            self._depacketiser.add(packet.payload)
        if packet.marker and (self._proved() or self._depacketiser.ends()):
            pictures += self._give(ended=True)
        return pictures

    def _is_repeat(self, packet: RtpPacket) -> bool:
        """Whether the same packet was among the newest ones.

        Another payload with the same sequence number is not a repeat, but a fault.
        """
        mark = hash(packet.payload)
        if self._recent.get(packet.sequence) == mark:
            return True
        self._recent[packet.sequence] = mark
        if len(self._recent) > MAX_RECENT_PACKETS:
            self._recent.popitem(last=False)
        return False

    @property
    def obstacle(self) -> str:
        """Why no picture can be made of the packets, as text. Empty when one can."""
        return self._depacketiser.obstacle

    @property
    def unproved_key(self) -> bool:
        """Whether a keyframe is being collected whose newest packet has an unproved marker."""
        return (
            not self._given
            and self._last is not None
            and self._last.marker
            and self._depacketiser.finish()[1]
        )

    def _proved(self) -> bool:
        return self.proof is not None and self.proof.covers(
            self._depacketiser.slices(), self._bytes
        )

    def _give(self, *, ended: bool) -> list[AccessUnit]:
        if self._given or self._last is None:
            return []
        self._given = True
        begun = self._begun or self._depacketiser.starts()
        data, key, complete = self._depacketiser.finish()
        whole = begun and ended and complete and not self._gap and self._bytes <= MAX_PICTURE_BYTES
        whole = whole and bool(data)  # payloads that are headers only make no picture
        return [AccessUnit(data, self._last.timestamp, key, whole)]
