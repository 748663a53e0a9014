"""Simulated cameras and a daemon that polls them, and what both cost.

The simulator runs one process for each core, so that it can keep up with a fleet.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from daemon_socket import DaemonConnection
from support import processes_of

DEAD = (
    *("refuse", "deaf", "silent", "no-keyframe", "cut", "damage"),
    *("status:404", "status:503:SETUP", "stall:PLAY"),
)
ARCHIVE = "%s.%L.jpg"
CONFIG, SOCKET = "etc/camserver/c.toml", "api.sock"
"""The daemon watches the inventory's folder and its parent: nothing else may change there."""
ESTABLISHED = "01"
"""A state in /proc/net/tcp."""
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)")
"""The head of a mapping in /proc/PID/smaps; its file, or a name in brackets, or nothing."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Site:
    """The simulated cameras: inventory entries of the healthy and the dead ones, and processes."""

    entries: str
    healthy: frozenset[str]
    pids: tuple[int, ...]


@contextlib.contextmanager
def simulated(folder: Path, cameras: int, dead: float) -> Iterator[Site]:
    """Run simulated cameras. `dead` is the share of them that is dead."""
    entries, healthy, pids = list[str](), set[str](), list[int]()
    with contextlib.ExitStack() as stack:
        share = -(-cameras // (len(os.sched_getaffinity(0))))
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


def _cpu_s(stat: Path, first: int = 11) -> float:
    """CPU of a process or a thread. With `first` 13: of the children that have ended."""
    fields = stat.read_text().rsplit(")", 1)[1].split()
    return (int(fields[first]) + int(fields[first + 1])) * TICK_S


def cpu_by_part(daemon: int, simulators: tuple[int, ...]) -> Counter[str]:
    """Seconds of CPU so far: event loop, store threads, other threads, workers, simulator.

    Workers are the decoders and libav's sessions, those that have ended too.
    """
    found: Counter[str] = Counter()
    process = Path(f"/proc/{daemon}")
    found["loop"] = _cpu_s(process / f"task/{daemon}/stat")
    for task in (process / "task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().strip() == "store":
                found["store"] += _cpu_s(task / "stat")
    found["threads"] = _cpu_s(process / "stat") - found["loop"] - found["store"]
    found["workers"] = _cpu_s(process / "stat", 13)
    for pid in processes_of(daemon):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat")
            found["workers"] += _cpu_s(stat) + _cpu_s(stat, 13)
    for pid in simulators:
        found["simulator"] += _cpu_s(Path(f"/proc/{pid}/stat"))
    return found


def memory_mb(daemon: int) -> float:
    """Memory of the daemon and all its workers. What they share counts once.

    (PSS would give a part of their libraries to the simulator, which uses the same ones. It is
    right for what is in no file: only the workers share that.)
    """
    own_kb, files_kb = 0, dict[str, int]()
    for pid in (daemon, *processes_of(daemon)):
        of_files: Counter[str] = Counter()
        # It may have ended. But not PermissionError: workers show their memory to root only
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            own_kb += int(rollup.split("Pss_Anon:")[1].split()[0])
            name, rss_kb = "", 0
            for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
                if (head := _MAPPING.match(line)) is not None:
                    name = head[1]
                elif line.startswith("Rss:"):
                    rss_kb = int(line.split()[1])
                elif line.startswith("Anonymous:"):  # also what was changed of a file's pages
                    of_files[name] += rss_kb - int(line.split()[1])
        for name, kb in of_files.items():
            files_kb[name] = max(kb, files_kb.get(name, 0))
    return (own_kb + sum(files_kb.values())) / 1024


def sessions(daemon: int) -> int:
    """Established TCP connections of the daemon: its sessions. It asks the kernel, not the daemon.

    (Each scrape of the metrics of a large fleet would be seen in the CPU of the daemon.)
    """
    inodes = set[str]()
    for fd in Path(f"/proc/{daemon}/fd").iterdir():
        with contextlib.suppress(OSError):
            if (target := str(fd.readlink())).startswith("socket:["):
                inodes.add(target[8:-1])
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[3] == ESTABLISHED and row[9] in inodes for row in rows)


class Daemon:
    """A running daemon. `started` is when it was started (seconds since 1970)."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, started: float) -> None:
        self.process = process
        self.folder = folder
        self.started = started
        self._socket = folder / SOCKET

    def get(self, route: str) -> str:
        assert self.process.poll() is None, "the daemon has ended"
        with contextlib.closing(DaemonConnection(self._socket)) as connection:
            return connection.text(route)

    def take_picture(self, camera: str) -> None:
        """Request a picture, and wait for it."""
        with contextlib.closing(DaemonConnection(self._socket)) as connection:
            connection.request("POST", f"/v1/cameras/{camera}/snapshot")
            answer = connection.getresponse()
            assert answer.status == 200, (answer.status, answer.read())

    def wait_until(self, seconds: float) -> None:
        """Wait until it runs for so many seconds."""
        time.sleep(max(0.0, self.started + seconds - time.time()))

    def answers_s(self, seconds: float) -> list[float]:
        """How long the daemon took for each of many requests that need only its event loop."""
        took, end = list[float](), time.monotonic() + seconds
        with contextlib.closing(DaemonConnection(self._socket)) as connection:
            while time.monotonic() < end:
                began = time.monotonic()
                connection.text("/healthz")
                took.append(time.monotonic() - began)
                time.sleep(0.005)
        return took

    def lateness(self) -> tuple[Counter[float], float]:
        """The polls of healthy cameras.

        (How many were at most so late in seconds, the lateness of all of them in seconds.)
        """
        text = self.get("/metrics")
        name, state = "camserver_poll_lateness_seconds", 'state="healthy"'
        buckets = re.findall(rf'^{name}_bucket{{le="(\S+)",{state}}} (\S+)', text, re.MULTILINE)
        total = re.search(rf"^{name}_sum{{{state}}} (\S+)", text, re.MULTILINE)
        assert total is not None
        return Counter({float(bound): float(count) for bound, count in buckets}), float(total[1])

    def results(self, healthy: frozenset[str]) -> Counter[str]:
        """The results of all polls of the healthy cameras, and the polls that were skipped."""
        found: Counter[str] = Counter()
        for camera in json.loads(self.get("/v1/cameras")):
            if camera["id"] in healthy:
                found += Counter(camera["polling"]["results"])
                found["skipped"] += camera["polling"]["skipped"]
        return found


