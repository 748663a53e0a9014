"""Hysteresis: what is seen once is no suspicion, and what is not seen once does not end it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

FEWEST = 3
"""A suspicion needs so many pictures, however long they are apart."""
CLEAR = 2
"""So many pictures that look well end it."""
CLEAR_SHARE = 0.25
"""They also span this share of the time after which it is a suspicion."""


@dataclass(slots=True)
class Evidence:
    """What speaks for one fault. Moments `_s` are of a clock that nobody sets."""

    is_suspected: bool = False
    since: datetime | None = None
    """When it was seen first."""
    since_s: float = 0.0
    pictures: int = 0
    clear: int = 0
    clear_s: float = 0.0

    def see(self, speaks: bool | None, at: datetime, now: float, after_s: float) -> None:
        """Take a picture of the moment `at` into account, which was `now`.

        `speaks` is whether it shows the fault. None: it does not tell.
        """
        if speaks is None:
            return
        if speaks:
            self._shown(at, now, after_s)
        elif self.pictures or self.is_suspected:
            self._not_shown(now, after_s)

    def _shown(self, at: datetime, now: float, after_s: float) -> None:
        self.clear = 0
        if not self.pictures and not self.is_suspected:
            self.since, self.since_s = at, now
        self.pictures += 1
        self.is_suspected |= self.pictures >= FEWEST and now - self.since_s >= after_s

    def _not_shown(self, now: float, after_s: float) -> None:
        if not self.clear:
            self.clear_s = now
        self.clear += 1
        if self.clear < CLEAR:
            return
        if not self.is_suspected or now - self.clear_s >= after_s * CLEAR_SHARE:
            self.end()

    def end(self) -> None:
        """End it: it is proven that the fault is not there."""
        self.is_suspected, self.since, self.pictures, self.clear = False, None, 0, 0
