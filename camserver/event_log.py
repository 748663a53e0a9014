"""EventLog: which events become lines of the log.

A line that nobody can read is worth nothing: with thousands of cameras three lines for each good
poll are hundreds a second, and journald drops lines without a choice. So routine lines are written
while they are few. When they are many, a summary each minute stands for them. Changes of state are
always lines. All events are in `/v1/events`, whatever the log does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from camserver.config import Inventory
from camserver.events import (
    Event,
    LeaseAcquired,
    LeaseReleased,
    Listener,
    LogDetailed,
    LogSummarised,
    PollFailed,
    PollSkipped,
    SnapshotPublished,
    StopForced,
)

WINDOW_S = 10.0
MANY_A_SECOND = 10.0
"""More routine lines than this, for WINDOW_S, are summarised."""
FEW_A_SECOND = 5.0
CALM_WINDOWS = 6
"""After so many windows with fewer lines than FEW_A_SECOND, lines are written one by one again."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened since the last summary."""

    pictures: int = 0
    failures: int = 0


class EventLog:
    """A listener that writes events to the log, through `write`."""

    def __init__(
        self,
        write: Listener,
        set_level: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_summarised = False
        self._write = write
        self._set_level = set_level
        self._clock = clock
        self._window_end = clock() + WINDOW_S
        self._in_window = 0
        self._calm_windows = 0
        self._pictures = self._failures = 0
        # The result of each camera's last poll: a change of it is always a line
        self._results: dict[str, str] = {}

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over the level of a new inventory."""
        self._set_level(inventory.log.level)
        cameras = {camera.id for camera in inventory.cameras}
        self._results = {c: result for c, result in self._results.items() if c in cameras}
        return ()

    def __call__(self, event: Event) -> None:
        """Write an event, or only count it."""
        if not self._is_routine(event):
            self._write(event)
            return
        self._count()
        if not self.is_summarised:
            self._write(event)

    def say_stop_forced(self, what: str, limit_s: float) -> None:
        """Write that the stop took too long. It is called in another thread, at the very end."""
        self._write(StopForced(what=what, limit_s=limit_s))

    def take_counts(self) -> Counts:
        """The counts since the last call."""
        counts = Counts(self._pictures, self._failures)
        self._pictures = self._failures = 0
        return counts

    def _is_routine(self, event: Event) -> bool:
        match event:
            case SnapshotPublished():  # a recovery has an event of its own
                self._pictures += 1
                self._results.pop(event.camera, None)
                return True
            case PollFailed():
                self._failures += 1
                # Busy is no state of the camera: another program had its session
                return event.result == "busy" or not self._changes(event.camera, event.result)
            case LeaseAcquired() | LeaseReleased() | PollSkipped():
                return True
        return False

    def _changes(self, camera: str, result: str) -> bool:
        """Whether a camera fails in another way than before."""
        before = self._results.get(camera)
        self._results[camera] = result
        return result != before

    def _count(self) -> None:
        now = self._clock()
        if now >= self._window_end:
            windows = 1 + int((now - self._window_end) // WINDOW_S)  # some may have been empty
            is_calm = self._in_window < FEW_A_SECOND * WINDOW_S
            self._calm_windows = self._calm_windows + windows if is_calm else windows - 1
            self._window_end = now + WINDOW_S
            self._in_window = 0
            if self.is_summarised and self._calm_windows >= CALM_WINDOWS:
                self.is_summarised = False
                self._write(LogDetailed())
        self._in_window += 1
        if not self.is_summarised and self._in_window > MANY_A_SECOND * WINDOW_S:
            self.is_summarised = True
            self._calm_windows = 0
            self._write(LogSummarised(a_second=MANY_A_SECOND))
