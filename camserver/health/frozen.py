"""Signs of a camera that stands still: the same coded picture, a clock that stands, no motion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from camserver.health.picture import Picture
from camserver.health.scene import Light

STANDS = 0.1
"""A clock stands when it goes on by less than this share of the time."""
GOES = 5
"""A clock that stands has gone on so often before."""
SHORTEST_S = 1.0
"""Of a shorter time it can't be told whether a clock stands."""
OVERLAY = 0.05
"""A clock in the picture changes a smaller share of it."""
STILL_MOTION = 0.05
"""A picture that stands is coded anew with less motion than this (in levels). The least that a
sensor's noise leaves is about twice as much.
"""
LEAST_MOTION = 0.1
"""Where the usual motion is less (in levels), a picture that stands looks like any other."""
FROZEN_MOTION, ALIVE_MOTION = 0.25, 0.5
"""The share of the usual motion of a picture that stands, and of one that does not."""
LEAST_BYTES = 0.7
"""A picture that is coded with less than this share of the usual bytes has lost its noise."""
MOTION_PICTURES, MOTION_S = 60, 1800.0
"""The usual motion is known after so many pictures in so much time."""
FIRST_CLOCK = datetime.fromisoformat("1968-01-20T03:14:08+00:00")
"""An earlier time is no clock: it is zero, or the time since the camera's start (RFC 3550, 6.4.1).
"""


def clock_of(picture: Picture) -> datetime | None:
    """The camera's clock at the picture. None: it has none, or it is no valid time."""
    if picture.offset_s is None:
        return None
    try:
        clock = picture.at + timedelta(seconds=picture.offset_s)
    except (OverflowError, ValueError):
        return None
    return clock if clock >= FIRST_CLOCK else None


class Moment(NamedTuple):
    """A moment by the wall clock, and by the clock that nobody sets."""

    at: datetime
    now: float


@dataclass(slots=True)
class Repeats:
    """The coded picture, and when it came first."""

    digest: str = ""
    first: Moment | None = None

    def see(self, picture: Picture) -> bool:
        """Whether the camera has sent the picture before this one again."""
        if picture.look.digest == self.digest:
            return True
        self.digest, self.first = picture.look.digest, Moment(picture.at, picture.now)
        return False


@dataclass(slots=True)
class StandingClock:
    """The camera's clock, as it was told last."""

    clock: datetime | None = None
    seen_s: float = 0.0
    gone: int = 0
    """How often it has gone on since it went back. Some clocks begin again with each session."""

    def see(self, picture: Picture) -> bool | None:
        """Whether the clock stands, and the picture, too. None: that can't be told."""
        clock, motion, now = clock_of(picture), picture.look.motion, picture.now
        moves = motion is not None and motion >= STILL_MOTION
        if clock is None or self.clock is None:
            self.clock, self.seen_s = clock, now
            return False if moves else None
        elapsed_s = now - self.seen_s
        if elapsed_s < SHORTEST_S:
            return None
        went_s = (clock - self.clock).total_seconds()
        stands = abs(went_s) < STANDS * elapsed_s
        self.clock, self.seen_s = clock, now
        if not stands:
            self.gone = self.gone + 1 if went_s > 0 else 0
        return stands and self.gone >= GOES and motion is not None and not moves


def is_motionless(picture: Picture, light: Light) -> bool | None:
    """Whether nothing but a small overlay changes where things used to change.

    Also an empty room changes: by the sensor's noise. None: what is usual is not known, or is so
    little that it can't be told apart.
    """
    look = picture.look
    if look.motion is None or look.change is None:
        return None
    if look.change >= OVERLAY:
        return False
    usual = light.motion
    if light.pictures < MOTION_PICTURES or light.seen_s < MOTION_S or usual is None:
        return None
    if usual < LEAST_MOTION or picture.coded_bytes < LEAST_BYTES * light.coded_bytes:
        return None
    if look.motion < min(STILL_MOTION, FROZEN_MOTION * usual):
        return True
    return False if look.motion >= min(2 * STILL_MOTION, ALIVE_MOTION * usual) else None
