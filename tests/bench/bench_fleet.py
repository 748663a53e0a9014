"""A fleet on this host: success, lateness, freshness, CPU and memory.

    bench_fleet.py [--cameras N] [--interval 60s] [--minutes M] [--dead SHARE] [--json FILE]

Simulated cameras, one process for each core, and a daemon that polls them. A share of the cameras
is dead, each in one of several ways. The first minute is not counted. A poll that is skipped, since
the one before still runs, counts as failed.

Each moment of each healthy camera counts the same for freshness. CPU is split by process and,
within the daemon, by thread; the event loop is then watched for half a minute more, by py-spy.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from freshness_spans import ages, percentile
from loop_profile import loop_shares
from machine import machine
from measured_fleet import (
    Site,
    cpu_by_part,
    memory_mb,
    running,
    sessions,
    simulated,
    wait_for_all,
)

WARM_UP_S = 60.0
FIRST_LIMIT_S = 600.0
EVERY_S = 10.0
PROFILED_S = 30.0
LATEST_S = 3600.0
"""The lateness that stands for "later than the last bound of the histogram"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was measured. CPU is in ms for each picture of a healthy camera.

    Lateness is that of healthy cameras: 99 % of the polls were at most `lateness_p99_s` late, which
    is a bound of a histogram. `loop_ms` splits the event loop's CPU by kinds of work; None when it
    could not be watched. `sessions_most` is the most of one look each EVERY_S.
    """

    cameras: int
    interval: str
    minutes: float
    picture_kb: float
    first_pictures_s: float
    success: float
    results: dict[str, int]
    lateness_mean_s: float
    lateness_p99_s: float
    freshness_p50_s: float
    freshness_p99_s: float
    cpu_ms: dict[str, float]
    loop_ms: dict[str, float] | None
    daemon_core: float
    simulator_core: float
    memory_mb: float
    memory_most_mb: float
    sessions_most: int


def measure(folder: Path, site: Site, cameras: int, interval: str, minutes: float) -> Report:
    with running(folder, site, interval) as daemon:
        first_s = wait_for_all(daemon, site.healthy, FIRST_LIMIT_S)
        daemon.wait_until(WARM_UP_S)
        pid = daemon.process.pid
        results, (within, late_s) = daemon.results(site.healthy), daemon.lateness()
        memory, open_ = list[float](), list[int]()
        since, cpu = time.time(), cpu_by_part(pid, site.pids)
        while time.time() < since + 60 * minutes:
            time.sleep(EVERY_S)
            memory.append(memory_mb(pid))
            open_.append(sessions(pid))
        cpu, took = cpu_by_part(pid, site.pids) - cpu, time.time() - since
        results = daemon.results(site.healthy) - results
        within_end, late_end_s = daemon.lateness()
        shares = loop_shares(pid, PROFILED_S)
    out, pictures = folder / "out", results["ok"]
    spans = [
        span
        for name in site.healthy
        for span in ages(out / name, daemon.started, since, since + took)
    ]
    cpu_ms = {part: 1000 * seconds / pictures for part, seconds in cpu.items()}
    return Report(
        cameras=cameras,
        interval=interval,
        minutes=minutes,
        picture_kb=statistics.mean(_newest_kb(out / name) for name in site.healthy),
        first_pictures_s=first_s,
        success=pictures / results.total(),
        results=dict(results),
        lateness_mean_s=(late_end_s - late_s) / (within_end[math.inf] - within[math.inf]),
        lateness_p99_s=min(LATEST_S, _bound(within_end, within, 0.99)),
        freshness_p50_s=percentile(spans, 0.5),
        freshness_p99_s=percentile(spans, 0.99),
        cpu_ms=cpu_ms,
        loop_ms=shares and {kind: share * cpu_ms["loop"] for kind, share in shares.items()},
        daemon_core=(cpu["loop"] + cpu["store"] + cpu["threads"]) / took,
        simulator_core=cpu["simulator"] / took,
        memory_mb=statistics.median(memory),
        memory_most_mb=max(memory),
        sessions_most=max(open_),
    )


def _newest_kb(folder: Path) -> float:
    return (folder / "latest.jpg").stat().st_size / 1000


def _bound(end: Counter[float], begin: Counter[float], share: float) -> float:
    polls = end[math.inf] - begin[math.inf]
    return min(bound for bound in end if end[bound] - begin[bound] >= share * polls)


def show(report: Report) -> None:
    def parts(ms: dict[str, float]) -> str:
        return ", ".join(f"{part} {ms[part]:.2f}" for part in sorted(ms, key=lambda p: -ms[p]))

    print(
        f"{report.cameras} cameras at {report.interval}, pictures of {report.picture_kb:.0f} KB\n"
        f"  first picture of each healthy one after {report.first_pictures_s:.1f} s\n"
        f"  success {100 * report.success:.3f} %  {report.results}\n"
        f"  lateness {report.lateness_mean_s:.3f} s on average, p99 at most"
        f" {report.lateness_p99_s:g} s\n"
        f"  freshness p50 {report.freshness_p50_s:.1f} s, p99 {report.freshness_p99_s:.1f} s\n"
        f"  CPU for each picture, ms: {parts(report.cpu_ms)}\n"
        f"  event loop, ms: {parts(report.loop_ms or {})}\n"
        f"  daemon {100 * report.daemon_core:.1f} % of a core, simulator"
        f" {100 * report.simulator_core:.1f} %\n"
        f"  memory {report.memory_mb:.0f} MB, most {report.memory_most_mb:.0f} MB; most sessions of"
        f" all looks {report.sessions_most}",
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
            facts = machine(folder)
    show(report)
    if a.json is not None:
        a.json.write_text(json.dumps({"machine": facts, **asdict(report)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
