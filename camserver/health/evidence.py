"""Hysteresis: what is seen once is no suspicion, and what is not seen once does not end it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from camserver.health.picture import Picture

FEWEST = 3
"""A suspicion needs so many pictures, however long they are apart."""
CLEAR = 2
"""So many pictures that look well end it."""
CLEAR_SHARE = 0.25
"""They also span this share of the time after which it is a suspicion."""
UNTOLD_S = 86_400.0
"""A suspicion ends when no picture tells for so long: the camera has another source."""
GAP_INTERVALS = 3
"""What was seen before a longer gap between pictures does not count any more."""


@dataclass(slots=True)
class Evidence:
    """What speaks for one fault. Moments `_s` are of a clock that nobody sets."""

    is_suspected: bool = False
    since: datetime | None = None
    """When it was seen first."""
    lasted_s: float = 0.0
    """For how long it was seen. Gaps do not count."""
    pictures: int = 0
    last_s: float = 0.0
    told_s: float = 0.0
    """When a picture told last whether the fault is there."""
    clear: int = 0
    clear_s: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing speaks for the fault any more. Then it is like a new one."""
        return not self.is_suspected and not self.pictures

    def see(self, speaks: bool | None, picture: Picture, after_s: float) -> None:
        """Take a picture into account. It is a suspicion after `after_s` seconds.

        `speaks` is whether the picture shows the fault. None: it does not tell.
        """
        gap_s = max(after_s, GAP_INTERVALS * picture.interval_s)
        is_near = 0 <= picture.now - self.last_s <= gap_s
        if not is_near and not self.is_suspected:
            self.end()
        if speaks:
            self._shown(picture, after_s, is_near=is_near)
        elif speaks is False and (self.pictures or self.is_suspected):
            self._not_shown(picture.now, after_s)
        elif speaks is None and self.is_suspected:
            self._go_on(picture.now, is_near=is_near)
        if speaks is not None:
            self.told_s = picture.now
        elif picture.now - self.told_s > UNTOLD_S:
            self.end()

    def _shown(self, picture: Picture, after_s: float, *, is_near: bool) -> None:
        self.clear = 0
        self.since = self.since or picture.at
        self._go_on(picture.now, is_near=is_near and self.pictures > 0)
        self.pictures += 1
        self.is_suspected |= self.pictures >= FEWEST and self.lasted_s >= after_s

    def _go_on(self, now: float, *, is_near: bool) -> None:
        if is_near:
            self.lasted_s += now - self.last_s
        self.last_s = now

    def _not_shown(self, now: float, after_s: float) -> None:
        if not self.clear:
            self.clear_s = now
        self.clear += 1
        if self.clear < CLEAR:
            return
        if not self.is_suspected or now - self.clear_s >= after_s * CLEAR_SHARE:
            self.end()

    def end(self) -> None:
        """End it: it is proven that the fault is not there, or it was seen too long ago."""
        self.is_suspected, self.since, self.lasted_s = False, None, 0.0
        self.pictures, self.clear = 0, 0


NONE = Evidence()
"""The evidence for a fault that was not seen. It is only read."""
