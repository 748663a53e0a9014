"""The summary of each minute, while routine lines are left out."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from camserver.event_log import Counts
from camserver.events import Event, PollsSummary
from camserver.host import notify
from camserver.leases import Budget, Holder, RtspManager
from camserver.storage.outcomes import Outcomes
from camserver.summary import SUMMARY_S, keep_status, keep_summary


async def test_a_status_line_of_many_cameras_is_written_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines, loop = list[float](), asyncio.get_running_loop()
    monkeypatch.setattr(notify, "notify", lambda _: lines.append(loop.time()))
    numbers = SimpleNamespace(cameras=100, fresh=99, failing=1, running=0)
    orchestrator: Any = SimpleNamespace(statistics=lambda: numbers)
    keeping = asyncio.create_task(keep_status(orchestrator))
    await asyncio.sleep(15)
    numbers.cameras = 10_000
    await asyncio.sleep(70)
    keeping.cancel()
    assert [b - a for a, b in pairwise(lines)] == pytest.approx([10, 10, 50])


@pytest.mark.parametrize("is_summarised", [True, False])
async def test_a_summary_has_the_numbers_of_its_minute(
    is_summarised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [Counts(600, 7), Counts(599, 1)]
    log: Any = SimpleNamespace(take_counts=lambda: counts.pop(0), is_summarised=is_summarised)
    ages = {f"cam{n}": float(n) for n in range(200)}
    monkeypatch.setattr(Outcomes, "ages_s", lambda _: ages)
    output: Any = SimpleNamespace(outcomes=Outcomes())
    orchestrator: Any = SimpleNamespace(statistics=lambda: SimpleNamespace(failing=3))
    manager = RtspManager()
    manager.configure({"a": Budget(2), "b": Budget(1)})
    events: list[Event] = []
    keeping = asyncio.create_task(keep_summary(log, output, orchestrator, manager, events.append))
    with await manager.acquire("cam1", "a", Holder("poller")) as lease:
        await asyncio.sleep(SUMMARY_S + 1)
        keeping.cancel()
        assert lease.device == "a"
    assert counts == [Counts(599, 1)], "the counts begin anew each minute in any case"
    expected = PollsSummary(pictures=600, failures=7, failing=3, freshness_p99_s=197.0, sessions=1)
    assert events == ([expected] if is_summarised else [])
