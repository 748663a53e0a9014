"""When cameras are polled: spread, drift-free, without piling up.

The dead cannot starve the living. On a virtual clock.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import camera
from virtual_fleet import Fleet, dead, outcome, quick

from camserver.config import Camera
from camserver.events import PollSkipped
from camserver.leases import Holder
from camserver.model import Attempt, Result
from camserver.polling.entry import YIELD_S
from camserver.polling.schedule import RETRY_CAP_S, next_due, phase, retry_delay_s


@given(st.floats(0, 1e6), st.floats(0.1, 1e5), st.floats(0, 1))
def test_due_times_lie_on_the_grid_and_ahead(now: float, interval: float, fraction: float) -> None:
    due = next_due(now, interval, fraction * interval)
    assert now < due <= now + interval * 1.001
    steps = (due - fraction * interval) / interval
    assert abs(steps - round(steps)) < 1e-3


@given(st.integers(2, 500))
def test_phases_spread_any_number_of_cameras(n: int) -> None:
    """No gap between neighbours is more than three times the even one."""
    phases = sorted(phase(i) for i in range(n))
    gaps = [b - a for a, b in zip(phases, [*phases[1:], phases[0] + 1], strict=True)]
    assert max(gaps) < 3 / n


@given(
    st.integers(1, 10_000), st.floats(0.1, 1e5), st.floats(0, 0.999), st.sampled_from(list(Result))
)
def test_a_repaired_camera_is_back_within_a_minute(
    failures: int, interval: float, chance: float, result: Result
) -> None:
    assert 0 < retry_delay_s(failures, result, interval, chance) <= RETRY_CAP_S


def test_polls_are_drift_free_and_spread() -> None:
    """After its first picture each camera is polled once an interval, at its own phase."""
    fleet = Fleet(quick)
    fleet.run([camera(f"c{i}") for i in range(10)], 100)
    seconds = set()
    for starts in fleet.starts.values():
        gaps = [b - a for a, b in pairwise(starts[1:])]
        assert all(abs(g - 10) < 0.01 for g in gaps)
        seconds.add(round(starts[2] % 10, 1))
    assert len(seconds) == 10


def test_dead_cameras_do_not_delay_live_ones() -> None:
    """Three hundred dead cameras beside ten live ones, which lose no picture. The dead wait."""
    fleet = Fleet(lambda c: dead(c) if c.id.startswith("dead") else quick(c), sessions=8)
    fleet.run(
        [camera(f"dead{i}") for i in range(300)] + [camera(f"live{i}") for i in range(10)], 3000
    )
    for i in range(10):
        late = [t for t in fleet.starts[f"live{i}"] if t > 2000]
        assert len(late) >= 99
    late_s = {group: polls.most_s for group, polls in fleet.statistics.lateness.items()}
    assert late_s["healthy"] < 1 < late_s["failing"]


async def test_cameras_not_yet_seen_do_not_delay_those_that_answer() -> None:
    """A reload brings a hundred new cameras, all dead.

    The old ones miss nothing, and a new healthy one is found.
    """
    fleet = Fleet(lambda c: dead(c) if c.id.startswith("dead") else quick(c), sessions=8)
    old = [camera(f"live{i}") for i in range(10)]
    fleet.orchestrator.configure(old)
    task = asyncio.create_task(fleet.orchestrator.run())
    await asyncio.sleep(100)
    fleet.orchestrator.configure([*old, *(camera(f"dead{i}") for i in range(100)), camera("new")])
    await asyncio.sleep(400)
    await fleet.orchestrator.stop(0.0)
    await task
    for i in range(10):
        assert max(b - a for a, b in pairwise(fleet.starts[f"live{i}"][1:])) < 10.1
    assert fleet.starts["new"]


def test_a_busy_camera_is_skipped_and_counted() -> None:
    async def slow(c: Camera) -> Attempt:
        await asyncio.sleep(25)
        return outcome(c)

    fleet = Fleet(slow)
    fleet.run([camera("slow")], 60)
    skipped = [e for e in fleet.events if isinstance(e, PollSkipped)]
    assert len(skipped) >= 2
    assert fleet.most == 1
    assert fleet.statistics.skipped == len(skipped)


async def test_aligned_cameras_shoot_on_the_wall_clocks_multiples() -> None:
    """A timelapse picture is taken at multiples of the interval by the wall clock."""
    offset = 1_700_000_003.25
    step = 0.0

    def wall() -> float:
        return asyncio.get_running_loop().time() + offset + step

    async def shoot(c: Camera) -> Attempt:
        taken.append(wall())
        return outcome(c)

    taken: list[float] = []
    fleet = Fleet(shoot, wall=wall)
    fleet.orchestrator.configure([camera("t", align=True, interval_s=60.0)])
    task = asyncio.create_task(fleet.orchestrator.run())
    await asyncio.sleep(200)
    step = 7.5
    await asyncio.sleep(200)
    await fleet.orchestrator.stop(0.0)
    await task
    assert len(taken) == 6
    off = [min(t % 60, 60 - t % 60) for t in taken]
    assert max(off) < 0.06


def test_open_rate_bounds_the_start() -> None:
    fleet = Fleet(quick, open_rate=10.0, sessions=1000)
    fleet.run([camera(f"c{i}", interval_s=1000.0) for i in range(100)], 20)
    starts = sorted(t for s in fleet.starts.values() for t in s)
    assert len(starts) >= 100
    assert all(b - a > 0.0999 for a, b in pairwise(starts))


@pytest.mark.parametrize(
    ("count", "interval_s", "begins_s"), [(1000, 60.0, 54.0), (100, 5.0, 5.0), (60, 60.0, 3.0)]
)
def test_a_fleet_begins_spread_and_no_poll_is_late(
    count: int, interval_s: float, begins_s: float
) -> None:
    """The first poll of each comes as soon as the open rate allows, and is planned so."""
    fleet = Fleet(quick, open_rate=20.0, sessions=256)
    fleet.run([camera(f"c{i}", interval_s=interval_s) for i in range(count)], 5 * interval_s)
    assert max(starts[0] for starts in fleet.starts.values()) < begins_s
    assert max(polls.most_s for polls in fleet.statistics.lateness.values()) < 0.11
    gaps = [b - a for starts in fleet.starts.values() for a, b in pairwise(starts)]
    # A large fleet keeps the rhythm of its start; a small one would be polled in a burst
    assert max(gaps) < (1.01 if begins_s > interval_s / 2 else 1.5) * interval_s
    later = sorted(starts[2] for starts in fleet.starts.values())
    assert later[-1] - later[0] > 0.75 * interval_s


async def test_reloads_that_change_all_cameras_delay_none() -> None:
    """Every 40 s, while the start of all of them takes 50 s."""
    fleet = Fleet(quick, open_rate=20.0, sessions=256)
    task = asyncio.create_task(fleet.orchestrator.run())
    for reload in range(5):
        fleet.orchestrator.configure(
            camera(f"c{i}", interval_s=60.0, timeout_s=5.0 + reload) for i in range(1000)
        )
        await asyncio.sleep(40)
    await fleet.orchestrator.stop(0.0)
    await task
    assert len(fleet.starts) == 1000
    gaps = [b - a for starts in fleet.starts.values() for a, b in pairwise([0.0, *starts, 200.0])]
    assert max(gaps) < 90  # more is due than open_rate allows


async def test_cameras_that_come_later_are_not_late() -> None:
    """A fleet that fills half of its interval leaves the other half to them, and to all."""
    fleet = Fleet(quick, open_rate=20.0, sessions=256)
    first = [camera(f"c{i}", interval_s=60.0) for i in range(600)]
    fleet.orchestrator.configure(first)
    task = asyncio.create_task(fleet.orchestrator.run())
    await asyncio.sleep(300)
    fleet.orchestrator.configure([*first, *(camera(f"d{i}", interval_s=60.0) for i in range(300))])
    await asyncio.sleep(300)
    before = fleet.orchestrator.statistics()
    await asyncio.sleep(600)
    after = fleet.orchestrator.statistics()
    await fleet.orchestrator.stop(0.0)
    await task
    then, now = before.lateness["healthy"], after.lateness["healthy"]
    assert (now.total_s - then.total_s) / (now.polls - then.polls) < 0.1


def test_neighbours_in_the_inventory_begin_far_apart() -> None:
    """They are often channels of one recorder, which has one session for all."""
    fleet = Fleet(quick, open_rate=20.0, sessions=256)
    fleet.run([camera(f"c{i}", interval_s=60.0) for i in range(1000)], 180)
    for nth in (0, 2):
        gaps = [abs(fleet.starts[f"c{i}"][nth] - fleet.starts[f"c{i + 1}"][nth]) for i in range(64)]
        assert min(gaps) > 10


async def test_reload_leaves_unchanged_cameras_alone() -> None:
    """A changed camera is polled at once, a removed one never again, others keep their rhythm."""
    fleet = Fleet(quick)
    fleet.orchestrator.configure([camera("same"), camera("changed"), camera("gone")])
    task = asyncio.create_task(fleet.orchestrator.run())
    await asyncio.sleep(35)
    fleet.orchestrator.configure([camera("same"), camera("changed", width=640)])
    await asyncio.sleep(35)
    await fleet.orchestrator.stop(0.0)
    await task
    assert max(fleet.starts["gone"]) < 35.1
    assert any(abs(t - 35) < 0.01 for t in fleet.starts["changed"])
    assert not any(abs(t - 35) < 0.01 for t in fleet.starts["same"])


def test_a_fault_of_ours_costs_one_poll() -> None:
    async def broken(c: Camera) -> Attempt:
        raise RuntimeError("bug")

    fleet = Fleet(broken)
    fleet.run([camera("x")], 30)
    assert len(fleet.starts["x"]) >= 2
    assert fleet.results[Result.ERROR] >= 2


async def test_stop_waits_for_polls_then_cancels() -> None:
    """A poll that can end in the grace ends by itself.

    One that hangs is cancelled; none is left.
    """
    ended = []

    async def poll(c: Camera) -> Attempt:
        try:
            await asyncio.sleep(0.5 if c.id == "short" else 1000)
        except asyncio.CancelledError:
            ended.append(f"{c.id} cancelled")
            raise
        ended.append(f"{c.id} done")
        return outcome(c)

    fleet = Fleet(poll)
    fleet.orchestrator.configure([camera("short"), camera("long")])
    task = asyncio.create_task(fleet.orchestrator.run())
    await asyncio.sleep(0.1)
    await fleet.orchestrator.stop(1.0)
    await task
    assert ended == ["short done", "long cancelled"]
    assert pytest.approx(0) == fleet.running


async def test_a_camera_that_was_changed_while_it_waited_for_its_start_is_started_once() -> None:
    """Two hundred new cameras, a save of the inventory two seconds later.

    Never two polls of one, no slot is lost.
    """
    running: dict[str, int] = defaultdict(int)
    worst: dict[str, int] = defaultdict(int)

    async def slow(c: Camera) -> Attempt:
        running[c.id] += 1
        worst[c.id] = max(worst[c.id], running[c.id])
        await asyncio.sleep(12)
        running[c.id] -= 1
        return outcome(c)

    fleet = Fleet(slow, sessions=256, open_rate=20)
    cameras = [camera(f"c{n}", interval_s=60.0) for n in range(200)]
    fleet.orchestrator.configure(cameras)
    task = asyncio.create_task(fleet.orchestrator.run())
    for change in range(5):
        await asyncio.sleep(2)
        fleet.orchestrator.configure(
            [camera(c.id, interval_s=60.0, timeout_s=12.0 + change) for c in cameras]
        )
    await asyncio.sleep(300)
    assert fleet.orchestrator.statistics().running == sum(running.values())
    await fleet.orchestrator.stop(0.0)
    await task
    assert set(worst.values()) == {1}


def test_more_than_the_open_rate_allows_is_shared_fairly() -> None:
    """600 cameras every 10 s at 20 starts a second.

    All are polled, each as often as the others, the failing ones too.
    """

    async def behave(c: Camera) -> Attempt:
        await asyncio.sleep(0.2)
        return outcome(c, Result.TIMEOUT if c.id.endswith("7") else Result.OK)

    fleet = Fleet(behave, sessions=256, open_rate=20)
    fleet.run([camera(f"c{n}", interval_s=10.0) for n in range(600)], 1800)
    polls = [
        len(starts) for camera_id, starts in fleet.starts.items() if not camera_id.endswith("7")
    ]
    assert len(fleet.starts) == 600
    assert max(polls) - min(polls) <= 4
    assert min(len(starts) for starts in fleet.starts.values()) > 15


async def test_who_asks_for_a_failing_camera_gets_its_poll_also_when_many_wait() -> None:
    """It lets others start first, but not for ever: 600 cameras every 10 s, 20 starts a second."""

    async def behave(c: Camera) -> Attempt:
        await asyncio.sleep(0.2)
        return outcome(c, Result.TIMEOUT if c.id == "dead" else Result.OK)

    fleet, loop = Fleet(behave, sessions=256, open_rate=20), asyncio.get_running_loop()
    cameras = [camera(f"c{n}", interval_s=10.0) for n in range(600)]
    fleet.orchestrator.configure([*cameras, camera("dead", interval_s=3600.0)])
    running = asyncio.create_task(fleet.orchestrator.run())
    await asyncio.sleep(300)
    asked, polls = loop.time(), len(fleet.starts["dead"])
    attempt = await fleet.orchestrator.poll_now("dead", Holder("event", "a client"))
    assert attempt.result is Result.TIMEOUT
    assert len(fleet.starts["dead"]) > polls
    longest_wait_s = fleet.orchestrator.statistics().lateness["healthy"].most_s
    assert loop.time() - asked < longest_wait_s + YIELD_S["failing"] + 1
    await fleet.orchestrator.stop(0.0)
    await running


async def test_a_camera_that_another_host_polled_keeps_its_rhythm() -> None:
    fleet = Fleet(quick)
    fleet.orchestrator.configure([])
    running = asyncio.create_task(fleet.orchestrator.run())
    fleet.orchestrator.add(camera(interval_s=10.0), 3.0, keeps_rhythm=True)
    await asyncio.sleep(40)
    assert fleet.starts["cam"] == pytest.approx([3.0, 13.0, 23.0, 33.0], abs=0.01)
    assert await fleet.orchestrator.hand_over("cam") == pytest.approx(3.0, abs=0.01)
    assert await fleet.orchestrator.hand_over("cam") is None
    await asyncio.sleep(20)
    assert len(fleet.starts["cam"]) == 4
    await fleet.orchestrator.stop(0.0)
    await running


async def test_the_hand_over_of_a_camera_waits_for_its_poll() -> None:
    """A poll that gave its session back without a picture is due at once."""

    async def preempted(c: Camera) -> Attempt:
        await asyncio.sleep(2)
        return outcome(c, Result.BUSY)

    fleet = Fleet(preempted)
    fleet.orchestrator.configure([camera(interval_s=10.0)])
    running = asyncio.create_task(fleet.orchestrator.run())
    await asyncio.sleep(0.5)
    assert await fleet.orchestrator.hand_over("cam") == 0.0
    assert fleet.running == 0
    await fleet.orchestrator.stop(0.0)
    await running
