"""Every fault of a camera: from the first poll on and later, alone and beside 20 healthy cameras.

The schedule, the leases, our own clients and the simulated cameras are real. The network is in
memory and the clock is virtual, so two runs can be compared poll by poll.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from matrix_world import (
    BEGINS_S,
    ENDS_S,
    HEALTHY,
    INTERVAL_S,
    World,
    check_healthy,
    check_recovered,
    check_rules,
    control,
    run,
    run_world,
)

from camserver.simulator.camera import FAULTS, METHODS, Fault

KINDS = [
    *("refuse", "deaf", "silent", "no-keyframe", "cut", "damage"),
    *(f"stall:{method}" for method in METHODS),
    *(f"status:{code}" for code in (400, 401, 403, 404, 453, 500, 503)),
    *(f"status:{code}:SETUP" for code in (401, 453, 461, 500, 503)),
    *(f"status:{code}:PLAY" for code in (401, 403, 454, 455, 503)),
    *("loss:0.3", "reorder:0.3", "slow:2000", "reboot:3:17"),
]
"""Every fault of the simulator, with the arguments that change what is tried."""
HTTP_KINDS = ("busy", "cut", "json-login", "html-login", "redirect-away", "silent", "busy-once")
"""Habits of snapshot URLs that give no picture, or a late one."""


def test_no_fault_is_left_out() -> None:
    assert {Fault.parse(kind).kind for kind in KINDS} | {"none"} == set(FAULTS)


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
    world = run(HEALTHY, fault, begins_s)
    check_rules(world)
    check_recovered(world)
    check_healthy(world, control())


@pytest.mark.parametrize("begins_s", [0.0, BEGINS_S])
@pytest.mark.parametrize("habit", HTTP_KINDS)
@pytest.mark.parametrize("healthy", [0, HEALTHY])
def test_a_fault_of_a_snapshot_url(habit: str, begins_s: float, healthy: int) -> None:
    """Alone and beside healthy cameras, whose pictures come from snapshot URLs, too."""
    world = run(healthy, habit, begins_s, http=True)
    check_rules(world)
    check_recovered(world)
    if healthy:
        check_healthy(world, control(http=True))


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
