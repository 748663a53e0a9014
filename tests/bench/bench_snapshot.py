"""One camera, one picture.

Camserver against ffmpeg, on GStreamer's server and on the simulator, alternating in one run.

    bench_snapshot.py [--rounds N] [--size 1920x1080] [--delay MS]

Wall is from "now" to the JPEG on the disk; CPU is user + system of everything that had to run for
it: for camserver the daemon's process and its workers (warm, as between two polls), for ffmpeg its
process. Servers are not counted. Medians. Open is how long the camera had a session to keep (a
lease held); CPU is split into RTSP (while the lease was held), decoding (the decoder worker) and
the rest (publishing). `--delay` puts a link of that round trip in between (slow_link.py).

Read the simulator's H.265 line with care: ffmpeg with the small probe is quick there because it
joins in the middle of a group of pictures and writes a uniformly grey picture.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import camera, free_port

from camserver.capture.build import build_capture
from camserver.config.output import OutputTable
from camserver.health import PictureHealth
from camserver.host.loop import run_loop
from camserver.leases import Budget, Holder, RtspManager
from camserver.model import Attempt
from camserver.snapshots.service import SnapshotService
from camserver.snapshots.sources import Sources
from camserver.storage import SnapshotStore
from camserver.storage.outcomes import Outcomes
from camserver.workers.pool import WorkerPool

FFMPEG = ("ffmpeg", "-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp")
PROBE = ("-probesize", "32", "-analyzeduration", "0")
GST_SERVER = Path(__file__).parents[1] / "integration" / "gst_server.py"
SLOW_LINK = Path(__file__).with_name("slow_link.py")


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of one picture; `open` and the phases of CPU only where we can see them."""

    wall: float
    cpu: float
    open: float = 0.0
    cpu_rtsp: float = 0.0
    cpu_decode: float = 0.0


class Ours:
    """What the daemon does for one poll, with its parts, in this process."""

    def __init__(
        self, url: str, folder: Path, engine: str, health: PictureHealth | None = None
    ) -> None:
        self.camera = camera(url=url, max_sessions=4, cooldown_s=0.0, engine=engine)
        self.capture = build_capture(85)
        self.sessions, self.decoders = self.capture.sessions, self.capture.decoders
        # Moments and CPU of the process when one began and ended
        self._leases: list[tuple[float, float]] = []
        manager = RtspManager(
            lambda _: self._leases.append((time.monotonic(), self._cpu_s(self.sessions)))
        )
        manager.configure({self.camera.device: Budget(4, 0.0, 0.0)})
        self.service = SnapshotService(
            manager,
            Sources(self.capture.rtsp, self.capture.http),
            self.capture.decoder,
            health=health,
        )
        self.store = SnapshotStore(OutputTable(directory=folder, archive=""), Outcomes())

    async def shot(self) -> Measured:
        self._leases.clear()
        started, cpu_s, decode_s = (
            time.monotonic(),
            self._cpu_s(self.sessions, self.decoders),
            _workers_s(self.decoders),
        )
        published = 0.0

        async def deliver(attempt: Attempt) -> Attempt:
            nonlocal published
            attempt, _ = await self.store.record(attempt, 0)
            published = time.monotonic()
            return attempt

        attempt = await self.service.take(self.camera, Holder("bench"), deliver=deliver)
        if not attempt.ok:
            raise SystemExit(f"no picture: {attempt.error}")
        (begun, begun_cpu_s), (ended, ended_cpu_s) = self._leases
        return Measured(
            published - started,
            self._cpu_s(self.sessions, self.decoders) - cpu_s,
            ended - begun,
            ended_cpu_s - begun_cpu_s,
            _workers_s(self.decoders) - decode_s,
        )

    @staticmethod
    def _cpu_s(*pools: WorkerPool) -> float:
        return time.process_time() + _workers_s(*pools)

    async def close(self) -> None:
        await self.capture.close()


def _workers_s(*pools: WorkerPool) -> float:
    workers = (Path(f"/proc/{pid}/schedstat").read_text() for pool in pools for pid in pool.pids)
    return sum(int(text.split()[0]) for text in workers) / 1e9


