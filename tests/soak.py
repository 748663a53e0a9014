"""Soak: a fleet with faults for a long time, and whether anything grows.

    soak.py [--minutes M] [--cameras N] [--interval 10s] [--samples FILE]

A quarter of the cameras has faults. Every ten seconds the daemon is measured from outside: memory,
descriptors, threads, processes, and how late polls start. The first half of the time is warm-up:
caches fill, and pools start their threads when they are first needed. A value is flat when its
trend over the second half is less than it may be (FLAT). Prints a table, writes all samples to FILE
as CSV, and ends with 1 when something is not flat.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

EVERY_S = 10.0
FAULTS = (
    *("refuse", "deaf", "silent", "no-keyframe", "cut", "damage", "status:503:SETUP"),
    *("stall:TEARDOWN", "loss:0.05", "reorder:0.1", "slow:20000", "reboot:5:20"),
)
FLAT = {
    "memory_mb": 4.0,
    "descriptors": 16.0,
    "threads": 2.0,
    "processes": 1.0,
    "lateness_s": 0.5,
}
"""How much a value may grow over the measured time, by its trend."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. `lateness_s` is the mean of the healthy polls since the one before."""

    memory_mb: float
    descriptors: float
    threads: float
    processes: float
    lateness_s: float


class Daemon:
    """A running daemon, measured from outside."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path) -> None:
        self._process = process
        self._socket = socket
        self._polls = (0.0, 0.0)

    def measure(self) -> Sample:
        assert self._process.poll() is None, "the daemon has ended"
        proc = Path(f"/proc/{self._process.pid}")
        status = (proc / "status").read_text()
        children = (proc / f"task/{self._process.pid}/children").read_text().split()
        metrics = subprocess.run(
            ["curl", "-s", "--unix-socket", str(self._socket), "http://x/metrics"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        late = {
            name: float(value)
            for name, value in re.findall(
                r'^camserver_poll_lateness_seconds_(sum|count){state="healthy"} (\S+)',
                metrics,
                re.MULTILINE,
            )
        }
        before, self._polls = self._polls, (late["sum"], late["count"])
        polls = self._polls[1] - before[1]
        return Sample(
            int(_of(status, "VmRSS")) / 1024,
            len(list((proc / "fd").iterdir())),
            int(_of(status, "Threads")),
            len(children),
            (self._polls[0] - before[0]) / polls if polls else 0.0,
        )


def _of(status: str, key: str) -> str:
    return status.split(f"{key}:")[1].split(maxsplit=1)[0]


@contextlib.contextmanager
def running(*command: str, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with contextlib.ExitStack() as stack:
        error = stack.enter_context(log.open("wb")) if log else None
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "camserver", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=error,
            )
        )
        try:
            yield process
        finally:
            process.terminate()


def soak(minutes: float, cameras: int, interval: str, folder: Path) -> list[Sample]:
    inventory, config = folder / "cameras.toml", folder / "c.toml"
    with contextlib.ExitStack() as stack:
        faults = [
            f"--fault=cam{n + 1}={FAULTS[n // 4 % len(FAULTS)]}" for n in range(0, cameras, 4)
        ]
        stack.enter_context(
            running(
                *("simulate", f"--cameras={cameras}", "--base-port=0", "--fps=2", "--gop=4"),
                *("--until-eof", f"--inventory={inventory}", f"--interval={interval}"),
                *faults,
            )
        )
        while not inventory.exists():
            time.sleep(0.1)
        config.write_text(
            f'[http]\nlisten = ""\n[api]\nsocket = "{folder}/api.sock"\n[output]\n'
            f'directory = "{folder}/out"\n[retention]\nmax_age = "5min"\nmin_free = 0\n'
            + inventory.read_text().replace("[defaults]", '[defaults]\ntimeout = "5s"')
        )
        process = stack.enter_context(running("run", "--config", str(config), log=folder / "log"))
        while not (folder / "api.sock").exists():
            time.sleep(0.1)
        daemon, samples = Daemon(process, folder / "api.sock"), []
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            time.sleep(EVERY_S)
            samples.append(daemon.measure())
    return samples


def growth(values: list[float]) -> float:
    """How much the values grow from the first to the last, by a line through them."""
    slope, _ = statistics.linear_regression(range(len(values)), values)
    return slope * (len(values) - 1)


def report(samples: list[Sample]) -> bool:
    """Print the table. Returns whether all values are flat."""
    measured = samples[len(samples) // 2 :]
    flat = True
    print(f"{'':12} {'median':>10} {'most':>10} {'growth':>10} {'may grow':>10}")
    for field in fields(Sample):
        values = [getattr(sample, field.name) for sample in measured]
        grown, may = growth(values), FLAT[field.name]
        flat = flat and grown <= may
        print(
            f"{field.name:12} {statistics.median(values):10.2f} {max(values):10.2f} {grown:10.2f}"
            f" {may:10.2f}" + ("" if grown <= may else "   NOT FLAT")
        )
    return flat


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--cameras", type=int, default=200)
    parser.add_argument("--interval", default="10s")
    parser.add_argument("--samples", type=Path)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        samples = soak(a.minutes, a.cameras, a.interval, Path(name))
        if a.samples is not None:
            names = [field.name for field in fields(Sample)]
            rows = [",".join(f"{value:g}" for value in astuple(sample)) for sample in samples]
            a.samples.write_text("\n".join([",".join(names), *rows]) + "\n")
        print(f"{a.cameras} cameras at {a.interval}, {a.minutes:g} minutes, {len(samples)} samples")
        return 0 if report(samples) else 1


if __name__ == "__main__":
    sys.exit(main())
