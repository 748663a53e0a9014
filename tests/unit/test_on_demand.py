"""Pictures on demand: all who ask share one poll, which counts as one. On a virtual clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from polled_site import ASKER, START, Site, now, quick, refuses
from support import camera

from camserver.config import Camera
from camserver.errors import NotPolledError
from camserver.model import Attempt, Result
from camserver.polling.on_demand import default_wait_s
from camserver.storage.outcomes import Outcomes, moment_of


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


def test_a_snapshot_tries_a_failing_camera_now_but_not_after_a_wrong_password() -> None:
    async def silent(_: Camera) -> Result:
        return Result.TIMEOUT

    for behave, result, starts in ((silent, Result.TIMEOUT, [0, 2]), (refuses, Result.AUTH, [0])):
        site, cam = Site(behave), camera(interval_s=100.0)

        async def work(site: Site = site, cam: Camera = cam, result: Result = result) -> None:
            await asyncio.sleep(2)
            attempt = await site.on_demand.snapshot(cam, ASKER)
            assert attempt.result is result
            assert attempt.error is not None
            assert ("because cameras lock accounts" in attempt.error) == (result is Result.AUTH)

        site.run(work, cam)
        assert site.starts["cam"] == starts


def test_a_snapshot_waits_no_longer_than_polls_may_take() -> None:
    async def hangs(_: Camera) -> Result:
        await asyncio.sleep(10_000)
        return Result.OK

    site, cam = Site(hangs), camera(interval_s=100.0)

    async def work() -> None:
        attempt = await site.on_demand.snapshot(cam, ASKER)
        assert attempt.result is Result.OVERLOADED
        assert now() == 2 * default_wait_s(cam)

    site.run(work, cam)


def test_those_who_ask_take_no_turn_from_others() -> None:
    """More are asked for than may be started: each camera comes in its turn."""
    site = Site(quick, open_rate=20.0)
    asked = [camera(f"asked{n}", interval_s=1000.0) for n in range(40)]
    others = [camera(f"other{n}", interval_s=2.0) for n in range(5)]

    async def ask(cam: Camera) -> None:
        while now() < 20:
            await site.refresh(cam, 0.5, wait_s=60)
            await asyncio.sleep(0.05)

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for cam in asked:
                group.create_task(ask(cam))

    site.run(work, *asked, *others)
    assert min(len(site.starts[cam.id]) for cam in others) >= 5
    assert min(len(site.starts[cam.id]) for cam in asked) >= 7


def test_who_has_left_is_not_named_by_the_next_poll() -> None:
    site, cam = Site(quick), camera(interval_s=10.0, align=True)

    async def work() -> None:
        await asyncio.sleep(9.5)
        leaving = asyncio.create_task(site.refresh(cam, 1))
        await asyncio.sleep(0.1)
        leaving.cancel()
        await asyncio.sleep(1)

    site.run(work, cam)
    assert site.askers["cam"] == ["schedule"]


def test_a_clock_that_is_set_does_not_delay_who_waits() -> None:
    site, cam = Site(quick), camera(interval_s=3600.0, align=True, min_interval_s=100.0)

    async def work() -> None:
        assert await site.refresh(cam, 1, wait_s=60) is None
        await asyncio.sleep(5)
        waiting = asyncio.create_task(site.refresh(cam, 1, wait_s=600))
        await asyncio.sleep(1)
        site.step_s = 0.2
        assert await waiting is None

    site.run(work, cam)
    assert site.starts["cam"] == pytest.approx([0, 100])


def test_an_aligned_poll_comes_late_rather_than_not_at_all() -> None:
    """A poll that was asked for just before the mark still runs at the mark."""

    async def slow(_: Camera) -> Result:
        await asyncio.sleep(3)
        return Result.OK

    site, cam = Site(slow), camera(interval_s=10.0, align=True)

    async def work() -> None:
        await asyncio.sleep(8)
        assert await site.refresh(cam, 1) is None
        await asyncio.sleep(20)

    site.run(work, cam)
    assert site.starts["cam"] == pytest.approx([8, 11, 20, 30])


def test_a_wrong_password_makes_an_aligned_poll_wait() -> None:
    """Neither its next mark nor one that was missed brings it sooner: cameras lock accounts."""

    async def slow(_: Camera) -> Result:
        await asyncio.sleep(3)
        return Result.AUTH

    site, cam = Site(slow), camera(interval_s=10.0, align=True)

    async def work() -> None:
        await asyncio.sleep(8)
        assert await site.refresh(cam, 1) is not None
        await asyncio.sleep(62)

    site.run(work, cam)
    assert site.starts["cam"] == pytest.approx([8, 71])


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


def test_a_picture_of_an_earlier_run_is_not_young() -> None:
    """The clock may be wrong after a start: some hosts go on with the time of their end."""
    site, cam = Site(quick), camera(interval_s=60.0)
    at = "2026-01-03T23:59:59Z"
    tried = Outcomes().attempted(attempt(cam), 0)
    earlier = replace(tried, picture={"captured_at": at}, captured_at=moment_of(at))
    site.outcomes.remember({"cam": earlier})

    async def work() -> None:
        assert site.outcomes.age_s("cam") == 1
        assert not site.on_demand.is_young("cam", 1e9)
        assert await site.refresh(cam, 60) is None

    site.run(work, cam)
    assert site.starts["cam"] == [0]


def attempt(of: Camera) -> Attempt:
    return Attempt(of.id, START, Result.OK, None)
