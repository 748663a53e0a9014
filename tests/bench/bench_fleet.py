"""A fleet on this host: success, lateness, freshness, CPU and memory.

    bench_fleet.py [--cameras N] [--interval 60s] [--minutes M] [--dead SHARE] [--json FILE]

Simulated cameras, one process for each core, and a daemon that polls them. A share of the cameras
is dead, each in one of several ways. The first minute is not counted.

Freshness is calculated from the archive: a picture is as old as its name says, from the moment it
was written until the next one was. Each moment of each healthy camera counts the same. CPU is split
by process and, within the daemon, by thread.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

DEAD = (
    *("refuse", "deaf", "silent", "no-keyframe", "cut", "damage"),
    *("status:404", "status:503:SETUP", "stall:PLAY"),
)
WARM_UP_S = 60.0
EVERY_S = 10.0
ARCHIVE = "%s.%L.jpg"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Site:
    """The simulated cameras: inventory entries of the healthy and the dead ones, and processes."""

    entries: str
    healthy: frozenset[str]
    pids: tuple[int, ...]


@contextlib.contextmanager
def simulated(folder: Path, cameras: int, dead: float) -> Iterator[Site]:
    """Run simulated cameras. Of each ten, so many are dead as `dead` says."""
    entries, healthy, pids = list[str](), set[str](), list[int]()
    with contextlib.ExitStack() as stack:
        share = -(-cameras // (os.cpu_count() or 1))
        for number, first in enumerate(range(0, cameras, share)):
            count, prefix = min(share, cameras - first), f"s{number}-"
            ids = [f"{prefix}{n + 1}" for n in range(count)]
            faults = {n: DEAD[k % len(DEAD)] for k, n in enumerate(_spread(count, dead))}
            inventory = folder / f"{prefix}.toml"
            process = stack.enter_context(
                subprocess.Popen(
                    [
                        *(sys.executable, "-m", "camserver", "simulate", f"--cameras={count}"),
                        *("--base-port=0", "--fps=2", "--gop=2", "--until-eof"),
                        *(f"--fault=cam{n + 1}={fault}" for n, fault in faults.items()),
                        f"--inventory={inventory}",
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                )
            )
            stack.callback(process.terminate)
            while not inventory.exists():
                assert process.poll() is None, "the simulator has ended"
                time.sleep(0.1)
            found = tomllib.loads(inventory.read_text())["camera"]
            entries += [
                f'[[camera]]\nid = "{name}"\nurl = "{entry["url"]}"\n'
                for name, entry in zip(ids, found, strict=True)
            ]
            healthy |= {name for n, name in enumerate(ids) if n not in faults}
            pids.append(process.pid)
        yield Site("".join(entries), frozenset(healthy), tuple(pids))


def _spread(count: int, dead: float) -> list[int]:
    """The numbers of the dead cameras, spread evenly."""
    wanted = round(count * dead)
    return [(2 * k + 1) * count // (2 * wanted) for k in range(wanted)]


# ---- CPU and memory of processes


def _cpu_s(stat: Path, first: int = 11) -> float:
    """CPU of a process or a thread. With `first` 13: of the children that have ended."""
    fields = stat.read_text().rsplit(")", 1)[1].split()
    return (int(fields[first]) + int(fields[first + 1])) * TICK_S


def _children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_by_part(daemon: int, simulators: tuple[int, ...]) -> Counter[str]:
    """Seconds of CPU so far: event loop, store threads, other threads, each kind of worker."""
    found: Counter[str] = Counter()
    process = Path(f"/proc/{daemon}")
    found["loop"] = _cpu_s(process / f"task/{daemon}/stat")
    for task in (process / "task").iterdir():
        if (task / "comm").read_text().strip() == "store":
            found["store"] += _cpu_s(task / "stat")
    found["threads"] = _cpu_s(process / "stat") - found["loop"] - found["store"]
    found["ended workers"] = _cpu_s(process / "stat", 13)
    for child in _children(daemon):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            kind = "decoders" if b"decoder" in command else "libav sessions"
            found[kind] += _cpu_s(Path(f"/proc/{child}/stat"))
    for pid in simulators:
        found["simulator"] += _cpu_s(Path(f"/proc/{pid}/stat"))
    return found


def pss_mb(daemon: int) -> float:
    """Proportional memory of the daemon and all its workers."""
    total = 0
    for pid in (daemon, *_children(daemon)):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += sum(int(kb) for kb in re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE))
    return total / 1024


# ---- what the daemon says of itself


class Daemon:
    """A running daemon."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path) -> None:
        self.process = process
        self._socket = socket

    def get(self, route: str) -> str:
        assert self.process.poll() is None, "the daemon has ended"
        return subprocess.run(
            ["curl", "-s", "--unix-socket", str(self._socket), f"http://x{route}"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def value(self, metric: str) -> float:
        found = re.search(rf"^{metric} (\S+)", self.get("/metrics"), re.MULTILINE)
        assert found is not None, metric
        return float(found[1])

    def lateness(self) -> tuple[Counter[float], float]:
        """(how many polls were at most so late in seconds, the lateness of all in seconds)."""
        text = self.get("/metrics")
        name = "camserver_poll_lateness_seconds"
        buckets = re.findall(rf'^{name}_bucket{{le="(\S+)"}} (\S+)', text, re.MULTILINE)
        total = re.search(rf"^{name}_sum (\S+)", text, re.MULTILINE)
        assert total is not None
        return Counter({float(bound): float(count) for bound, count in buckets}), float(total[1])

    def results(self, healthy: frozenset[str]) -> Counter[str]:
        """The results of all polls of the healthy cameras."""
        cameras = json.loads(self.get("/v1/cameras"))
        return sum(
            (Counter(c["polling"]["results"]) for c in cameras if c["id"] in healthy), Counter()
        )


@contextlib.contextmanager
def running(folder: Path, site: Site, interval: str) -> Iterator[Daemon]:
    config, socket = folder / "c.toml", folder / "api.sock"
    config.write_text(
        f'[http]\nlisten = ""\n[api]\nsocket = "{socket}"\n[output]\ndirectory = "{folder}/out"\n'
        f'archive = "{ARCHIVE}"\n[retention]\nmin_free = 0\n[defaults]\ninterval = "{interval}"\n'
        + site.entries
    )
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "camserver", "run", "--config", str(config)], stderr=log
        ) as process,
    ):
        while not socket.exists():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        try:
            yield Daemon(process, socket)
        finally:
            process.terminate()


