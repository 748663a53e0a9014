"""Cameras that are polled and asked for pictures, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from support import run_virtual

from camserver.config import Camera
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

    def __init__(self, behave: Behaviour, store_s: float = 0.0, open_rate: float = 1000.0) -> None:
        self.starts: dict[str, list[float]] = defaultdict(list)
        self.askers: dict[str, list[str]] = defaultdict(list)
        self.open = self.most = 0
        self.behave = behave
        self.step_s = 0.0
        """How far the wall clock was set since the start."""
        self.store_s = store_s
        self.outcomes = Outcomes(wall=lambda: wall().timestamp(), boot=now)
        self.orchestrator = PollingOrchestrator(
            self._poll,
            sessions=16,
            open_rate=open_rate,
            emit=lambda _: None,
            wall=lambda: wall().timestamp() + self.step_s,
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
