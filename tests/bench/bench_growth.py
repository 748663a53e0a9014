"""What grows with the fleet: bench_growth.py [--minutes M] [--sizes N ...] [--rates R ...].

From 10 to 10,000 simulated cameras at the same number of polls a second (10): the CPU of a poll
should not depend on the size of the fleet. Beside each of them another daemon polls 100 cameras, as
many polls a second: so a minute in which the machine is slow is slow for both. All cameras are
simulated, none is faked: a simulator of 10,000 cameras has no more to do than one of 10, for the
polls are as many. All are healthy. And 200 cameras at several rates: a daemon that is woken more
rarely needs more CPU for each picture.

Then a daemon of 10,000 cameras that has nearly nothing to do (one picture an hour each): its CPU;
when each camera has a picture, its memory, and how long its event loop does not answer when its
inventory is reloaded with one camera changed. And how long a daemon of 100 cameras takes until it
says READY.

A fleet gets its first pictures as soon as the open rate allows. The second polls come half to one
and a half intervals later, and are as many in each second as planned. Measuring begins after the
first ones of them. An idle fleet would have no polls for half an hour then: it begins spread over
nearly the whole interval instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from expected import SMALL_FLEET
from machine import machine
from measured_fleet import (
    CONFIG,
    Daemon,
    Site,
    cpu_by_part,
    memory_mb,
    running,
    simulated,
    wait_for_all,
)

POLLS_A_SECOND = 10
SIZES = (10, 100, 1000, 10_000)
RATE_CAMERAS = 200
RATES = (4, 40, 100)
"""Polls a second."""
SECOND_POLLS = 0.65
"""The part of an interval after which the second polls are as many as planned."""
ROOM = 1.1
"""The open rate of the idle fleet, as a multiple of the planned polls a second."""
IDLE_INTERVAL, IDLE_INTERVAL_S = "1h", 3600.0
START_RATE = 100.0
"""The open rate where all cameras shall have a picture soon."""
WARM_UP_S = 60.0
FIRST_LIMIT_S = 300.0
SETTLED_S = 75.0
RELOADS = 5
RELOAD_S = 15.0
STARTS = 7
START_CAMERAS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A fleet of one size. CPU is in ms for each picture.

    `small_cpu_ms` is that of a daemon with SMALL_FLEET cameras in the same minutes; None: there was
    no other daemon.
    """

    cameras: int
    interval_s: float
    pictures_a_second: float
    failed: int
    own_cpu_ms: float
    """Of the daemon's own process."""
    loop_cpu_ms: float
    """Of its event loop."""
    store_cpu_ms: float
    """Of its threads that write pictures."""
    workers_cpu_ms: float
    memory_mb: float
    small_cpu_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A large fleet with one picture an hour for each camera. `core` is a share of one core."""

    cameras: int
    polls_a_second: float
    own_core: float
    """Of the daemon's own process."""
    core: float
    """With its workers."""
    memory_mb: float
    reload_busy_s: list[float]
    """How long the event loop did not answer at most, for each reload."""
    quiet_busy_s: float
    """The same without a reload, for as long."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Simulated cameras, and the daemon that polls them."""

    site: Site
    daemon: Daemon

    def results(self) -> Counter[str]:
        """The results of all polls so far."""
        return self.daemon.results(self.site.healthy)


@dataclass(frozen=True, slots=True)
class Window:
    """A fleet for some time: the results of its polls, and its CPU by part, in seconds."""

    seconds: float
    results: Counter[str]
    cpu: Counter[str]
    memory_mb: float

    @property
    def own_s(self) -> float:
        """CPU of the daemon's own process."""
        return self.cpu["loop"] + self.cpu["store"] + self.cpu["threads"]


def watch(fleets: Sequence[Fleet], minutes: float) -> list[Window]:
    """Measure fleets from now on, all at the same time."""
    pids = [fleet.daemon.process.pid for fleet in fleets]
    results = [fleet.results() for fleet in fleets]
    began, cpu = time.monotonic(), [cpu_by_part(pid, ()) for pid in pids]
    time.sleep(60 * minutes)
    took = time.monotonic() - began
    cpu = [cpu_by_part(pid, ()) - before for pid, before in zip(pids, cpu, strict=True)]
    memory = [memory_mb(pid) for pid in pids]
    results = [fleet.results() - before for fleet, before in zip(fleets, results, strict=True)]
    return [Window(took, *each) for each in zip(results, cpu, memory, strict=True)]


@contextlib.contextmanager
def settled(cameras: int, polls_a_second: int) -> Iterator[Fleet]:
    """A fleet of which each camera has a picture, and the second polls are as many as planned."""
    interval_s = cameras / polls_a_second
    with _cameras(cameras) as (folder, site):
        open_rate = max(START_RATE, 2 * polls_a_second)
        with running(folder, site, f"{interval_s:g}s", open_rate) as daemon:
            wait_for_all(daemon, site.healthy, FIRST_LIMIT_S)
            daemon.wait_until(max(WARM_UP_S, SECOND_POLLS * interval_s))
            yield Fleet(site, daemon)


def beside_a_small_one(cameras: int, minutes: float) -> Point:
    """A fleet that has POLLS_A_SECOND, beside one of SMALL_FLEET that has as many."""
    small = settled(SMALL_FLEET, POLLS_A_SECOND)
    with settled(cameras, POLLS_A_SECOND) as fleet, small as other:
        seen, then = watch((fleet, other), minutes)
    of_small = _point(SMALL_FLEET, POLLS_A_SECOND, then)
    return replace(_point(cameras, POLLS_A_SECOND, seen), small_cpu_ms=of_small.own_cpu_ms)


