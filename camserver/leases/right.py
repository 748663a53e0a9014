"""The right of this host to open sessions. Without a fleet it has the right to all, for ever."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from camserver.leases.http_device import box_of


class Preemption(StrEnum):
    """Why a holder is asked to end its session. For a person."""

    LIVE_WAITS = "live view wants the session"
    NO_RIGHT = "this host may not have sessions of the device any more"


@dataclass(slots=True)
class HostRight:
    """What this host may open, and until when (in seconds of the event loop's clock).

    In a fleet, a host has sessions only of devices that it owns, and only while it is valid.
    """

    in_fleet: bool = False
    owned: set[str] = field(default_factory=set)
    until: float = -math.inf

    def covers(self, device: str, now: float) -> bool:
        """Whether sessions of a device may be opened, or go on."""
        return not self.in_fleet or (box_of(device) in self.owned and now < self.until)


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a device still counts when this host becomes its owner.

    `cooling_until` has the end of the cool-down of each closed session. `cap` sessions were given
    lately, until `cap_until`. Moments are in seconds of the event loop's clock.
    """

    cooling_until: tuple[float, ...] = ()
    cap: int | None = None
    cap_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Remaining:
    """What a device still counts when this host gives it up. Times are durations in seconds."""

    cooling_s: tuple[float, ...] = ()
    cap: int | None = None
    cap_s: float = 0.0
