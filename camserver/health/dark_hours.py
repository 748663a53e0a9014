"""The hours at which it is usually dark at a camera: a black picture is nothing new then."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

EARLIER_S = 4 * 3600.0
"""An hour is usually dark when that ended so long ago at least: a fault may come and go."""
FORGOTTEN_S = 30 * 86_400.0


@dataclass(slots=True)
class DarkHours:
    """The hours of the day (UTC) at which the picture was black, and was not black later."""

    ended: dict[int, float] = field(default_factory=dict)
    """For each such hour the end of that darkness, in seconds since 1970."""
    now_dark: set[int] = field(default_factory=set)

    def dark(self, at: datetime) -> None:
        """It is dark."""
        self.now_dark.add(at.hour)

    def light(self, at: datetime) -> None:
        """It is not dark, or not any more."""
        if self.now_dark:
            self.ended |= dict.fromkeys(self.now_dark, at.timestamp())
            self.now_dark.clear()

    def is_usual(self, at: datetime) -> bool:
        """Whether it was dark about this hour on an earlier day."""
        ends = (self.ended.get((at.hour + near) % 24) for near in (-1, 0, 1))
        moment = at.timestamp()
        return any(end and EARLIER_S < moment - end < FORGOTTEN_S for end in ends)