def ffmpeg(url: str, target: Path, *options: str) -> Callable[[], Awaitable[Measured]]:
    """One `ffmpeg` run that writes one JPEG."""

    async def shot() -> Measured:
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: ASYNC220 - wait4(2) gives its CPU
            [*FFMPEG, *options, "-i", url, "-frames:v", "1", "-y", str(target)],
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = await asyncio.to_thread(os.wait4, process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if status or not target.stat().st_size:
            raise SystemExit("ffmpeg gave no picture")
        return Measured(time.monotonic() - started, usage.ru_utime + usage.ru_stime)

    return shot


def encode(folder: Path, size: str) -> list[Path]:
    """Noisy films as cameras send them, 4 Mbit/s, a keyframe every two seconds.

    `bare-h264` is what design section 4 measured: an encoder's defaults (B-pictures) and no
    timestamps, so that default probing runs to its end. The others have regular timestamps and no
    B-pictures, the best case for probing.
    """
    films = []
    for name, encoder, options in (
        ("h264.mp4", "libx264", ["-bf", "0"]),
        ("h265.mp4", "libx265", ["-bf", "0", "-x265-params", "log-level=none"]),
        ("bare-h264.264", "libx264", []),
    ):
        film = folder / name
        subprocess.run(
            [
                "ffmpeg",
                "-loglevel",
                "error",
                "-f",
                "lavfi",
                "-i",
                f"testsrc2=s={size}:r=25",
                "-t",
                "8",
                "-vf",
                "noise=alls=12:allf=t,format=yuv420p",
                "-c:v",
                encoder,
                "-preset",
                "veryfast",
                "-g",
                "50",
                "-b:v",
                "4M",
                *options,
                str(film),
            ],
            check=True,
        )
        films.append(film)
    return films


@contextmanager
def gstreamer(films: list[Path]) -> Iterator[dict[str, str]]:
    """URLs of GStreamer's server by name."""
    port = free_port()
    with subprocess.Popen(
        ["/usr/bin/python3", str(GST_SERVER), str(port), "0", "0", "0", "-", *map(str, films)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield {
                f"GStreamer {film.stem}": f"rtsp://127.0.0.1:{port}/{film.stem}" for film in films
            }
        finally:
            process.kill()


@contextmanager
def simulator(folder: Path, size: str) -> Iterator[dict[str, str]]:
    """URLs of simulated cameras by name."""
    inventory = folder / "sim.toml"
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "camserver",
            "simulate",
            "--cameras=2",
            "--base-port=0",
            "--until-eof",
            f"--size={size}",
            "--max-sessions=4",
            "--fps=25",
            "--gop=50",
            f"--inventory={inventory}",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        try:
            yield {f"simulator {line.split()[2]}": line.split()[1] for line in lines[:2]}
        finally:
            process.kill()


async def compare(url: str, folder: Path, rounds: int) -> dict[str, Measured]:
    """Medians by contender; in each round everyone has one turn."""
    ours, through_libav = Ours(url, folder, "native"), Ours(url, folder, "libav")
    contenders: dict[str, Callable[[], Awaitable[Measured]]] = {
        "camserver": ours.shot,
        "camserver, libav": through_libav.shot,
        "ffmpeg": ffmpeg(url, folder / "a.jpg"),
        "ffmpeg small probe": ffmpeg(url, folder / "b.jpg", *PROBE),
    }
    seen: dict[str, list[Measured]] = {name: [] for name in contenders}
    for one in (ours, through_libav):  # starts the workers, as the daemon's first poll does
        await one.shot()
    for number in range(rounds):
        for name, shot in contenders.items():
            seen[name].append(await shot())
        print(f"\r  round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    await ours.close()
    await through_libav.close()
    return {
        name: Measured(
            *(statistics.median(values) for values in zip(*map(astuple, all_), strict=True))
        )
        for name, all_ in seen.items()
    }


def show(medians: dict[str, Measured]) -> None:
    ours = medians["camserver"]
    for contender, m in medians.items():
        line = (
            f"  {contender:20} {m.wall * 1000:7.0f} ms wall {m.wall / ours.wall:6.1f}x  "
            f"{m.cpu * 1000:6.0f} ms CPU {m.cpu / ours.cpu:6.1f}x"
        )
        if m.open:
            rest = m.cpu - m.cpu_rtsp - m.cpu_decode
            line += (
                f"   open {m.open * 1000:5.0f} ms, CPU: RTSP {m.cpu_rtsp * 1000:.1f}, decode"
                f" {m.cpu_decode * 1000:.1f}, rest {rest * 1000:.1f} ms"
            )
        print(line)


@contextmanager
def slow_links(urls: dict[str, str], milliseconds: int) -> Iterator[dict[str, str]]:
    """The same URLs through a link of that round trip."""
    with ExitStack() as stack:
        slow = {}
        for name, url in urls.items():
            port = url.split(":")[2].split("/")[0]
            link = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(SLOW_LINK), port, str(milliseconds)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(link.kill)
            assert link.stdout is not None
            slow[f"{name}, {milliseconds} ms away"] = url.replace(
                f":{port}/", f":{link.stdout.readline().strip()}/"
            )
        yield slow


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--json", type=Path, help="also write the medians to this file")
    parser.add_argument(
        "--delay",
        type=int,
        metavar="MS",
        help="only this: GStreamer's server, so many milliseconds away",
    )
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ExitStack() as stack:
            urls = stack.enter_context(gstreamer(encode(folder, arguments.size)))
            if arguments.delay:
                urls = stack.enter_context(slow_links(urls, arguments.delay))
            else:
                urls |= stack.enter_context(simulator(folder, arguments.size))
            for server, url in urls.items():
                medians = run_loop(partial(compare, url, folder, arguments.rounds))
                results[server] = medians
                print(f"\r{server}, {arguments.size}, {arguments.rounds} rounds")
                show(medians)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, default=asdict))


if __name__ == "__main__":
    main()
