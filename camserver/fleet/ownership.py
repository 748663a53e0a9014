"""Whose a device is, and what this host should do about it. Pure.

`own` changes hands only when it is free, or when the epoch of its owner is over (invariant 5). A
session is opened only on a device that is ours in our present epoch (invariant 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from camserver.fleet.mirror import Mirror
from camserver.fleet.records import OwnRecord

T = TypeVar("T")


class Standing(StrEnum):
    """Whose a device is, from the point of view of one host in one epoch."""

    OURS = "ours"
    FREE = "free"
    ANOTHER = "another host's"
    ORPHAN = "of a host that is dead"


@dataclass(frozen=True, slots=True)
class Take:
    """Make a device ours, by swapping the record of this revision (0: there is none).

    `lost`: the last owner died with it, so how many sessions it had is not known.
    """

    device: str
    revision: int
    last: OwnRecord | None
    lost: bool
    seen_at: float
    """The moment from which the durations of `last` are counted."""


def standing(mirror: Mirror, device: str, host: str, epoch: int, now: float) -> Standing:
    """Whose a device is, for a host in its present epoch."""
    known = mirror.owners.get(device)
    if known is None:
        return Standing.FREE
    own = known.record
    if not isinstance(own, OwnRecord):  # it cannot be read
        return Standing.ANOTHER
    if not own.held:
        return Standing.FREE
    if own.host == host:
        # A record of an earlier epoch of ours: we have died since, so it is an orphan
        return Standing.OURS if own.epoch == epoch else Standing.ORPHAN
    if mirror.epoch_is_over(own.host, own.epoch, now):
        return Standing.ORPHAN
    return Standing.ANOTHER


def take_of(mirror: Mirror, device: str, what: Standing, now: float) -> Take:
    """How to take a device that is free or an orphan."""
    known, own = mirror.owners.get(device), mirror.owner(device)
    lost, seen_at = what is Standing.ORPHAN, now
    if own is not None and lost:
        seen_at = mirror.over_since(own.host, own.epoch, now)
    return Take(device, 0 if known is None else known.revision, own, lost, seen_at)


def batches(things: Iterable[T], most: int) -> Iterator[list[T]]:
    """What is swapped together. A store limits how many keys one swap may have."""
    batch: list[T] = []
    for thing in things:
        batch.append(thing)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch
