"""Chaos for a fleet: hosts, links and the store fail, and the cameras are the judge.

    chaos_fleet.py [--minutes M] [--seed N] [--nodes N] [--seeds N] [--vouch]

First the protocol is simulated with many seeds (`fleet_sim.py`). Then real daemons share simulated
cameras through a real etcd. One thing after another fails: kill -9, SIGSTOP, a cut from the store
in either direction, the loss of the store's leader, the store away, a host that leaves or restarts.
Meanwhile ffmpeg has sessions of some cameras on all hosts, under `camserver lease`. At the end:
what happened how often, how long cameras had no new session, and whether a camera ever saw a
session too many, or one too early.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fleet_hosts import INTERVAL_S, FleetHosts, HostProcess, fleet_of
from fleet_sim import simulate
from fleet_world import Rules

from camserver.fleet.etcd import EtcdStore
from camserver.fleet.records import Keys, OwnRecord, decode
from camserver.fleet.terms import FleetTerms

HOSTS, CAMERAS = ("a", "b", "c"), 12
FILMED = 3
"""So many cameras more, of which programs have sessions."""
STOPPED_S = 13
CUT_S = 20
KEYS = Keys("test")


class Chaos:
    """One run against real daemons. `gaps` has the longest gap of each camera, by what failed."""

    def __init__(self, fleet: FleetHosts, seed: int, *, vouch: bool) -> None:
        self.fleet = fleet
        self.vouch = vouch
        self.films: Counter[int] = Counter()
        """How often a program ended with each status."""
        self.dice = random.Random(seed)
        self.gaps: dict[str, list[float]] = defaultdict(list)
        self.wrong: list[str] = []

    async def run(self, seconds: float) -> None:
        for name in HOSTS:
            await (await self.fleet.host(name, "vouch = true" if self.vouch else "")).start()
        await self._settle()
        end = time.monotonic() + seconds
        faults = self._faults()
        filming = [
            asyncio.create_task(self._film(camera)) for camera in list(self.fleet.opened)[CAMERAS:]
        ]
        try:
            while time.monotonic() < end:
                what = self.dice.choice(sorted(faults))
                await self._one(what, faults[what])
        finally:
            for task in filming:
                task.cancel()
            await asyncio.wait(filming)

    async def _film(self, camera: str) -> None:
        """Let programs have sessions of a camera, on one host after another."""
        dice = random.Random(camera)
        while True:
            await asyncio.sleep(dice.uniform(0.5, 3.0))
            host = self.fleet.hosts[dice.choice(HOSTS)]
            wrapper = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "camserver", "lease", "--socket", str(host.socket)),
                *("--wait", "10", "--priority", "event", camera, "--", "ffmpeg", "-nostdin"),
                *("-loglevel", "quiet", "-rtsp_transport", "tcp"),
                *("-i", self.fleet.house.fleet.url(camera), "-t", str(dice.uniform(0.5, 20.0))),
                *("-f", "null", "-"),
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                self.films[await wrapper.wait()] += 1
            finally:
                if wrapper.returncode is None:
                    wrapper.kill()
                    await wrapper.wait()

    def _faults(self) -> dict[str, Callable[[HostProcess], Awaitable[None]]]:
        faults: dict[str, Callable[[HostProcess], Awaitable[None]]] = {
            "kill -9": self._kill,
            "SIGSTOP": self._stop_process,
            "cut, requests": partial(self._cut, "requests"),
            "cut, answers": partial(self._cut, "answers"),
            "restart": self._restart,
            "rolling restart": self._rolling_restart,
            "leave and join": self._leave,
            **{f"store away {s} s": partial(self._store_away, s) for s in (3, 20, 60)},
        }
        if len(self.fleet.etcd.nodes) > 1:
            faults["leader killed"] = self._kill_leader
        return faults

    async def _one(self, what: str, fault: Callable[[HostProcess], Awaitable[None]]) -> None:
        host = self.fleet.hosts[self.dice.choice(HOSTS)]
        cameras = await self._cameras_of(host)
        since = time.monotonic()
        print(f"{what} of {host.name}", flush=True)
        try:
            await fault(host)
            await self._settle()
        except TimeoutError:
            self._say_stuck()
            raise
        is_of_one = what in ("kill -9", "SIGSTOP", "cut, requests", "cut, answers")
        for camera in cameras if is_of_one else list(self.fleet.opened)[:CAMERAS]:
            self.gaps[what].append(self._gap(camera, since))
        for camera, fault_text in self.fleet.verdict().items():
            self.wrong.append(f"after {what}: {camera}: {fault_text}")
        print(f"  longest gap {self.gaps[what][-1]:.1f} s", flush=True)

    def _say_stuck(self) -> None:
        now = time.monotonic()
        for camera, times in self.fleet.opened.items():
            print(f"{camera}: the last session was {now - times[-1]:.1f} s ago")
        for host in self.fleet.hosts.values():
            print(host.name, json.dumps(host.view(), indent=1), host.log.read_text()[-6000:])

    async def _settle(self) -> None:
        await self.fleet.until_shared()
        await self.fleet.until_polled()

    def _gap(self, camera: str, since: float) -> float:
        times = self.fleet.opened[camera]
        before = [t for t in times if t <= since][-1:]
        marks = [*before, *(t for t in times if t > since)]
        return max((b - a for a, b in pairwise(marks)), default=0.0)

    async def _cameras_of(self, host: HostProcess) -> list[str]:
        """The cameras of the devices that a host owns, by the store."""
        by_port = {camera.port: camera.id for camera in self.fleet.house.fleet.cameras.values()}
        store = EtcdStore(tuple(node.url for node in self.fleet.etcd.nodes))
        try:
            snapshot = await store.read(KEYS.prefix)
        finally:
            await store.close()
        found = []
        for key, entry in snapshot.entries.items():
            kind, names = KEYS.parse(key)
            if kind == "own":
                own = decode(OwnRecord, key, entry.value)
                if own.host == host.name and own.held:
                    found.append(by_port[int(names[0].rpartition(":")[2])])
        return [camera for camera in found if camera in list(self.fleet.opened)[:CAMERAS]]

    # ---- what fails

    async def _kill(self, host: HostProcess) -> None:
        host.signal(signal.SIGKILL)
        await host.ended()
        await self._settle()
        await host.start()

    async def _stop_process(self, host: HostProcess) -> None:
        process = host.process
        assert process is not None
        host.signal(signal.SIGSTOP)
        await asyncio.sleep(STOPPED_S)
        if process.returncode is None:
            self.wrong.append(f"{host.name}: a stopped process lived for {STOPPED_S} s")
            host.signal(signal.SIGCONT)
        await host.ended()
        await host.start()

    async def _cut(self, direction: str, host: HostProcess) -> None:
        for link in host.links:
            link.cut(direction)
        await asyncio.sleep(CUT_S)
        for link in host.links:
            link.heal()

    async def _restart(self, host: HostProcess) -> None:
        if await host.stop() != 0:
            self.wrong.append(f"{host.name}: did not stop in order")
        await host.start()

    async def _rolling_restart(self, _: HostProcess) -> None:
        for host in self.fleet.hosts.values():
            await self._restart(host)
            await self.fleet.until_shared()

    async def _leave(self, host: HostProcess) -> None:
        await host.stop()
        await self._settle()
        await host.start()

    async def _store_away(self, seconds: float, _: HostProcess) -> None:
        self.fleet.etcd.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.fleet.etcd.signal(signal.SIGCONT)

    async def _kill_leader(self, _: HostProcess) -> None:
        leader = await asyncio.to_thread(self.fleet.etcd.leader)
        leader.stop()
        await asyncio.sleep(CUT_S / 2)
        self.fleet.etcd.restart(leader)
        await asyncio.to_thread(leader.wait)


def faults_of(seed: int) -> list[str]:
    """What the judge of one simulation objects to. A third has vouching, another one holds."""
    rules = Rules(terms=FleetTerms(vouch=seed % 3 == 1), has_holds=seed % 3 == 2)
    world = simulate(seed, rules, 150.0, devices=6)
    return [f"seed {seed}, {rules}: {fault}" for fault in world.judge.faults[:1]]


def simulate_seeds(seeds: int) -> list[str]:
    """What the judge objects to, over many seeds."""
    with ProcessPoolExecutor(2) as pool:
        runs = [pool.submit(faults_of, seed) for seed in range(seeds)]
        return [fault for run in runs for fault in run.result()]


def table(gaps: dict[str, list[float]]) -> str:
    rows = ["| what fails | cameras | gap, median | p99 | longest |", "|---|---|---|---|---|"]
    for what, found in sorted(gaps.items()):
        found.sort()
        p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
        rows.append(
            f"| {what} | {len(found)} | {statistics.median(found):.1f} s | {p99:.1f} s"
            f" | {found[-1]:.1f} s |"
        )
    return "\n".join(rows)


async def run(minutes: float, seed: int, nodes: int, *, vouch: bool) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        async with fleet_of(Path(folder), CAMERAS + FILMED, nodes) as fleet:
            chaos = Chaos(fleet, seed, vouch=vouch)
            await chaos.run(minutes * 60)
            sessions = sum(c.record.opens for c in fleet.house.fleet.cameras.values())
            print(f"\ninterval {INTERVAL_S:g} s, {nodes} nodes, {sessions} sessions\n")
            print(table(chaos.gaps))
            print(f"\nprograms, by their status: {dict(chaos.films)}")
            print(f"\nhosts ended by their timer, and started again: {dict(fleet.ended)}")
            return chaos.wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--nodes", type=int, default=3, help="of etcd")
    parser.add_argument("--seeds", type=int, default=500, help="of the simulation")
    parser.add_argument("--vouch", action="store_true", help="hosts vouch for each other")
    options = parser.parse_args()
    wrong = simulate_seeds(options.seeds)
    print(f"{options.seeds} simulated runs: {len(wrong)} with a fault", flush=True)
    print(f"seed {options.seed}", flush=True)
    wrong += asyncio.run(run(options.minutes, options.seed, options.nodes, vouch=options.vouch))
    print("\n".join(wrong) or "nothing wrong: no session too many, none too early")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
