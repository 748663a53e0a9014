"""When a camera's picture is fresh, late or stale: the one definition, for everybody who judges.

`status`, systemd's status, the wall, metrics, alerts and the dashboard use these limits. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LATE_INTERVALS, LATE_S = 2, 5.0
STALE_INTERVALS, STALE_S = 4, 15.0
"""A picture is late after two intervals, stale after four.

Both with some patience for slow cameras.
"""


class Freshness(StrEnum):
    """How old a camera's newest picture is, by the camera's own interval; the worst first."""

    NEVER = "never"
    STALE = "stale"
    LATE = "late"
    FRESH = "fresh"

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return list(Freshness).index(self)


@dataclass(frozen=True, slots=True)
class FreshnessLimits:
    """Ages in seconds from which on a picture is late and stale."""

    late_after_s: float
    stale_after_s: float

    @classmethod
    def of(cls, interval_s: float) -> FreshnessLimits:
        """For a camera with a picture every `interval_s` seconds."""
        return cls(LATE_INTERVALS * interval_s + LATE_S, STALE_INTERVALS * interval_s + STALE_S)

    def judge(self, age_s: float | None) -> Freshness:
        """Of a picture of this age; None means that there is no picture."""
        if age_s is None:
            return Freshness.NEVER
        if age_s > self.stale_after_s:
            return Freshness.STALE
        return Freshness.LATE if age_s > self.late_after_s else Freshness.FRESH