# ---- freshness


def ages(folder: Path, begin: float, end: float) -> list[tuple[float, float]]:
    """The ages of a camera's newest picture from `begin` to `end`: (from, to) in seconds."""
    pictures = sorted(
        (path.stat().st_mtime, float(path.stem)) for path in folder.glob("[0-9]*.jpg")
    )
    spans = []
    for number, (written, captured) in enumerate(pictures):
        until = pictures[number + 1][0] if number + 1 < len(pictures) else end
        since, until = max(begin, written), min(end, until)
        if since < until:
            spans.append((since - captured, until - captured))
    return spans


def percentile(spans: list[tuple[float, float]], share: float) -> float:
    """The age that is not exceeded for `share` of the time."""
    low, high = 0.0, max(to for _, to in spans)
    total = sum(to - since for since, to in spans)
    for _ in range(40):
        middle = (low + high) / 2
        below = sum(max(0.0, min(to, middle) - since) for since, to in spans)
        low, high = (middle, high) if below < share * total else (low, middle)
    return high


# ---- the run


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured. CPU is in ms for each picture of a healthy camera."""

    cameras: int
    interval: str
    first_pictures_s: float
    success: float
    results: dict[str, int]
    lateness_mean_s: float
    lateness_p99_s: float
    """The bound of the histogram that 99 % of the polls keep."""
    freshness_p50_s: float
    freshness_p99_s: float
    cpu_ms: dict[str, float]
    daemon_core: float
    simulator_core: float
    pss_mb: float
    pss_most_mb: float
    sessions_most: float


def measure(folder: Path, site: Site, cameras: int, interval: str, minutes: float) -> Report:
    begun = time.monotonic()
    with running(folder, site, interval) as daemon:
        first_s = _wait_for_all(folder / "out", site, begun)
        time.sleep(max(0.0, begun + WARM_UP_S - time.monotonic()))
        pid = daemon.process.pid
        results, cpu = daemon.results(site.healthy), cpu_by_part(pid, site.pids)
        since, memory, sessions = time.time(), list[float](), list[float]()
        within, late_s = daemon.lateness()
        while time.time() < since + 60 * minutes:
            time.sleep(EVERY_S)
            memory.append(pss_mb(pid))
            sessions.append(daemon.value("camserver_polls_running"))
        results = daemon.results(site.healthy) - results
        cpu, took = cpu_by_part(pid, site.pids) - cpu, time.time() - since
        within_end, late_end_s = daemon.lateness()
    spans = [
        span for name in site.healthy for span in ages(folder / "out" / name, since, since + took)
    ]
    own = cpu["loop"] + cpu["store"] + cpu["threads"]
    return Report(
        cameras,
        interval,
        first_s,
        results["ok"] / results.total(),
        dict(results),
        (late_end_s - late_s) / (within_end[math.inf] - within[math.inf]),
        _bound(within_end, within, 0.99),
        percentile(spans, 0.5),
        percentile(spans, 0.99),
        {part: 1000 * seconds / results["ok"] for part, seconds in cpu.items()},
        own / took,
        cpu["simulator"] / took,
        statistics.median(memory),
        max(memory),
        max(sessions),
    )


def _bound(end: Counter[float], begin: Counter[float], share: float) -> float:
    polls = end[math.inf] - begin[math.inf]
    return min(bound for bound in end if end[bound] - begin[bound] >= share * polls)


def _wait_for_all(output: Path, site: Site, begun: float) -> float:
    """Wait until every healthy camera has a picture. Returns the seconds since `begun`."""
    missing = set(site.healthy)
    while missing:
        assert time.monotonic() < begun + 600, f"no picture of {sorted(missing)}"
        missing = {name for name in missing if not (output / name / "latest.jpg").exists()}
        time.sleep(0.1)
    return time.monotonic() - begun


def show(report: Report) -> None:
    cpu = ", ".join(f"{part} {ms:.1f}" for part, ms in sorted(report.cpu_ms.items()))
    print(
        f"{report.cameras} cameras at {report.interval}\n"
        f"  first picture of each healthy one after {report.first_pictures_s:.1f} s\n"
        f"  success {100 * report.success:.3f} %  {report.results}\n"
        f"  lateness {report.lateness_mean_s:.3f} s on average, p99 at most"
        f" {report.lateness_p99_s:g} s\n"
        f"  freshness p50 {report.freshness_p50_s:.1f} s, p99 {report.freshness_p99_s:.1f} s\n"
        f"  CPU for each picture, ms: {cpu}\n"
        f"  daemon {100 * report.daemon_core:.1f} % of a core, simulator"
        f" {100 * report.simulator_core:.1f} %\n"
        f"  memory of all (PSS) {report.pss_mb:.0f} MB, most {report.pss_most_mb:.0f} MB; polls at"
        f" once, most {report.sessions_most:.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--interval", default="60s")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--dead", type=float, default=0.1)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with simulated(folder, a.cameras, a.dead) as site:
            report = measure(folder, site, a.cameras, a.interval, a.minutes)
    show(report)
    if a.json is not None:
        a.json.write_text(json.dumps(asdict(report), indent=1))


if __name__ == "__main__":
    main()
