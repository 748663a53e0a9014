"""What the orchestrator knows of each camera, and what it shows of it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from camserver.config import Camera
from camserver.errors import NotPolledError
from camserver.freshness import Freshness, FreshnessLimits
from camserver.leases import Holder
from camserver.model import Attempt, Result
from camserver.polling.lateness import Lateness, LatenessStatistics

SLOT_DIVISORS = {"healthy": 1, "new": 2, "failing": 4}
"""The divisor of all slots for each poll group: 4 means that a quarter of the slots may be used.

Among the poll groups with a free slot, the camera that has been due for the longest time starts,
but for YIELD_S.
"""
YIELD_S = {"healthy": 0.0, "new": 0.0, "failing": 10.0}
"""For how long a camera that is due lets others start before it.

Retries must not delay the others while a fleet needs all of open_rate, also those that a client
waits for. And a repaired camera must not wait for ever.
"""


@dataclass(eq=False, slots=True)
class Entry:
    """One camera's schedule. Only the orchestrator changes it."""

    camera: Camera
    number: int
    phase_s: float = 0.0
    """The moment of its interval at which it is due, in seconds."""
    due: float = math.inf
    version: int = 0  # a heap item with another version is ignored
    task: asyncio.Task[None] | None = None
    queued: bool = False  # due, and waits for its start
    again: bool = False  # the camera was changed while its poll ran
    removed: bool = False
    # No session came free for the last poll, so nothing was sent to the camera
    busy: bool = False
    failures: int = 0
    skipped: int = 0
    results: Counter[Result] = field(default_factory=Counter)
    fresh_at: float | None = None
    started: float = -math.inf
    """When its newest poll started."""
    asker: Holder | None = None
    """Who asked for its next poll. None: the schedule did."""
    waiting: int = 0
    """How many wait for the outcome of a poll."""
    is_asked: bool = False
    """Whether its running poll was asked for."""
    missed_mark: bool = False
    """Whether an aligned poll was due while a poll ran that was asked for."""
    outcome: asyncio.Future[Attempt] | None = None
    """The outcome of the poll that ends next, for those who wait for it."""

    def due_on_demand(self, now: float) -> float | None:
        """When a poll that is asked for now may start. None: the next poll comes soon enough.

        The next aligned poll comes in any case. If it comes soon, it is the one.
        """
        due = max(now, self.started + self.camera.min_interval_s)
        latest = self.due - self.camera.min_interval_s if self.camera.align else self.due
        return due if due < latest else None

    def waits_for_its_mark(self, now: float) -> bool:
        """Whether it is aligned, and waits for its next mark on the clock, and nobody else does."""
        return (
            self.camera.align
            and not self.failures
            and self.task is None
            and self.due > now
            and self.outcome is None
        )

    def next_outcome(self) -> asyncio.Future[Attempt]:
        """The outcome of the running poll, or of the next one. All who wait for it share it."""
        if self.outcome is None:
            self.outcome = asyncio.get_running_loop().create_future()
        return self.outcome

    def ended(self, attempt: Attempt) -> None:
        """Tell those who wait how the poll ended."""
        outcome, self.outcome = self.outcome, None
        if outcome is not None:
            outcome.set_result(attempt)

    def gave_up(self) -> None:
        """Tell those who wait that no poll comes."""
        outcome, self.outcome = self.outcome, None
        if outcome is not None:
            outcome.set_exception(NotPolledError(f"{self.camera.id} is not polled any more"))
            outcome.exception()  # marks it as retrieved: all may have left

    def freshness(self, now: float) -> Freshness:
        """The freshness of the newest picture that was published since the start."""
        return FreshnessLimits.of(self.camera.interval_s).judge(
            None if self.fresh_at is None else now - self.fresh_at
        )

    @property
    def poll_group(self) -> str:
        """The state of the camera by its newest polls: a key of SLOT_DIVISORS."""
        return (
            "failing"
            if self.failures or self.busy
            else "healthy"
            if self.fresh_at is not None
            else "new"
        )

    def statistics(self, now: float) -> CameraPolling:
        """A frozen copy."""
        return CameraPolling(
            self.camera.id,
            self.camera.interval_s,
            self.task is not None,
            self.due - now,
            self.failures,
            self.skipped,
            dict(self.results),
        )


@dataclass(frozen=True, slots=True)
class CameraPolling:
    """Frozen statistics of one camera's schedule. Counters run since the start.

    `due_in_s` is negative while the camera is late.
    """

    camera: str
    interval_s: float
    running: bool
    due_in_s: float
    failures: int
    skipped: int
    results: dict[Result, int]


@dataclass(frozen=True, slots=True)
class PollingStatistics:
    """Frozen statistics of the schedule. Counters run since the start, times are in seconds."""

    cameras: int
    fresh: int
    failing: int
    running: int
    polls: int
    skipped: int
    lateness: Mapping[str, LatenessStatistics]
    """By the poll group of the camera when the poll started. Failing cameras wait for healthy ones.
    """

    @classmethod
    def of(
        cls,
        entries: Collection[Entry],
        now: float,
        *,
        running: int,
        skipped: int,
        lateness: Mapping[str, Lateness],
    ) -> PollingStatistics:
        """The statistics at this moment."""
        return cls(
            len(entries),
            sum(entry.freshness(now) is Freshness.FRESH for entry in entries),
            sum(entry.failures > 0 for entry in entries),
            running,
            sum(of_group.polls for of_group in lateness.values()),
            skipped,
            {group: of_group.statistics() for group, of_group in lateness.items()},
        )
