"""Would sessions that stay open pay? bench_kept.py [--rounds N].

A film of 4 Mbit/s at GStreamer's server. A session that stays open costs CPU and bytes all the
time. A session for each picture costs them for each picture. Both are measured in turns, without
decoding, which is the same for both; publishing is in the second one, which flatters the session
that stays open.

GStreamer's server plays a film from its begin for each client. A camera is joined in the middle: on
average half a group of pictures comes before the keyframe. What that costs in a session that stays
open is added by calculation: the bytes without keyframes, the CPU with them. Printed is the
interval below which a session that stays open costs less.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from coded_films import SECONDS, Film, encode
from contenders import Ours
from rtsp_servers import gstreamer

from camserver.capture.native import NativeEngine
from camserver.host.loop import run_loop
from camserver.rtsp.aio.connection import RtspConnection

WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU in seconds and bytes: of a second, or of a picture."""

    cpu_s: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu_s + other.cpu_s, self.bytes + other.bytes)

    def times(self, factor: float) -> Cost:
        """So many of it."""
        return Cost(self.cpu_s * factor, self.bytes * factor)


class Counter:
    """Counts the bytes that all RTSP connections of this process receive."""

    def __init__(self) -> None:
        self.bytes = 0
        real = RtspConnection.data_received

        def data_received(connection: RtspConnection, data: bytes) -> None:
            self.bytes += len(data)
            real(connection, data)

        RtspConnection.data_received = data_received  # type: ignore[method-assign]


async def kept(url: str, ours: Ours, film: Film, counter: Counter) -> tuple[Cost, float]:
    """A session from its first keyframe to its last one.

    Returned are the cost of a second, and the bytes of a keyframe.
    """
    session = NativeEngine().open(ours.camera, url)
    async with asyncio.timeout(WAIT_S):
        await session.open()
        await session.keyframe()
        cpu_s, received = time.process_time(), counter.bytes
        groups = SECONDS // film.gop_s - 1
        sizes = [len((await session.keyframe()).picture.data) for _ in range(groups)]
    seconds = groups * film.gop_s
    second = Cost(time.process_time() - cpu_s, counter.bytes - received).times(1 / seconds)
    await session.close()
    return second, statistics.mean(sizes)


async def for_a_picture(ours: Ours, counter: Counter) -> Cost:
    """What a picture costs with a session of its own that begins with a film."""
    received = counter.bytes
    measured = await ours.shot()
    return Cost(measured.cpu_s - measured.decode_cpu_s, counter.bytes - received)


async def compare(url: str, folder: Path, film: Film, rounds: int) -> None:
    ours, counter = Ours(url, folder, "native"), Counter()
    await ours.shot()
    seconds, pictures, keyframe = list[Cost](), list[Cost](), 0.0
    for _ in range(rounds):
        second, keyframe = await kept(url, ours, film, counter)
        seconds.append(second)
        pictures.append(await for_a_picture(ours, counter))
    await ours.close()
    second = _median(seconds)
    before = second.times(film.gop_s / 2)
    picture = _median(pictures) + replace(before, bytes=before.bytes - keyframe / 2)
    print(
        f"keyframe each {film.gop_s} s of {keyframe / 1000:.0f} KB, {rounds} rounds\n"
        f"  stays open: {1000 * second.cpu_s:.1f} ms of CPU and {second.bytes / 1000:.0f} KB a"
        f" second\n"
        f"  for each picture: {1000 * picture.cpu_s:.1f} ms of CPU and {picture.bytes / 1000:.0f}"
        f" KB, joined in the middle\n"
        f"  staying open costs less CPU below an interval of {picture.cpu_s / second.cpu_s:.1f} s,"
        f" fewer bytes below {picture.bytes / second.bytes:.1f} s",
        flush=True,
    )


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.cpu_s for cost in costs),
        statistics.median(cost.bytes for cost in costs),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for film in (Film(gop_s=gop_s, steady=True) for gop_s in (1, 2, 4)):
            with gstreamer([encode(film, folder)]) as (url,):
                run_loop(partial(compare, url, folder, film, a.rounds))


if __name__ == "__main__":
    main()
