"""The driver of a fleet with the real leases and schedule, beside faults, on a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable
from functools import partial
from typing import cast

import pytest
from fleet_world import KEYS
from memory_fleet import MemoryFleet, MemoryHost, Program
from support import camera, run_virtual

from camserver.fleet.compaction import Compaction
from camserver.fleet.etcd import EtcdStore
from camserver.fleet.lending import Lending
from camserver.fleet.store import Snapshot, StoreError

CAMERAS = [camera(f"cam{n}", device=f"device{n}", interval_s=2.0) for n in range(6)]
SECONDS = 240.0
HOLD_S = 60.0
EVERY_S, KEPT_S = 20.0, 120.0
"""How often the store is compacted, and what is kept."""
QUIET_S = 40.0
"""After this long without a fault every camera is polled again."""


async def beside_faults(fleet: MemoryFleet, seed: int, *, holds: int = 0) -> None:
    dice = random.Random(seed)
    end = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(dice.uniform(1.0, 15.0))
        host = fleet.hosts[dice.choice(sorted(fleet.hosts))]
        long_s = dice.choice([1.0, 3.0, 6.0, 10.0, 20.0])
        match dice.choice(["kill", "stop", "cut", "away", *["hold"] * holds]):
            case "kill":
                host.die()
                await asyncio.sleep(dice.choice([0.5, 10.0]))
            case "stop" if host.is_alive:
                await host.stop()
            case "cut":
                host.link.is_cut = True
                await asyncio.sleep(long_s)
                host.link.is_cut = False
            case "away":
                fleet.store.is_up = False
                await asyncio.sleep(long_s)
                fleet.store.is_up = True
            case "hold" if host.is_alive:
                with contextlib.suppress(StoreError):
                    await host.member.hold(dice.choice([0.0, 60.0]))
        revive(fleet.hosts.values())


def revive(hosts: Iterable[MemoryHost]) -> None:
    for host in hosts:
        if not host.is_alive:
            host.start()


@pytest.mark.parametrize("seed", range(6))
def test_every_camera_is_polled_again_after_faults(seed: int) -> None:
    """Never a session too many or too early meanwhile."""

    async def work() -> None:
        fleet = MemoryFleet(seed, CAMERAS)
        fleet.start()
        await beside_faults(fleet, seed)
        for _ in range(int(QUIET_S)):
            await asyncio.sleep(1)
            revive(fleet.hosts.values())
        assert fleet.judge.faults == []
        assert fleet.unpolled(5.0) == [], "\n".join(fleet.log[-40:])
        for host in fleet.hosts.values():
            host.die()

    run_virtual(work)


async def programs_beside_faults(seed: int, *, holds: int = 0) -> MemoryFleet:
    """Programs on all hosts have sessions under leases. At the end they have ended."""
    fleet = MemoryFleet(seed, CAMERAS)
    fleet.start()
    programs = [Program(fleet, seed * 10 + n) for n in range(4)]
    running = [asyncio.create_task(program.run()) for program in programs]
    await beside_faults(fleet, seed, holds=holds)
    while KEYS.hold in fleet.store.entries:
        await asyncio.sleep(1)
        with contextlib.suppress(StoreError):
            await fleet.hosts["a"].member.hold(0.0)
    await asyncio.sleep(HOLD_S if holds else 0.0)
    for _ in range(int(QUIET_S)):
        await asyncio.sleep(1)
        revive(fleet.hosts.values())
    for program in programs:
        program.is_stopping = True
    await asyncio.gather(*running)
    assert sum(program.sessions for program in programs) > 30
    await asyncio.sleep(10)
    for host in fleet.hosts.values():
        host.die()
    return fleet


@pytest.mark.parametrize("holds", [0, 2])
@pytest.mark.parametrize("seed", range(6))
def test_programs_on_any_host_have_sessions_beside_faults(seed: int, holds: int) -> None:
    """Never a session too many or too early, and no lease is left behind."""

    async def work() -> None:
        fleet = await programs_beside_faults(seed, holds=holds)
        assert fleet.judge.faults == []
        assert fleet.unpolled(5.0) == [], "\n".join(fleet.log[-40:])
        assert [key for key in fleet.store.entries if "/ext/" in key] == []

    run_virtual(work)


async def killed_beside_a_program(which: str, *, has_timer: bool = True) -> list[str]:
    """What cameras object to when a host is killed: the program's, or the owner of its camera."""
    fleet = MemoryFleet(1, CAMERAS)
    fleet.start()
    await asyncio.sleep(15)
    devices = {name: host.manager._table.right.owned for name, host in fleet.hosts.items()}
    owner = next(name for name in "bc" if devices[name])
    camera = next(c for c in CAMERAS if c.device in devices[owner])
    program = Program(fleet, 1, has_timer=has_timer)
    running = asyncio.create_task(program.session(fleet.hosts["a"], camera, 40.0))
    await asyncio.sleep(5)
    fleet.hosts["a" if which == "program" else owner].die()
    await running
    for host in fleet.hosts.values():
        host.die()
    return fleet.judge.faults