def alone(cameras: int, minutes: float, polls_a_second: int) -> Point:
    """A fleet without another daemon beside it."""
    with settled(cameras, polls_a_second) as fleet:
        (seen,) = watch((fleet,), minutes)
    return _point(cameras, polls_a_second, seen)


def _point(cameras: int, polls_a_second: int, seen: Window) -> Point:
    pictures = seen.results["ok"]
    _as_planned(pictures / seen.seconds, polls_a_second)
    return Point(
        cameras=cameras,
        interval_s=cameras / polls_a_second,
        pictures_a_second=pictures / seen.seconds,
        failed=seen.results.total() - pictures,
        own_cpu_ms=1000 * seen.own_s / pictures,
        loop_cpu_ms=1000 * seen.cpu["loop"] / pictures,
        store_cpu_ms=1000 * seen.cpu["store"] / pictures,
        workers_cpu_ms=1000 * seen.cpu["workers"] / pictures,
        memory_mb=seen.memory_mb,
    )


def _settled_memory_mb(daemon: Daemon, site: Site) -> float:
    """Memory after the rush of the start: what it needed was given back, and decoders have ended.

    One decoder runs again, as it does with a poll now and then.
    """
    time.sleep(SETTLED_S)
    daemon.take_picture(min(site.healthy))
    return memory_mb(daemon.process.pid)


def idle(cameras: int, minutes: float) -> Idle:
    with _cameras(cameras) as (folder, site):
        planned = cameras / IDLE_INTERVAL_S
        with running(folder / "polls", site, IDLE_INTERVAL, ROOM * planned) as daemon:
            daemon.wait_until(WARM_UP_S)
            (seen,) = watch((Fleet(site, daemon),), minutes)
        _as_planned(seen.results.total() / seen.seconds, planned)
        with running(folder / "reloads", site, IDLE_INTERVAL, START_RATE) as daemon:
            wait_for_all(daemon, site.healthy, FIRST_LIMIT_S)
            memory = _settled_memory_mb(daemon, site)
            quiet = max(daemon.answers_s(RELOAD_S))
            busy = [_reload(daemon, number) for number in range(RELOADS)]
    return Idle(
        cameras=cameras,
        polls_a_second=seen.results.total() / seen.seconds,
        own_core=seen.own_s / seen.seconds,
        core=seen.cpu.total() / seen.seconds,
        memory_mb=memory,
        reload_busy_s=busy,
        quiet_busy_s=quiet,
    )


def _as_planned(rate: float, planned: float) -> None:
    assert 0.85 * planned < rate < 1.15 * planned, f"{rate:.2f} polls a second, not {planned:.2f}"


def _reload(daemon: Daemon, number: int) -> float:
    """Change one camera and reload. The longest time that the event loop did not answer."""
    config = daemon.folder / CONFIG
    before, changed = f'name = "changed {number}"\n', f'name = "changed {number + 1}"\n'
    text = config.read_text().removesuffix(before)
    config.write_text(text + changed)
    daemon.process.send_signal(signal.SIGHUP)
    longest = max(daemon.answers_s(RELOAD_S))
    last = json.loads(daemon.get("/v1/cameras"))[-1]
    assert last["name"] == f"changed {number + 1}", "the inventory was not reloaded"
    return longest


def start_s() -> float:
    """Seconds from the start of a daemon with START_CAMERAS cameras until it says READY."""
    with (
        tempfile.TemporaryDirectory() as name,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        folder = Path(name)
        told.bind(f"{folder}/notify")
        told.settimeout(30)
        (folder / "c.toml").write_text(
            f'[http]\nlisten = ""\n[api]\nsocket = "{folder}/api.sock"\n'
            f'[output]\ndirectory = "{folder}/out"\n'
            + "".join(
                f'[[camera]]\nid = "c{n}"\nurl = "rtsp://127.0.0.1:9/{n}"\n'
                for n in range(START_CAMERAS)
            )
        )
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "camserver", "run", "--config", f"{folder}/c.toml"],
            env=os.environ | {"NOTIFY_SOCKET": f"{folder}/notify"},
            stderr=subprocess.DEVNULL,
        ) as process:
            while b"READY=1" not in told.recv(4096):
                pass
            took = time.monotonic() - began
            process.terminate()
        return took


@contextlib.contextmanager
def _cameras(cameras: int) -> Iterator[tuple[Path, Site]]:
    """An empty folder, and simulated cameras that are all healthy."""
    with tempfile.TemporaryDirectory() as name, simulated(Path(name), cameras, 0.0) as site:
        yield Path(name), site


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--rates", type=int, nargs="*", default=RATES)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    ready_s = statistics.median(start_s() for _ in range(STARTS))
    print(f"READY after {ready_s:.2f} s with {START_CAMERAS} cameras", flush=True)
    rates, points = [], []
    for rate in a.rates:
        rates.append(alone(RATE_CAMERAS, a.minutes, rate))
        print(rates[-1], flush=True)
    quiet = idle(max(a.sizes), a.minutes)
    print(quiet, flush=True)
    for cameras in a.sizes:
        points.append(beside_a_small_one(cameras, a.minutes))
        print(points[-1], flush=True)
    if a.json is not None:
        report = {
            "machine": machine(Path(tempfile.gettempdir())),
            "points": [asdict(each) for each in points],
            "rates": [asdict(each) for each in rates],
            "idle": asdict(quiet),
            "ready_s": ready_s,
        }
        a.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
