"""A fleet in memory, on a virtual clock. One of its cameras has a fault for a while."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from functools import cache
from itertools import pairwise
from typing import Any

from house import HOLDER
from memory_net import MemoryNet
from support import camera

from camserver.capture.engines import RtspEngine
from camserver.capture.http import HttpEngine
from camserver.capture.native import NativeEngine
from camserver.config import Camera
from camserver.leases import Budget, RtspManager, http_device
from camserver.model import Attempt, CodedKeyframe, Still
from camserver.polling.orchestrator import PollingOrchestrator
from camserver.simulator.camera import Fault, SimulatedCamera
from camserver.simulator.fleet import Fleet
from camserver.simulator.pictures import Pictures
from camserver.snapshots.service import SnapshotService
from camserver.snapshots.sources import Sources

INTERVAL_S, TIMEOUT_S = 10.0, 5.0
HEALTHY = 20
BEGINS_S, ENDS_S, RUN_S = 35.0, 100.0, 200.0
PICTURES: dict[Any, Pictures] = {
    size: Pictures(*size) for size in (("h264", 640, 360), ("h264", 320, 180))
}
"""Encoded here: on a virtual clock nobody may wait for a thread."""


class World:
    """A fleet, and everything that takes its pictures, with a decoder that always works."""

    def __init__(self, healthy: int, *, align: bool = False, http: bool = False) -> None:
        """With `http` the pictures come from snapshot URLs, and a fault is a habit of one."""
        self.align = align
        self.http = http
        self.wall_step_s = 0.0
        self.simulated = {
            name: SimulatedCamera(
                name, name, fps=2, gop=2, join_at_keyframe=True, http_port=0 if http else None
            )
            for name in (*(f"healthy{n}" for n in range(healthy)), "faulty")
        }
        self.fleet = Fleet(self.simulated.values())
        self.fleet._pictures = PICTURES
        self.manager = RtspManager()
        engine: Any = RtspEngine(NativeEngine(), None)  # type: ignore[arg-type]
        decoder: Any = AlwaysDecodes()
        self.service = SnapshotService(self.manager, Sources(engine, HttpEngine()), decoder)
        self.orchestrator = PollingOrchestrator(
            self.poll,
            sessions=64,
            open_rate=20.0,
            emit=lambda _: None,
            wall=lambda: 1.8e9 + loop_time() + self.wall_step_s,
            chance=lambda: 0.5,
        )
        self.starts: dict[str, list[float]] = defaultdict(list)
        self.pictures: dict[str, list[float]] = defaultdict(list)
        self.took: dict[str, list[float]] = defaultdict(list)

    async def poll(self, polled: Camera, *_: object) -> Attempt:
        begun = loop_time()
        self.starts[polled.id].append(begun)
        attempt = await self.service.take(polled, HOLDER)
        self.took[polled.id].append(loop_time() - begun)
        if attempt.ok:
            self.pictures[polled.id].append(loop_time())
        return attempt

    async def run(self, fault: str, begins_s: float) -> None:
        await self.fleet.start()
        budgets = {name: Budget(1, 0.25, 1.0) for name in self.simulated}
        web = {http_device(name): Budget(1, 0.0, 1.0) for name in self.simulated}
        self.manager.configure(budgets | web)
        self.orchestrator.configure(
            camera(
                name,
                url=None if self.http else self.fleet.url(name),
                snapshot_url=self.fleet.snapshot_url(name) if self.http else None,
                engine="native",
                interval_s=INTERVAL_S,
                timeout_s=TIMEOUT_S,
                align=self.align,
            )
            for name in self.simulated
        )
        polling = asyncio.create_task(self.orchestrator.run())
        fault_task = asyncio.create_task(self._fail(fault, begins_s))
        await asyncio.sleep(RUN_S)
        await self.orchestrator.stop(TIMEOUT_S)
        await polling
        await fault_task
        await self.fleet.stop()

    async def _fail(self, fault: str, begins_s: float) -> None:
        """Give the camera its fault for some time."""
        faulty, left_s = self.simulated["faulty"], ENDS_S - begins_s
        await asyncio.sleep(begins_s)
        if self.http:
            faulty.http_quirk = fault
            await asyncio.sleep(left_s)
            faulty.http_quirk = ""
            return
        fault_ = Fault.parse(fault)
        if fault_.kind == "refuse":
            await self.fleet.reboot("faulty", left_s)
        elif fault_.kind == "reboot":
            gone_s, every_s = (float(argument) for argument in fault_.arguments)
            for _ in range(int(left_s // (gone_s + every_s))):
                await asyncio.sleep(every_s)
                await self.fleet.reboot("faulty", gone_s)
        else:
            faulty.fault = fault_
            await asyncio.sleep(left_s)
            faulty.fault = Fault()


class AlwaysDecodes:
    async def decode(self, unit: CodedKeyframe, **_: Any) -> Still:
        await asyncio.sleep(0.02)
        return Still(unit.data, 640, 360, unit.codec)

    inspect = decode


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def run(healthy: int, fault: str, begins_s: float, *, http: bool = False) -> World:
    return run_world(World(healthy, http=http), fault, begins_s)


def run_world(
    world: World, fault: str = "none", begins_s: float = 0.0, meanwhile: Any = None
) -> World:
    async def work() -> None:
        tasks = [asyncio.create_task(meanwhile(world))] if meanwhile else []
        await world.run(fault, begins_s)
        await asyncio.gather(*tasks)

    with asyncio.Runner(loop_factory=MemoryNet) as runner:
        runner.run(work())
    return world


@cache
def control(*, http: bool = False) -> World:
    """The same fleet without a fault."""
    return run(HEALTHY, "" if http else "none", 0.0, http=http)


def check_rules(world: World) -> None:
    """What holds for every camera, whatever happened."""
    for name, simulated in world.simulated.items():
        record = simulated.record
        assert record.sessions_max <= 1, (name, record)
        assert record.http_max <= 1, (name, record)
        assert record.sessions_now == 0, (name, record)
        assert max(world.took[name]) <= TIMEOUT_S + 1.5, (name, world.took[name])


def check_recovered(world: World) -> None:
    """The faulty camera has pictures again, at the latest one retry after its fault ended."""
    after = [at for at in world.pictures["faulty"] if at > 1000 + ENDS_S]
    assert len(after) >= 3, world.pictures["faulty"]
    assert after[0] <= 1000 + ENDS_S + 60 + TIMEOUT_S


def check_healthy(world: World, without: World) -> None:
    """The polls and pictures of the healthy cameras are as punctual as without the fault."""
    for n in range(HEALTHY):
        name = f"healthy{n}"
        late = [
            here - there
            for here, there in zip(world.starts[name], without.starts[name], strict=True)
        ]
        assert max(late) <= 0.11, (name, max(late))  # one turn of open_rate, at most two
        assert len(world.pictures[name]) == len(world.starts[name])
        gap_s = max(b - a for a, b in pairwise(world.pictures[name]))
        usual_s = max(b - a for a, b in pairwise(without.pictures[name]))
        assert gap_s <= usual_s + 0.11, (name, gap_s, usual_s)
