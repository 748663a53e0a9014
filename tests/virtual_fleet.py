"""A schedule of cameras on a virtual clock. What a poll does is the test's to say."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from support import run_virtual

from camserver.config import Camera
from camserver.events import Event
from camserver.leases import Holder
from camserver.model import Attempt, Result, Snapshot, Source, Still
from camserver.polling.orchestrator import PollingOrchestrator

NOW = datetime(2026, 1, 4, tzinfo=UTC)


def outcome(c: Camera, result: Result = Result.OK) -> Attempt:
    if result is not Result.OK:
        return Attempt(c.id, NOW, result, "why")
    still = Still(b"", 1, 1, "h264")
    return Attempt(
        c.id,
        NOW,
        result,
        None,
        Snapshot(c.id, c.name, still, Source.RTSP, "native", NOW, 1, 0, None),
    )


class Fleet:
    """Records when each camera was polled; what a poll does is the test's to say."""

    def __init__(self, behave: Callable[[Camera], Any], **options: Any) -> None:
        self.starts: dict[str, list[float]] = defaultdict(list)
        self.askers: dict[str, list[str]] = defaultdict(list)
        self.events: list[Event] = []
        self.behave = behave
        self.most = self.running = 0
        self.orchestrator = PollingOrchestrator(
            self.poll,
            emit=self.events.append,
            **({"sessions": 16, "open_rate": 1000.0, "chance": lambda: 0.0} | options),
        )

    async def poll(self, c: Camera, _: int, asker: Holder | None) -> Attempt:
        self.starts[c.id].append(asyncio.get_running_loop().time() - 1000)
        self.askers[c.id].append("schedule" if asker is None else asker.label)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self.behave(c)  # type: ignore[no-any-return]
        finally:
            self.running -= 1

    def run(self, cameras: list[Camera], seconds: float) -> None:
        async def work() -> None:
            self.orchestrator.configure(cameras)
            task = asyncio.create_task(self.orchestrator.run())
            await asyncio.sleep(seconds)
            await self.orchestrator.stop(0.0)
            await task
            self.statistics = self.orchestrator.statistics()
            self.results = sum((Counter(c.results) for c in self.orchestrator.cameras()), Counter())

        run_virtual(work)


async def quick(c: Camera) -> Attempt:
    await asyncio.sleep(0.2)
    return outcome(c)


async def dead(c: Camera) -> Attempt:
    await asyncio.sleep(10)
    return outcome(c, Result.TIMEOUT)
