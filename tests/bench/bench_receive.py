"""What it costs the daemon to receive a keyframe: bench_receive.py [--kilobytes N] [--rounds N].

The bytes of a session's interleaved packets go through a connection, without a socket: one picture
before, then a keyframe. CPU of this thread, medians.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from typing import Any, cast

from camserver.rtsp.aio.connection import RtspConnection
from camserver.rtsp.aio.media import Media
from camserver.rtsp.messages import Interleaved
from camserver.rtsp.reception import Reception
from camserver.rtsp.rtp import RtpSender, h264_payloads, h265_payloads
from camserver.rtsp.sdp import Track

SETS = {"H264": (b"\x67\x42\x00\x1e\xab", b"\x68\xce\x3c\x80")}
SETS["H265"] = (b"\x40\x01\x0c\x01", b"\x42\x01\x01\x01", b"\x44\x01\xc1\x01")
SLICES = {"H264": (b"\x61\x98", b"\x65\x88"), "H265": (b"\x02\x01\x80", b"\x26\x01\x80")}
"""How a picture between keyframes and a keyframe begin."""
READ_BYTES = 64 * 1024
"""About what one read of a socket gives."""


class NoTransport:
    """A transport that does nothing."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


def stream(codec: str, kilobytes: int) -> tuple[list[bytes], int]:
    """(what a socket would give, read by read; the number of packets)."""
    noise = random.Random(1).randbytes(1000 * kilobytes).replace(b"\0\0", b"\1\1")
    between, key = SLICES[codec]
    pictures = [[between + noise[:8000]], [*SETS[codec], key + noise], [between + noise[:8000]]]
    sender, made = RtpSender(96, 1, 100), list[bytes]()
    for number, nals in enumerate(pictures):
        payloads = list((h264_payloads if codec == "H264" else h265_payloads)(nals))
        for index, payload in enumerate(payloads):
            packet = sender.packet(payload, 3600 * number, marker=index == len(payloads) - 1)
            made.append(Interleaved(0, packet).encode())
    data = b"".join(made)
    return [data[at : at + READ_BYTES] for at in range(0, len(data), READ_BYTES)], len(made)


async def receive(codec: str, reads: list[bytes]) -> float:
    """Seconds of CPU until the keyframe is there."""
    connection = RtspConnection()
    media = Media(connection)
    connection.connection_made(cast("Any", NoTransport()))
    track = Track("video", 96, codec)
    began = time.thread_time()
    media.begin(
        "RTP/AVP/TCP;interleaved=0-1",
        Reception(track, proof=None, others=frozenset(), unordered=False),
    )
    for data in reads:
        connection.data_received(data)
        while connection._next_turn is not None:
            await asyncio.sleep(0)
    picture, _ = await media.keyframe()
    took = time.thread_time() - began
    assert picture.whole
    return took


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kilobytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=100)
    a = parser.parse_args()
    for codec in SLICES:
        reads, packets = stream(codec, a.kilobytes)
        took = statistics.median([await receive(codec, reads) for _ in range(a.rounds)])
        print(
            f"{codec}: a keyframe of {a.kilobytes} KB, {packets} packets: {1000 * took:.2f} ms,"
            f" {1e6 * took / packets:.1f} us a packet"
        )


if __name__ == "__main__":
    asyncio.run(main())
