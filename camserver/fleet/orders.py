"""What one epoch of a host is doing, and the swaps that it wants to be made. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from camserver.fleet.store import Swap


class Phase(StrEnum):
    """The life of one epoch of this host."""

    JOINING = "joining"
    LIVE = "live"
    LEAVING = "leaving"
    LEFT = "left"
    FENCED = "fenced"
    """It lost its place. `FleetHost.fenced` says why. A new epoch must join."""


class Fenced(StrEnum):
    """Why an epoch is over that did not leave by itself. For a person."""

    DECLARED_DEAD = "another host has declared this one dead"
    NAME_TAKEN = "another host has taken its name"
    RECORD_REMOVED = "its record was removed from the store, or cannot be read"
    HISTORY_CHANGED = "the store has lost changes: it was restored, or it is another one"


class Purpose(StrEnum):
    """What a swap is for."""

    RENEW = "renew"
    BURY = "bury"
    TAKE = "take"
    FREE = "free"
    END = "end"
    """A program's session has ended."""
    REMOVE = "remove"
    """The record of a program's ended session is not needed any more."""
    WITHDRAW = "withdraw"
    """A program must end its session."""


OF_PROGRAMS = frozenset((Purpose.END, Purpose.REMOVE, Purpose.WITHDRAW))


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A swap to make. `about` are the hosts or devices that it is about, or a program's lease."""

    purpose: Purpose
    about: tuple[str, ...]
    swap: Swap
    sequence: int = 0
    """The sequence number of a renewal."""


@dataclass(frozen=True, slots=True)
class Remains:
    """How this host leaves a device when all its sessions have ended."""

    cooling_s: tuple[float, ...] = ()
    learned_cap: int | None = None
    learned_s: float = 0.0
    due_s: Mapping[str, float] = field(default_factory=dict)
