"""From RTP packets to coded pictures, each with the proof that it is whole. Pure.

A picture is whole when its first packet is known to be its first (the packet before it belonged to
another picture, or its first slice says that it begins the picture), no sequence number is missing
from there to its last packet, every fragmented unit has its start and its end, and the last packet
is known to be its last (the next one has another timestamp, or it has the marker of a sender whose
markers have proved right and the picture is like the one that proved them, or the format says so
itself). Time proves nothing: a sender that marks every slice may stall after the first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from camserver.rtsp.receive import RtpPacket

MAX_PICTURE_BYTES = 32 * 1024 * 1024
MAX_RECENT_PACKETS = 128
"""So many packets back a repeated one is recognised."""


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One access unit: Annex B or a JFIF file.

    `key`: it can be decoded alone. `whole`: nothing of it is missing.
    """

    data: bytes
    timestamp: int
    key: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """A sender's markers end pictures.

    Seen at the end of a key picture of so many slices and bytes.

    It holds for key pictures like that one. A sender that marks every slice since yesterday, after
    an update, shows fewer slices at its first marker, or much fewer bytes; H.265 would decode them
    without a word.
    """

    slices: int
    bytes: int

    def covers(self, slices: int, bytes_: int) -> bool:
        """Whether a picture is like the one that proved the markers.

        Scenes change, slices are set up once.
        """
        return slices == self.slices and bytes_ * 4 >= self.bytes * 3


class Depacketiser(Protocol):
    """Collects the payloads of one picture at a time (RFC 6184, RFC 7798, RFC 2435)."""

    def begin(self) -> None:
        """Forget everything of the picture before."""

    @property
    def obstacle(self) -> str:
        """Why no picture can be made of what comes, in words; empty when one can."""

    def opens(self, payload: bytes) -> bool:
        """Whether this payload can only be the first of a picture."""

    def continues(self, payload: bytes) -> bool:
        """Whether this payload can only be in the middle of a picture."""

    def add(self, payload: bytes) -> None:
        """The next payload of this picture."""

    def add_extension(self, profile: int, words: bytes) -> None:
        """The RTP header extension of the payload that comes next."""

    def starts(self) -> bool:
        """Whether what was added so far proves to begin a picture."""

    def slices(self) -> int:
        """How many slices are complete."""

    def ends(self) -> bool:
        """Whether what was added so far proves to be all of a picture."""

    def finish(self) -> tuple[bytes, bool, bool]:
        """(the picture, whether it is a key picture, whether every unit in it is complete)."""


class PictureAssembler:
    """Feeds on packets of one track in order, gives pictures.

    A picture is held until its end is certain.
    """

    def __init__(self, depacketiser: Depacketiser, *, proof: Proof | None = None) -> None:
        self.proof = proof
        """That this sender's markers end pictures.

        Seen at a key picture's end, and never in the middle of one.

        Pictures in between prove nothing: they may be of one slice where a key picture has several,
        each with a marker.
        """
        self._markers_lied = False
        self._depacketiser = depacketiser
        self._last: RtpPacket | None = None
        self._begun = False  # the picture's beginning is certain
        self._gap = False
        self._bytes = 0
        self._given = True  # nothing is being collected, or it was given at its marker
        # Sequence number -> hash of the payload
        self._recent: OrderedDict[int, int] = OrderedDict()
        self.lost = False
        """Whether numbers were missing or came out of order: then packets are lost on the way."""

    def feed(self, packet: RtpPacket) -> list[AccessUnit]:
        """The pictures that `packet` completes.

        The one it belongs to, the one before, both or none.
        """
        if self._is_repeat(packet):
            return []
        last = self._last
        pictures: list[AccessUnit] = []
        contiguous = last is not None and packet.sequence == (last.sequence + 1) % 65536
        self.lost |= last is not None and not contiguous
        # A sender without a clock gives all pictures one timestamp: then a marker and what follows
        # it tell them apart. A sender that gives each slice a timestamp of its own: what can only
        # be in the middle of a picture begins none.
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
            if last.marker:  # in the middle of a picture: this sender marks slices
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
        """Whether just this packet came before, a moment ago.

        Another one with its number is no repeat, but a fault.
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
        """Why no picture can be made of what comes; empty when one can."""
        return self._depacketiser.obstacle

    @property
    def unproved_key(self) -> bool:
        """Whether a key picture is being collected that ended with an unproved marker."""
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
        return [AccessUnit(data, self._last.timestamp, key, whole)]
