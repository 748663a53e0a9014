"""Wall-clock time and its text format.

Schedules do not use it: they use the event loop's monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

WallClock = Callable[[], datetime]
Seconds = Callable[[], float]
"""A clock that gives seconds."""


def boot_time() -> float:
    """Seconds since the machine was started. Nobody can set this clock; suspends count."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def utc_now() -> datetime:
    """The current time as an aware datetime in UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """`moment` in RFC 3339, in UTC with milliseconds, e.g. 2026-01-04T09:30:00.250Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
