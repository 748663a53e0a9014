"""Leases over the unix socket: how long acquire and release take, and how many a second.

    bench_leases.py [--seconds S]

A daemon with 100 cameras on 100 devices, and clients in this process (their CPU counts, too): one
alone; 100 on 100 devices; 100 on one device of one session, where each waits for those before it.
Cool-downs are 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import free_port

from camserver.client import DaemonUnavailableError, LeaseClient

CAMERAS = 100


def inventory(folder: Path, socket: Path) -> str:
    """A hundred devices where nothing listens; polls fail at once and hold nothing."""
    port = free_port()
    cameras = "".join(
        f'[[camera]]\nid = "cam{n}"\nurl = "rtsp://127.0.0.1:{port}/{n}"\ndevice = "device{n}"\n'
        for n in range(CAMERAS)
    )
    return (
        f'[output]\ndirectory = "{folder}/out"\n[api]\nsocket = "{socket}"\n'
        f'[defaults]\ninterval = "1d"\ncooldown = 0\nunclean_cooldown = 0\n{cameras}'
    )


async def client(socket: Path, camera: str, until: float, took: list[tuple[float, float]]) -> None:
    """One lease after the other."""
    while time.monotonic() < until:
        started = time.monotonic()
        async with LeaseClient(socket).lease(camera, wait_s=60):
            granted = time.monotonic()
        took.append((granted - started, time.monotonic() - granted))


async def measure(what: str, socket: Path, cameras: list[str], seconds: float) -> None:
    """All clients at once; prints medians and 99th percentiles."""
    took: list[tuple[float, float]] = []
    started = time.monotonic()
    await asyncio.gather(*(client(socket, camera, started + seconds, took) for camera in cameras))
    elapsed = time.monotonic() - started
    acquire, release = (statistics.quantiles(values, n=100) for values in zip(*took, strict=True))
    print(
        f"  {what:28} {len(took) / elapsed:7.0f}/s   "
        f"acquire p50 {acquire[49] * 1000:7.2f} p99 {acquire[98] * 1000:7.2f} ms   "
        f"release p50 {release[49] * 1000:6.2f} p99 {release[98] * 1000:6.2f} ms"
    )


async def work(socket: Path, seconds: float) -> None:
    """The three cases."""
    for _ in range(200):
        with contextlib.suppress(DaemonUnavailableError):
            async with LeaseClient(socket).lease("cam0"):
                break
        await asyncio.sleep(0.1)
    print("acquire and release over the socket:")
    await measure("1 client", socket, ["cam0"], seconds)
    await measure(
        "100 clients on 100 devices", socket, [f"cam{n}" for n in range(CAMERAS)], seconds
    )
    await measure("100 clients on one device", socket, ["cam0"] * CAMERAS, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, socket = Path(name), Path(name) / "api.sock"
        (folder / "c.toml").write_text(inventory(folder, socket))
        with subprocess.Popen(
            [sys.executable, "-m", "camserver", "run", "--config", str(folder / "c.toml")],
            stderr=subprocess.DEVNULL,
        ) as daemon:
            try:
                asyncio.run(work(socket, arguments.seconds))
            finally:
                daemon.terminate()


if __name__ == "__main__":
    main()
