"""The hours at which it is usually dark at a camera: a black picture is nothing new then."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

SHORTEST_S, LONGEST_S = 2 * 3600.0, 18 * 3600.0
"""A night lasts longer than the one and shorter than the other. Else it is a fault."""
LIT_S = 600.0
"""It ends when it is not dark for so long: a car or a lamp does not end it."""
APART_S = 12 * 3600.0
"""Two nights end so far apart, at least."""
FORGOTTEN_S = 30 * 86_400.0
NIGHTS = 2
"""An hour is usually dark after so many nights."""


@dataclass(slots=True)
class DarkHours:
    """The hours of the day (UTC) at which the picture was black for a night."""

    ends: dict[int, list[float]] = field(default_factory=dict)
    """For each hour the ends of the newest nights, in seconds since 1970."""
    since: datetime | None = None
    """When it became dark. None: it is not dark."""
    hours: set[int] = field(default_factory=set)
    """The hours since then."""
    lit: datetime | None = None
    """Since when it is not dark any more, perhaps for a moment only."""

    def dark(self, at: datetime) -> None:
        """It is dark."""
        self.since, self.lit = self.since or at, None
        self.hours.add(at.hour)

    def light(self, at: datetime) -> None:
        """It is not dark, or not any more."""
        self.lit = self.lit or at
        if self.since is None or _seconds(self.lit, at) < LIT_S:
            return
        if SHORTEST_S <= _seconds(self.since, self.lit) <= LONGEST_S:
            end = self.lit.timestamp()
            for hour in self.hours:
                # A later end is of a clock that was wrong
                nights = [earlier for earlier in self.ends.get(hour, []) if earlier < end]
                if not nights or end - nights[-1] >= APART_S:
                    self.ends[hour] = [*nights, end][-NIGHTS:]
        self.since = None
        self.hours.clear()

    def is_usual(self, at: datetime) -> bool:
        """Whether it was dark about this hour on earlier nights, and when this night began."""
        if self.since is not None and _seconds(self.since, at) > LONGEST_S:
            return False
        return self._is_night(at) and self._is_night(self.since or at)

    def _is_night(self, at: datetime) -> bool:
        moment = at.timestamp()
        return any(
            len(nights) == NIGHTS and 0 < moment - nights[-1] < FORGOTTEN_S
            for near in (-1, 0, 1)
            if (nights := self.ends.get((at.hour + near) % 24))
        )


def _seconds(since: datetime, at: datetime) -> float:
    return (at - since).total_seconds()
