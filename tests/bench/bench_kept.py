"""Would sessions that stay open pay? bench_kept.py [--seconds S] [--shots N].

A film of 4 Mbit/s at GStreamer's server, with a keyframe each second and each four seconds, joined
in the middle as with a camera. A session that stays open costs CPU and bytes all the time, a
session for each picture costs them for each picture. Printed are both, and the interval below which
a session that stays open costs less. Decoding is the same for both, and is not counted. Publishing
is in the second number, which flatters the session that stays open.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from coded_films import Film, encode
from contenders import Ours
from rtsp_servers import gstreamer_live

from camserver.capture.native import NativeEngine
from camserver.host.loop import run_loop
from camserver.rtsp.aio.connection import RtspConnection

WAIT_S = 20.0


@dataclass(slots=True)
class Counted:
    """Bytes that all connections received."""

    bytes: int = 0


def count_bytes() -> Counted:
    """Count what connections receive from now on."""
    counted, real = Counted(), RtspConnection.data_received

    def data_received(self: RtspConnection, data: bytes) -> None:
        counted.bytes += len(data)
        real(self, data)

    RtspConnection.data_received = data_received  # type: ignore[method-assign]
    return counted


async def kept(
    url: str, folder: Path, seconds: float, counted: Counted
) -> tuple[float, float, int]:
    """(CPU and bytes of a second, keyframes in all) of a session that stays open."""
    session = NativeEngine().open(Ours(url, folder, "native").camera, url)
    async with asyncio.timeout(WAIT_S):
        await session.open()
        await session.keyframe()
    found, cpu, begun, before = 0, time.process_time(), time.monotonic(), counted.bytes
    while time.monotonic() < begun + seconds:
        async with asyncio.timeout(WAIT_S):
            await session.keyframe()
        found += 1
    took, used = time.monotonic() - begun, time.process_time() - cpu
    received = counted.bytes - before
    await session.close()
    return used / took, received / took, found


async def for_each_picture(
    url: str, folder: Path, shots: int, counted: Counted
) -> tuple[float, float, float]:
    """(CPU, bytes, seconds with a session) of a picture with a session of its own. Medians."""
    ours, seen, received = Ours(url, folder, "native"), [], []
    await ours.shot()
    for number in range(shots):
        before = counted.bytes
        seen.append(await ours.shot())
        received.append(counted.bytes - before)
        await asyncio.sleep(0.37 * (number % 3))  # at any moment of the group of pictures
    await ours.close()
    return (
        # Publishing is in it, but not decoding
        statistics.median(one.cpu_s - one.decode_cpu_s for one in seen),
        statistics.median(received),
        statistics.median(one.open_s for one in seen),
    )


async def compare(url: str, folder: Path, seconds: float, shots: int) -> None:
    counted = count_bytes()
    cpu_s, bytes_, found = await kept(url, folder, seconds, counted)
    shot_cpu_s, shot_bytes, open_s = await for_each_picture(url, folder, shots, counted)
    print(
        f"  stays open: {1000 * cpu_s:.1f} ms of CPU and {bytes_ / 1000:.0f} KB each second,"
        f" {found} keyframes in {seconds:g} s\n"
        f"  for each picture: {1000 * shot_cpu_s:.1f} ms of CPU and {shot_bytes / 1000:.0f} KB,"
        f" the session is open for {open_s:.2f} s\n"
        f"  less CPU when it stays open: below an interval of {shot_cpu_s / cpu_s:.2f} s; fewer"
        f" bytes: below {shot_bytes / bytes_:.2f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--shots", type=int, default=15)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for gop_s in (1, 4):
            with gstreamer_live(encode(Film(gop_s=gop_s), folder)) as url:
                print(f"keyframe each {gop_s} s")
                run_loop(partial(compare, url, folder, a.seconds, a.shots))


if __name__ == "__main__":
    main()