def wait_for_all(daemon: Daemon, cameras: frozenset[str], limit_s: float) -> float:
    """Wait until each of the cameras has a picture. Returns the seconds since the daemon's start.

    Each camera is looked at again only until it has one.
    """
    missing = set(cameras)
    while missing:
        assert daemon.process.poll() is None, "the daemon has ended"
        assert time.time() < daemon.started + limit_s, f"no picture of {sorted(missing)}"
        out = daemon.folder / "out"
        missing = {name for name in missing if not (out / name / "latest.jpg").exists()}
        time.sleep(1.0 if len(missing) > 1000 else 0.2)
    return time.time() - daemon.started


@contextlib.contextmanager
def running(
    folder: Path, site: Site, interval: str, open_rate: float | None = None
) -> Iterator[Daemon]:
    """A daemon with the inventory CONFIG in `folder`. Its output is out, its log is log.

    `open_rate` None: the daemon's own default.
    """
    config, api = folder / CONFIG, folder / SOCKET
    config.parent.mkdir(parents=True)
    polling = f"[polling]\nopen_rate = {open_rate:g}\n" if open_rate is not None else ""
    config.write_text(
        f'[http]\nlisten = ""\n[api]\nsocket = "{api}"\n[output]\ndirectory = "{folder}/out"\n'
        f'archive = "{ARCHIVE}"\n[retention]\nmin_free = 0\n{polling}'
        f'[defaults]\ninterval = "{interval}"\n' + site.entries
    )
    started = time.time()
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "camserver", "run", "--config", str(config)], stderr=log
        ) as process,
    ):
        while not api.exists():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.01)
        try:
            yield Daemon(process, folder, started)
        finally:
            process.terminate()
