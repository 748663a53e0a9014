"""The store of a fleet, as the protocol sees it: keys with revisions, and atomic swaps.

etcd is one such store. The fleet needs nothing that another consistent store could not give.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """The value of a key, and the store's revision at its last change."""

    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys below a prefix at one revision of the store."""

    revision: int
    entries: Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Change:
    """What happened up to a revision. `entries` has None for a key that was removed.

    A change without entries is a heartbeat: the watch is alive, and nothing has changed.
    """

    revision: int
    entries: Mapping[str, Entry | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Swap:
    """Changes that are made together, or not at all.

    `expected` has the revision that each key must still have; 0 for a key that must not exist.
    `changes` has the new values; None removes a key.
    """

    expected: Mapping[str, int]
    changes: Mapping[str, bytes | None]


class StoreError(Exception):
    """Raised when the store could not do something. The text says why, without secrets.

    Nothing was changed.
    """


class StoreUnknownError(StoreError):
    """Raised when it is not known whether a swap was made, or will be made later."""


class FleetStore(Protocol):
    """A consistent store. All methods are linearizable: they see every committed change before."""

    async def read(self, prefix: str) -> Snapshot:
        """All keys below a prefix. Raises StoreError."""

    async def swap(self, swap: Swap) -> int | None:
        """Make a swap. Returns its revision, or None when a key was not as expected.

        Raises StoreError when it was not made, StoreUnknownError when that is not known.
        """

    def watch(self, prefix: str, after: int) -> AsyncIterator[Change]:
        """All changes after a revision, in order, with heartbeats. Ends with StoreError.

        Raises StoreError also when the changes are not kept any more: the reader must read anew.
        """
