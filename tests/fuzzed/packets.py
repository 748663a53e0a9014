"""The packets of one session's video, to access units."""

from __future__ import annotations

from camserver.rtsp.access_unit import MAX_PICTURE_BYTES
from camserver.rtsp.reception import Reception
from camserver.rtsp.sdp import parse_sdp

DESCRIPTIONS = (
    b"m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    b"a=fmtp:96 sprop-parameter-sets=Z0IAHqs=,aM48gA==",
    b"m=video 0 RTP/AVP 96\na=rtpmap:96 H265/90000",
    b"m=video 0 RTP/AVP 96\na=rtpmap:96 H265/90000\na=fmtp:96 sprop-max-don-diff=1",
    b"m=video 0 RTP/AVP 26",
    b"m=video 0 RTP/AVP 26\na=x-dimensions:2592,1944",
)
HEAD_BYTES = 3
"""Bytes of the input before each packet: flags, the packet's length."""
GROWTH_BYTES = 2048
"""How many bytes one packet may become more: start codes, parameter sets, JPEG tables."""


def assemble(data: bytes) -> None:
    """Take packets of one track, made from bytes. The first byte selects the track.

    The head of each packet is written here, so that the fuzzer gets to the payloads: flags are
    1 marker, 2 the next timestamp, 4 a lost packet, 8 a repeated one, 16 a packet with a head of
    its own.

    Raises AssertionError when an access unit is larger than what came, or is whole with a gap.
    """
    kind, at = (data[0] if data else 0), 1
    track = parse_sdp(DESCRIPTIONS[kind % len(DESCRIPTIONS)]).spoken()[0]
    reception = Reception(track, proof=None, others=frozenset(), unordered=kind >= 128)
    sequence, timestamp, now, received, packets = 65530, 0, 0.0, 0, 0
    while at + HEAD_BYTES <= len(data):
        flags, size = data[at], int.from_bytes(data[at + 1 : at + HEAD_BYTES], "big")
        payload = data[at + HEAD_BYTES : at + HEAD_BYTES + size]
        at += HEAD_BYTES + size
        if flags & 2:
            timestamp = (timestamp + 3000) % 2**32
        sequence += (2 if flags & 4 else 1) - (1 if flags & 8 else 0)
        packet = payload
        if not flags & 16:
            packet = (
                bytes((0x80, track.payload_type | (flags & 1) << 7))
                + (sequence % 65536).to_bytes(2, "big")
                + timestamp.to_bytes(4, "big")
                + b"ssrc"
                + payload
            )
        received += len(packet) + GROWTH_BYTES
        packets += 1
        now += 0.01
        for unit in reception.packet(packet, now):
            assert len(unit.data) <= min(received, MAX_PICTURE_BYTES + GROWTH_BYTES * packets)
            assert not unit.whole or unit.data
    assert reception.pictures <= 2 * reception.packets
    assert reception.torn_keys <= reception.pictures
    _ = reception.obstacle, reception.lost, reception.unproved_key  # they raise nothing
