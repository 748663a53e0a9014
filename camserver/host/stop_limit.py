"""The limit of an orderly stop: after it, the process ends, and says what it was waiting for.

A disk that hangs blocks a thread, and no task can cancel that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

FLUSH_S = 0.1
"""The time in which the line is written."""


class StopLimit:
    """A timer in its own thread. `waits_for` is the step of the stop that runs now."""

    def __init__(self, say: Callable[[str, float], None]) -> None:
        """`say` gets `waits_for` and the limit in seconds. It is called in the timer's thread."""
        self.waits_for = "the start"
        self._say = say
        self._timer: threading.Timer | None = None

    def start(self, limit_s: float) -> None:
        """Let the process end after `limit_s` seconds. Later calls change nothing."""
        if self._timer is None:
            self._timer = threading.Timer(limit_s, self._end, (limit_s,))
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        """The stop is complete."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, limit_s: float) -> None:
        self._say(self.waits_for, limit_s)
        time.sleep(FLUSH_S)
        os._exit(1)
