"""RTP and RTCP on the receiving side (RFC 3550): packets, sender reports, reordering. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from camserver.rtsp.rtp import NTP_EPOCH_S

MAX_HELD_PACKETS = 64
MAX_HELD_S = 0.2
"""How many packets are held while an earlier one is missing, and for how many seconds.

Then the missing packet counts as lost.
"""


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One packet. `payload` is without padding and header extension."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    extension: tuple[int, bytes] = (0, b"")
    """The header extension: its 16-bit profile value, and its words."""

    @classmethod
    def parse(cls, data: bytes) -> RtpPacket | None:
        """Parse a packet. None when it is not RTP version 2, or is RTCP (RFC 5761, 4)."""
        if len(data) < 12 or data[0] >> 6 != 2 or is_rtcp(data):
            return None
        start, end = 12 + 4 * (data[0] & 15), len(data)
        extension = (0, b"")
        if data[0] & 0x10:
            if len(data) < start + 4:
                return None
            profile, words = struct.unpack_from(">HH", data, start)
            start += 4 + 4 * words
            extension = (profile, data[start - 4 * words : start])
        if start > end:
            return None
        # Some cameras set the padding bit without any padding. Then the padding count is not valid.
        if data[0] & 0x20 and 0 < data[-1] <= end - start:
            end -= data[-1]
        sequence, timestamp, ssrc = struct.unpack_from(">HII", data, 2)
        marker = bool(data[1] & 0x80)
        return cls(data[1] & 0x7F, marker, sequence, timestamp, ssrc, data[start:end], extension)


def is_rtcp(data: bytes) -> bool:
    """Whether a packet on a channel for RTP and RTCP is RTCP: types 192 to 223 (RFC 5761, 4)."""
    return len(data) >= 2 and 192 <= data[1] <= 223


@dataclass(frozen=True, slots=True)
class SenderReport:
    """RTCP SR: the sender's wall clock (seconds since 1970) at an RTP timestamp."""

    wall_s: float
    timestamp: int

    @classmethod
    def parse(cls, data: bytes) -> SenderReport | None:
        """Parse the sender report of a compound packet. It comes first (RFC 3550, 6.1).

        None when there is no sender report, or when its clock is 0.
        """
        if len(data) < 28 or data[0] >> 6 != 2 or data[1] != 200:
            return None
        seconds, fraction, timestamp = struct.unpack_from(">III", data, 8)
        return cls(seconds - NTP_EPOCH_S + fraction / 2**32, timestamp) if seconds else None

    def wall_at(self, timestamp: int, clock_hz: int) -> float:
        """The sender's wall clock at another RTP timestamp."""
        ticks = (timestamp - self.timestamp + 2**31) % 2**32 - 2**31
        return self.wall_s + ticks / clock_hz


class ReorderBuffer:
    """Gives packets in the order of their sequence numbers, within a limited wait."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._held: dict[int, RtpPacket] = {}
        self._waiting_since = 0.0

    def feed(self, packet: RtpPacket, now: float) -> Iterator[RtpPacket]:
        """The packets that are now in order. Late and repeated packets are dropped."""
        first = packet.sequence if self._next is None else self._next
        ahead = (packet.sequence - first) % 65536
        if ahead >= 32768:
            return
        if not self._held:
            self._waiting_since = now
        self._held[packet.sequence] = packet
        if ahead and (len(self._held) > MAX_HELD_PACKETS or now - self._waiting_since > MAX_HELD_S):
            first = min(self._held, key=lambda sequence: (sequence - first) % 65536)
        while first in self._held:
            yield self._held.pop(first)
            first = (first + 1) % 65536
            self._waiting_since = now
        self._next = first
