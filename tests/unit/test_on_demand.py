"""Pictures on demand: all who ask share one poll, which counts as one. On a virtual clock."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from support import camera, run_virtual

from camserver.config import Camera
from camserver.errors import NotPolledError
from camserver.leases import Holder
from camserver.model import Attempt, Result, Snapshot, Source, Still
from camserver.polling.on_demand import NotFresh, OnDemand
from camserver.polling.orchestrator import PollingOrchestrator
from camserver.storage.outcomes import Outcomes
from camserver.storage.published import facts_of

START = datetime(2026, 1, 4, tzinfo=UTC)
ASKER = Holder("snapshot", "test")
Behaviour = Callable[[Camera], Awaitable[Result]]


def now() -> float:
    """Seconds since the start of the test."""
    return asyncio.get_running_loop().time() - 1000


def wall() -> datetime:
    return START + timedelta(seconds=now())


class Site:
    """Cameras that are polled and asked for pictures, and what they saw of it."""

    def __init__(self, behave: Behaviour, store_s: float = 0.0) -> None:
        self.starts: dict[str, list[float]] = defaultdict(list)
        self.askers: dict[str, list[str]] = defaultdict(list)
        self.open = self.most = 0
        self.behave = behave
        self.store_s = store_s
        self.outcomes = Outcomes(wall=lambda: wall().timestamp(), boot=now)
        self.orchestrator = PollingOrchestrator(
            self._poll,
            sessions=16,
            open_rate=1000.0,
            emit=lambda _: None,
            wall=lambda: wall().timestamp(),
            chance=lambda: 0.0,
        )
        self.on_demand = OnDemand(self.orchestrator, self.outcomes, boot=now, wall=wall)

    async def _poll(self, polled: Camera, failures: int, asker: Holder | None) -> Attempt:
        self.starts[polled.id].append(now())
        self.askers[polled.id].append("schedule" if asker is None else asker.label)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            result = await self.behave(polled)
        finally:
            self.open -= 1
        captured_at = wall()
        await asyncio.sleep(self.store_s)
        if result is not Result.OK:
            attempt = Attempt(polled.id, wall(), result, f"{polled.id}: {result}")
            self.outcomes.attempted(attempt, failures + (result is not Result.BUSY))
            return attempt
        still = Still(b"", 1, 1, "h264")
        snapshot = Snapshot(
            polled.id, polled.name, still, Source.RTSP, "native", captured_at, 1, 0, None
        )
        self.outcomes.published(polled.id, facts_of(snapshot, 1), captured_at)
        attempt = Attempt(polled.id, wall(), Result.OK, None, snapshot)
        self.outcomes.attempted(attempt, 0)
        return attempt

    async def refresh(
        self, polled: Camera, max_age_s: float, wait_s: float = 20.0
    ) -> NotFresh | None:
        return await self.on_demand.refresh(polled, max_age_s, wait_s, lambda: ASKER)

    def run(self, work: Callable[[], Awaitable[Any]], *cameras: Camera) -> None:
        async def all_() -> None:
            self.orchestrator.configure(cameras)
            polling = asyncio.create_task(self.orchestrator.run())
            await work()
            await self.orchestrator.stop(0.0)
            await polling

        run_virtual(all_)


async def quick(_: Camera) -> Result:
    await asyncio.sleep(0.2)
    return Result.OK


async def refuses(_: Camera) -> Result:
    await asyncio.sleep(0.2)
    return Result.AUTH


def test_a_young_picture_is_not_taken_again() -> None:
    site, cam = Site(quick), camera(interval_s=10.0)

    async def work() -> None:
        await asyncio.sleep(3)
        assert await site.refresh(cam, 5) is None

    site.run(work, cam)
    assert site.starts["cam"] == [0]


def test_a_picture_on_demand_counts_as_the_poll() -> None:
    site, cam = Site(quick), camera(interval_s=10.0)

    async def work() -> None:
        await asyncio.sleep(12)
        assert await site.refresh(cam, 1) is None
        assert site.outcomes.age_s("cam") == 0
        await asyncio.sleep(30)

    site.run(work, cam)
    assert site.starts["cam"] == pytest.approx([0, 10, 12, 22, 32, 42])
    assert site.askers["cam"] == ["schedule", "schedule", "test", *["schedule"] * 3]


def test_those_who_ask_at_once_share_one_poll_with_the_schedule() -> None:
    site, cam = Site(quick), camera(interval_s=60.0)

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(100):  # the first poll of the schedule is theirs
                group.create_task(site.refresh(cam, 5))
        await asyncio.sleep(9)
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(site.refresh(cam, 5))

    site.run(work, cam)
    assert site.starts["cam"] == pytest.approx([0, 9.2])
    assert site.most == 1


def test_a_hundred_who_ask_all_the_time_get_one_poll_a_second() -> None:
    site, cam = Site(quick), camera(interval_s=60.0)
    ages = []

    async def ask() -> None:
        while now() < 30:
            assert await site.refresh(cam, 1) is None
            ages.append(site.outcomes.age_s("cam") or 0)
            await asyncio.sleep(0.05)

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(ask())

    site.run(work, cam)
    assert len(site.starts["cam"]) <= 30
    assert all(b - a >= cam.min_interval_s for a, b in pairwise(site.starts["cam"]))
    assert max(ages) <= 1 + 0.2
    assert site.most == 1


def test_a_poll_that_had_its_keyframe_before_is_not_enough() -> None:
    site, cam = Site(quick, store_s=3.0), camera(interval_s=60.0)

    async def work() -> None:
        await asyncio.sleep(2)  # the picture is captured, and on its way to the disk
        assert await site.refresh(cam, 1) is None
        await asyncio.sleep(1)
        attempt = await site.on_demand.snapshot(cam, ASKER)
        assert attempt.snapshot is not None
        assert attempt.snapshot.captured_at == START + timedelta(seconds=now() - 3)

    site.run(work, cam)
    assert site.starts["cam"] == pytest.approx([0, 3.2, 7.4])


def test_a_failing_camera_is_not_tried_before_it_is_due() -> None:
    """Cameras lock accounts: who asks must not make the daemon send a wrong password."""
    site, cam = Site(refuses), camera(interval_s=10.0)
    answers = []

    async def ask() -> None:
        for _ in range(40):
            answers.append(await site.refresh(cam, 5))
            await asyncio.sleep(1)

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(ask())

    site.run(work, cam)
    assert site.starts["cam"] == [0]
    assert all(answer is not None and answer.result is Result.AUTH for answer in answers)
    last = answers[-1]
    assert last is not None
    assert last.reason == "cam: auth"
    assert last.retry_after_s == pytest.approx(60 - 39)


def test_a_person_may_try_a_failing_camera_now() -> None:
    site, cam = Site(refuses), camera(interval_s=10.0)

    async def work() -> None:
        await asyncio.sleep(5)
        assert (await site.on_demand.snapshot(cam, ASKER)).result is Result.AUTH

    site.run(work, cam)
    assert site.starts["cam"] == [0, 5]


def test_a_busy_camera_may_be_asked_again() -> None:
    """Nothing was sent to it."""

    async def busy(_: Camera) -> Result:
        return Result.BUSY

    site, cam = Site(busy), camera(interval_s=10.0)

    async def work() -> None:
        for _ in range(3):
            answer = await site.refresh(cam, 5)
            assert answer is not None
            assert answer.result is Result.BUSY

    site.run(work, cam)
    assert site.starts["cam"] == pytest.approx([0, 1, 2])


def test_who_waits_waits_no_longer_than_asked() -> None:
    async def slow(_: Camera) -> Result:
        await asyncio.sleep(8)
        return Result.OK

    site, cam = Site(slow), camera(interval_s=60.0)

    async def work() -> None:
        answer = await site.refresh(cam, 5, wait_s=2)
        assert now() == 2
        assert answer is not None
        assert answer.reason == "cam: no new picture within 2 s"
        assert await site.refresh(cam, 5, wait_s=10) is None  # of the same poll
        assert now() == 8

    site.run(work, cam)
    assert site.starts["cam"] == [0]


def test_those_who_leave_cost_nothing_and_take_nothing_from_others() -> None:
    site, cam = Site(quick), camera(interval_s=60.0)

    async def work() -> None:
        await asyncio.sleep(20)
        async with asyncio.TaskGroup() as group:
            leaving = [group.create_task(site.refresh(cam, 5)) for _ in range(50)]
            staying = [group.create_task(site.refresh(cam, 5)) for _ in range(50)]
            await asyncio.sleep(0.1)
            for task in leaving:
                task.cancel()
        assert [task.result() for task in staying] == [None] * 50

    site.run(work, cam)
    assert site.starts["cam"] == [0, 20]


@pytest.mark.parametrize("running", [True, False])
def test_a_stop_tells_those_who_wait(running: bool) -> None:
    async def slow(_: Camera) -> Result:
        await asyncio.sleep(100)
        return Result.OK

    site, cam = Site(slow if running else quick), camera(interval_s=60.0)

    async def work() -> None:
        await asyncio.sleep(0.5)
        waiting = asyncio.create_task(site.refresh(cam, 0.1))
        await asyncio.sleep(0.1)
        await site.orchestrator.stop(0.0)
        answer = await waiting
        assert answer is not None
        assert answer.reason == "cam is not polled any more"
        with pytest.raises(NotPolledError):
            await site.orchestrator.poll_now("cam", ASKER)

    site.run(work, cam)


def test_a_camera_that_leaves_tells_those_who_wait_for_its_next_poll() -> None:
    site, cam = Site(quick), camera(interval_s=60.0)

    async def work() -> None:
        await asyncio.sleep(0.3)
        waiting = asyncio.create_task(site.refresh(cam, 0.01))
        await asyncio.sleep(0.1)
        site.orchestrator.configure(())
        answer = await waiting
        assert answer is not None
        assert answer.reason == "cam is not polled any more"
        answer = await site.refresh(cam, 0.01)
        assert answer is not None
        assert answer.reason == "cam is not polled here"

    site.run(work, cam)
    assert site.starts["cam"] == [0]


def test_a_camera_that_leaves_during_its_poll_gives_the_picture() -> None:
    site, cam = Site(quick), camera(interval_s=60.0)

    async def work() -> None:
        waiting = asyncio.create_task(site.refresh(cam, 5))
        await asyncio.sleep(0.1)
        site.orchestrator.configure(())
        assert await waiting is None

    site.run(work, cam)


def test_a_reload_during_a_shared_poll_gives_its_picture_and_polls_again() -> None:
    site, cam = Site(quick), camera(interval_s=60.0)

    async def work() -> None:
        waiting = asyncio.create_task(site.refresh(cam, 5))
        await asyncio.sleep(0.1)
        site.orchestrator.configure([replace(cam, url="rtsp://127.0.0.1/other")])
        assert await waiting is None
        await asyncio.sleep(5)

    site.run(work, cam)
    assert site.starts["cam"] == pytest.approx([0, 0.2])


def test_an_aligned_camera_keeps_its_marks() -> None:
    """A poll at the mark is waited for if it comes soon; otherwise it comes in any case."""
    site, cam = Site(quick), camera(interval_s=10.0, align=True)

    async def work() -> None:
        await asyncio.sleep(14)
        assert await site.refresh(cam, 1) is None
        await asyncio.sleep(5.4)
        assert now() == pytest.approx(19.6)
        assert await site.refresh(cam, 1) is None
        await asyncio.sleep(15)

    site.run(work, cam)
    assert site.starts["cam"] == pytest.approx([10, 14, 20, 30])
    assert site.askers["cam"] == ["schedule", "test", "test", "schedule"]


def test_a_picture_of_an_earlier_run_is_judged_by_the_wall_clock() -> None:
    site, cam = Site(quick), camera(interval_s=60.0)
    site.outcomes = Outcomes(wall=lambda: 1000.0, boot=lambda: 5.0)
    assert not OnDemand(site.orchestrator, site.outcomes).is_young("cam", 1e9)
    facts = {"captured_at": "1970-01-01T00:15:00Z"}
    site.outcomes.remember({"cam": replace(Outcomes().attempted(attempt(cam), 0), picture=facts)})
    on_demand = OnDemand(site.orchestrator, site.outcomes)
    assert on_demand.is_young("cam", 100)
    assert not on_demand.is_young("cam", 99)


def attempt(of: Camera) -> Attempt:
    return Attempt(of.id, START, Result.OK, None)
