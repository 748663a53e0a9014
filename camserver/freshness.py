"""Defines when a camera's picture is fresh, late or stale.

`status`, systemd's status, the wall, metrics, alerts and the dashboard all use these limits. The
code is pure.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import StrEnum

LATE_INTERVALS, LATE_S = 2, 5.0
STALE_INTERVALS, STALE_S = 4, 15.0
"""A picture is late after two intervals and stale after four.

Both limits have some extra seconds for slow cameras.
"""


class Freshness(StrEnum):
    """The age class of a camera's newest picture, by the camera's interval. The worst is first."""

    NEVER = "never"
    STALE = "stale"
    LATE = "late"
    FRESH = "fresh"

    @property
    def rank(self) -> int:
        """The position in the order of badness: 0 is the worst."""
        return list(Freshness).index(self)


@dataclass(frozen=True, slots=True)
class FreshnessLimits:
    """The ages in seconds after which a picture is late or stale."""

    late_after_s: float
    stale_after_s: float

    @classmethod
    @functools.cache  # a fleet has few intervals, and each look at it asks for every camera
    def of(cls, interval_s: float) -> FreshnessLimits:
        """The limits for a camera with a picture every `interval_s` seconds."""
        return cls(LATE_INTERVALS * interval_s + LATE_S, STALE_INTERVALS * interval_s + STALE_S)

    def judge(self, age_s: float | None) -> Freshness:
        """The freshness of a picture of this age. None means that there is no picture."""
        if age_s is None:
            return Freshness.NEVER
        if age_s > self.stale_after_s:
            return Freshness.STALE
        return Freshness.LATE if age_s > self.late_after_s else Freshness.FRESH
