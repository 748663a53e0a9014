"""The driver of a fleet with the real leases and schedule, beside faults, on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest
from memory_fleet import MemoryFleet, MemoryHost
from support import camera, run_virtual

CAMERAS = [camera(f"cam{n}", device=f"device{n}", interval_s=2.0) for n in range(6)]
SECONDS = 240.0
QUIET_S = 40.0
"""After this long without a fault every camera is polled again."""


async def beside_faults(fleet: MemoryFleet, seed: int) -> None:
    dice = random.Random(seed)
    end = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(dice.uniform(1.0, 15.0))
        host = fleet.hosts[dice.choice(sorted(fleet.hosts))]
        long_s = dice.choice([1.0, 3.0, 6.0, 10.0, 20.0])
        match dice.choice(["kill", "stop", "cut", "away"]):
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
