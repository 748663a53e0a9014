"""Every fault of a camera: from the first poll on and later, alone and beside 20 healthy cameras.

The schedule, the leases, our own client and the simulated cameras are real. The network is in
memory and the clock is virtual, so two runs can be compared poll by poll.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from house import HOLDER
from memory_net import MemoryNet
from support import camera

from camserver.capture.engines import RtspEngine
from camserver.capture.http import HttpEngine
from camserver.capture.native import NativeEngine
from camserver.config import Camera
from camserver.leases import Budget, RtspManager
from camserver.model import Attempt, CodedKeyframe, Still
from camserver.polling.orchestrator import PollingOrchestrator
from camserver.simulator.camera import FAULTS, METHODS, Fault, SimulatedCamera
from camserver.simulator.fleet import Fleet
from camserver.simulator.pictures import Pictures
from camserver.snapshots.service import SnapshotService
from camserver.snapshots.sources import Sources

INTERVAL_S, TIMEOUT_S = 10.0, 5.0
HEALTHY = 20
BEGINS_S, ENDS_S, RUN_S = 35.0, 100.0, 200.0
KINDS = [
    *("refuse", "deaf", "silent", "no-keyframe", "cut", "damage"),
    *(f"stall:{method}" for method in METHODS),
    *(f"status:{code}" for code in (400, 401, 403, 404, 453, 500, 503)),
    *(f"status:{code}:SETUP" for code in (401, 453, 461, 500, 503)),
    *(f"status:{code}:PLAY" for code in (401, 403, 454, 455, 503)),
    *("loss:0.3", "reorder:0.3", "slow:2000", "reboot:3:17"),
]
"""Every fault of the simulator, with the arguments that change what is tried."""
PICTURES: dict[Any, Pictures] = {
    size: Pictures(*size) for size in (("h264", 640, 360), ("h264", 320, 180))
}
"""Encoded here: on a virtual clock nobody may wait for a thread."""


def test_no_fault_is_left_out() -> None:
    assert {Fault.parse(kind).kind for kind in KINDS} | {"none"} == set(FAULTS)


class World:
    """A fleet, and everything that takes its pictures, with a decoder that always works."""

    def __init__(self, healthy: int, *, align: bool = False) -> None:
        self.align = align
        self.wall_step_s = 0.0
        self.simulated = {
            name: SimulatedCamera(name, name, fps=2, gop=2, join_at_keyframe=True)
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
        self.manager.configure({name: Budget(1, 0.25, 1.0) for name in self.simulated})
        self.orchestrator.configure(
            camera(
                name,
                url=self.fleet.url(name),
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
        faulty, fault_ = self.simulated["faulty"], Fault.parse(fault)
        await asyncio.sleep(begins_s)
        left_s = ENDS_S - begins_s
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


def run(healthy: int, fault: str, begins_s: float) -> World:
    return run_world(World(healthy), fault, begins_s)


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
def control() -> World:
    """The same fleet without a fault."""
    return run(HEALTHY, "none", 0.0)


def check_rules(world: World) -> None:
    """What holds for every camera, whatever happened."""
    for name, simulated in world.simulated.items():
        record = simulated.record
        assert record.sessions_max <= 1, (name, record)
        assert record.sessions_now == 0, (name, record)
        assert max(world.took[name]) <= TIMEOUT_S + 1.5, (name, world.took[name])


def check_recovered(world: World) -> None:
    """The faulty camera has pictures again, at the latest one retry after its fault ended."""
    after = [at for at in world.pictures["faulty"] if at > 1000 + ENDS_S]
    assert len(after) >= 3, world.pictures["faulty"]
    assert after[0] <= 1000 + ENDS_S + 60 + TIMEOUT_S


@pytest.mark.parametrize("begins_s", [0.0, BEGINS_S])
@pytest.mark.parametrize("fault", KINDS)
def test_a_fault_alone(fault: str, begins_s: float) -> None:
    """Each poll ends in time, no session is left or too many, and the camera comes back."""
    world = run(0, fault, begins_s)
    check_rules(world)
    check_recovered(world)
    failing_s = ENDS_S - begins_s
    polls = sum(1000 + begins_s <= at <= 1000 + ENDS_S for at in world.starts["faulty"])
    assert polls <= failing_s / INTERVAL_S + 3, "a failing camera is asked no more than a good one"


@pytest.mark.parametrize("begins_s", [0.0, BEGINS_S])
@pytest.mark.parametrize("fault", KINDS)
def test_a_fault_beside_healthy_cameras(fault: str, begins_s: float) -> None:
    """Their polls and pictures are as punctual as without it."""
    world, without = run(HEALTHY, fault, begins_s), control()
    check_rules(world)
    check_recovered(world)
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


def test_after_a_suspend_each_camera_is_polled_once() -> None:
    """The clock of the event loop jumps by 90 s: one catch-up, spread by open_rate, no storm."""
    woke: list[float] = []

    async def suspend(_: World) -> None:
        await asyncio.sleep(53.0)
        loop: Any = asyncio.get_running_loop()
        loop.now += 90.0  # the rest of the run is long enough to see what follows
        woke.append(loop.now)

    world = run_world(World(HEALTHY), meanwhile=suspend)
    check_rules(world)
    for name, starts in world.starts.items():
        after = [at - woke[0] for at in starts if at >= woke[0]]
        assert after[0] <= INTERVAL_S, (name, after)
        assert sum(at < INTERVAL_S for at in after) <= 2, (name, after)
        assert len(after) >= 4
    first = sorted(at - woke[0] for starts in world.starts.values() for at in starts)
    assert sum(0 <= at < 0.5 for at in first) <= 0.5 * 20 + 2


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("step_s", [3605.0, -3605.0])
def test_a_step_of_the_wall_clock_delays_no_camera(step_s: float, align: bool) -> None:
    """Polls that are not aligned do not notice. Aligned ones go to their new marks, with no storm.

    They find out within half a minute, or at once when the kernel tells (not here).
    """

    async def step(world: World) -> None:
        await asyncio.sleep(53.0)
        world.wall_step_s = step_s

    world = run_world(World(HEALTHY, align=align), meanwhile=step)
    check_rules(world)
    for name, starts in world.starts.items():
        gaps = [b - a for a, b in pairwise(starts[1:])]
        assert max(gaps) <= 2 * INTERVAL_S, (name, gaps)
        assert sum(gap < 0.9 * INTERVAL_S for gap in gaps) <= 1, (name, gaps)
    if align:
        marks = {(at + step_s) % INTERVAL_S for at in world.starts["healthy3"] if at > 1100}
        assert max(marks) < 1.2, marks