def test_a_program_needs_the_timer_of_the_kernel() -> None:
    """Without it a program lives on when the daemon of its host is killed, and its host is dead."""
    assert run_virtual(partial(killed_beside_a_program, "program")) == []
    assert run_virtual(partial(killed_beside_a_program, "program", has_timer=False))


def test_a_new_owner_needs_the_records_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them it would open sessions beside those of programs."""
    assert run_virtual(partial(killed_beside_a_program, "owner")) == []

    def take_over(self: Lending, device: str) -> None:
        self._devices.add(device)

    monkeypatch.setattr(Lending, "take_over", take_over)
    assert run_virtual(partial(killed_beside_a_program, "owner"))


def test_a_host_without_its_store_ends_its_sessions_and_lives() -> None:
    async def work() -> None:
        fleet = MemoryFleet(1, CAMERAS)
        fleet.start()
        await asyncio.sleep(20)
        assert fleet.unpolled(3.0) == []
        fleet.store.is_up = False
        await asyncio.sleep(30)
        assert not fleet.judge.open
        assert len(fleet.unpolled(20.0)) == len(CAMERAS)
        fleet.store.is_up = True
        await asyncio.sleep(8)
        assert fleet.unpolled(3.0) == []
        assert all(host.deaths == 0 for host in fleet.hosts.values())
        assert fleet.judge.faults == []
        for host in fleet.hosts.values():
            host.die()

    run_virtual(work)


def test_a_host_that_has_read_nothing_after_an_outage_reads_again() -> None:
    """Until then it declares nobody dead. The watch alone does not show what was missed."""

    async def work() -> None:
        fleet = MemoryFleet(1, CAMERAS, "ab")
        fleet.start()
        await asyncio.sleep(20)
        link, times = fleet.hosts["a"].link, 3
        read = link.read

        async def fails(prefix: str) -> Snapshot:
            nonlocal times
            times -= 1
            if times < 0:
                return await read(prefix)
            raise StoreError("no answer")

        link.read = fails  # type: ignore[method-assign]
        epoch = fleet.hosts["a"].member._epoch
        assert epoch is not None
        epoch._read_anew()
        await asyncio.sleep(10)
        fleet.hosts["b"].die()
        await asyncio.sleep(20)
        assert fleet.unpolled(5.0) == [], "\n".join(fleet.log[-10:])
        fleet.hosts["a"].die()

    run_virtual(work)


def test_one_host_compacts_the_store() -> None:
    """It keeps the changes of some time."""

    async def work() -> None:
        fleet = MemoryFleet(1, CAMERAS, "ab")
        fleet.start()
        compacted: dict[str, list[int]] = {"a": [], "b": []}

        class Store:
            def __init__(self, name: str) -> None:
                self.name = name

            async def compact(self, revision: int) -> None:
                compacted[self.name].append(revision)
                raise StoreError("it is asked again")

        jobs = [
            asyncio.create_task(
                Compaction(host.member, cast("EtcdStore", Store(name)), EVERY_S, KEPT_S).run()
            )
            for name, host in fleet.hosts.items()
        ]
        await asyncio.sleep(EVERY_S + 1)
        some_time_ago = fleet.store.revision
        await asyncio.sleep(KEPT_S)
        assert not compacted["b"]
        assert len(compacted["a"]) == 1
        assert abs(compacted["a"][0] - some_time_ago) < 10
        fleet.hosts["a"].die()
        await asyncio.sleep(EVERY_S + 20)
        assert compacted["b"]
        for job in jobs:
            job.cancel()
        fleet.hosts["b"].die()

    run_virtual(work)


def test_a_rolling_restart_keeps_every_rhythm() -> None:
    async def work() -> None:
        fleet = MemoryFleet(1, CAMERAS)
        fleet.start()
        await asyncio.sleep(20)
        longest = 0.0
        for host in fleet.hosts.values():
            stopping = asyncio.create_task(host.stop())
            for tick in range(100):
                await asyncio.sleep(0.1)
                oldest = min(fleet.polled.values())
                longest = max(longest, asyncio.get_running_loop().time() - oldest)
                if tick == 50:
                    await stopping
                    host.start()
        assert longest < 2.0 + 1.0
        assert fleet.judge.faults == []
        for host in fleet.hosts.values():
            host.die()

    run_virtual(work)
