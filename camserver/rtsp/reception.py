"""The receiving side of one session's video: separate by sender, reorder, assemble. Pure.

A channel may carry more than the video: RTCP, audio, other payload types, another sender (SSRC).
Each pair of SSRC and payload type has its own assembler. Once a packet with the payload type of the
description was seen, only that type is used. Before that another type is accepted too, because some
cameras send a type that is not in their description.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from camserver.rtsp.access_unit import AccessUnit, Depacketiser, PictureAssembler, Proof
from camserver.rtsp.jpeg import JpegDepacketiser
from camserver.rtsp.nal import H264Depacketiser, H265Depacketiser
from camserver.rtsp.receive import ReorderBuffer, RtpPacket, SenderReport
from camserver.rtsp.sdp import Track

K = TypeVar("K")
V = TypeVar("V")

MAX_SENDERS = 8
"""Pairs of SSRC and payload type that are assembled at the same time."""
AUDIO_TYPES = frozenset((*range(19),))
"""Payload types that RFC 3551, table 4, gives to audio."""


def depacketiser(track: Track) -> Depacketiser:
    """A depacketiser for the track's codec, with the parameters from the description."""
    match track.codec:
        case "h264":
            return H264Depacketiser(track.parameter_sets())
        case "hevc":
            return H265Depacketiser(track.parameter_sets(), order_numbers=track.order_numbers)
        case _:
            return JpegDepacketiser(track.dimensions)


@dataclass(slots=True)
class _Sender:
    """One SSRC with one payload type."""

    assembler: PictureAssembler


class Reception:
    """Takes the packets of one session, gives its access units, and counts both."""

    def __init__(
        self, track: Track, *, proof: Proof | None, others: frozenset[int], unordered: bool
    ) -> None:
        """`others` are the payload types of other tracks.

        `unordered`: packets come by UDP and may be out of order.
        """
        self._track = track
        self._proof = proof
        self._others = (others | AUDIO_TYPES) - {track.payload_type}
        self._unordered = unordered
        self._senders: OrderedDict[tuple[int, int], _Sender] = OrderedDict()
        self._reorder: OrderedDict[int, ReorderBuffer] = OrderedDict()
        self._declared_seen = False
        self._newest: _Sender | None = None
        self.packets = 0
        self.pictures = 0
        self.torn_keys = 0
        self.report: SenderReport | None = None

    def control(self, data: bytes) -> None:
        """Take an RTCP packet."""
        self.report = SenderReport.parse(data) or self.report

    def packet(self, data: bytes, now: float) -> Iterator[AccessUnit]:
        """The access units that one packet completes. RTCP on this channel is also taken."""
        packet = RtpPacket.parse(data)
        if packet is None:
            self.control(data)
            return
        if packet.payload_type in self._others:
            return
        for ordered in self._ordered(packet, now):
            yield from self._feed(ordered)

    @property
    def proof(self) -> Proof | None:
        """The proof from the newest sender's markers, for the next session."""
        return self._proof if self._newest is None else self._newest.assembler.proof

    @property
    def obstacle(self) -> str:
        """Why no picture can be made of the packets, as text. Empty when one can."""
        return self._newest.assembler.obstacle if self._newest is not None else ""

    @property
    def lost(self) -> bool:
        """Whether packets were lost on the way."""
        return self._newest is not None and self._newest.assembler.lost

    @property
    def unproved_key(self) -> bool:
        """Whether a keyframe came, but no later packet has proved that it is whole."""
        return self._newest is not None and self._newest.assembler.unproved_key

    def _ordered(self, packet: RtpPacket, now: float) -> Iterator[RtpPacket]:
        if not self._unordered:
            yield packet
            return
        buffer = _latest(self._reorder, packet.ssrc, ReorderBuffer)
        yield from buffer.feed(packet, now)

    def _feed(self, packet: RtpPacket) -> Iterator[AccessUnit]:
        declared = packet.payload_type == self._track.payload_type
        self._declared_seen |= declared
        if self._declared_seen and not declared:
            return
        sender = _latest(
            self._senders,
            (packet.ssrc, packet.payload_type),
            lambda: _Sender(PictureAssembler(depacketiser(self._track), proof=self._proof)),
        )
        self._newest = sender
        self.packets += 1
        for picture in sender.assembler.feed(packet):
            self.pictures += 1
            self.torn_keys += picture.key and not picture.whole
            yield picture


def _latest(known: OrderedDict[K, V], key: K, make: Callable[[], V]) -> V:
    """The value of `key`. It is made when the key is new.

    When there are more than MAX_SENDERS values, the least recently used one is dropped.
    """
    value = known.pop(key, None)
    known[key] = value = make() if value is None else value
    if len(known) > MAX_SENDERS:
        known.popitem(last=False)
    return value
