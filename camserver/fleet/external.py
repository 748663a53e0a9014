"""The leases of programs in a fleet: what one epoch of a host does about their records. Pure.

A program runs on one host. The owner of the device, the same host or another one, gives the lease:

    owner:    writes the record, then answers          (`grant`)
    host:     notes in the record how the session ended (`ended`)
    owner:    counts that, and removes the record       (`counted`)

When the epoch of the program's host is over, the program has no session any more, because its host
or the kernel has ended it. A new owner finds the records of the device, and counts their sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from camserver.fleet.mirror import Known, Mirror
from camserver.fleet.orders import Order, Purpose
from camserver.fleet.records import ENDED, ExternalRecord
from camserver.fleet.store import Swap
from camserver.model import SessionEnd


class LeaseName(NamedTuple):
    """A lease of a program. The host of the program draws its number."""

    device: str
    number: str


class Externals:
    """The records of such leases that concern one host: its programs', and those of its devices."""

    def __init__(self, host: str, epoch: int, mirror: Mirror) -> None:
        self.news: set[LeaseName] = set()
        """Leases whose records may have changed, until the driver looks at them."""
        self.lent: dict[LeaseName, ExternalRecord | None] = {}
        """The leases whose sessions count on devices of this host. None: it cannot be read."""
        self._host = host
        self._epoch = epoch
        self._mirror = mirror
        self._stale: set[LeaseName] = set()
        self._ours: set[LeaseName] = set()  # asked for by programs of this host
        self._ended: dict[LeaseName, SessionEnd] = {}
        self._withdrawn: dict[LeaseName, str] = {}
        self._counted: set[LeaseName] = set()
        self._pending: set[LeaseName] = set()  # a swap about them is on its way
        self._homeless: set[LeaseName] = set()  # their host has no record
        self._made: list[tuple[int, Order]] = []  # swaps that the mirror does not show yet

    def record(self, name: LeaseName) -> ExternalRecord | None:
        """The record of a lease. None when it is not there, or cannot be read."""
        return self._mirror.external(*name)

    def of_device(self, device: str) -> list[LeaseName]:
        """The leases of a device that have a record."""
        return [LeaseName(device, number) for number in self._mirror.externals.get(device, ())]

    def of_cameras(self, cameras: Iterable[str]) -> list[LeaseName]:
        """The leases of cameras that have a record, whatever their device was then."""
        by_camera = self._mirror.externals_of
        return [LeaseName(*each) for camera in cameras for each in by_camera.get(camera, ())]

    def has_seen(self, revision: int) -> bool:
        """Whether the mirror shows what the store had at a revision."""
        return self._mirror.revision >= revision

    def knows(self, record: ExternalRecord) -> bool:
        """Whether the host of a program is there, in the epoch that its question names."""
        host = self._mirror.host(record.host)
        return host is not None and host.epoch == record.epoch and host.state not in ENDED

    def ends_within_s(self, now: float) -> float:
        """How long any program may go on whose record is lost."""
        return max(self._mirror.terms.valid_s, self._mirror.holds.over_at() - now)

    def exists(self, name: LeaseName) -> bool:
        """Whether a lease has a record, even one that cannot be read."""
        return name.number in self._mirror.externals.get(name.device, ())

    @property
    def is_empty(self) -> bool:
        """Whether no program of this host may have a session.

        A lease without a record was not told to its program.
        """
        records = (self.record(name) for name in self._ours)
        return all(record is None or record.ended is not None for record in records)

    # ---- what happened in the store

    def changed(self, names: Iterable[LeaseName]) -> None:
        """Note that records have changed."""
        names = set(names)
        self._stale |= names
        self.news |= names
        self._homeless |= {name for name in names if self._has_missing_host(name)}

    def host_changed(self, host: str) -> None:
        """Note that the life of a host has changed."""
        self.changed(name for name in self._all() if self._is_of(name, host))

    def read_anew(self) -> None:
        """Note that the mirror was replaced."""
        self.changed((*self._all(), *self._ours, *self.lent))

    def _all(self) -> Iterator[LeaseName]:
        for device in self._mirror.externals:
            yield from self.of_device(device)

    def _is_of(self, name: LeaseName, host: str) -> bool:
        record = self.record(name)
        return record is not None and record.host == host

    # ---- the host of the program

    def expect(self, name: LeaseName) -> None:
        """Note that a program of this host is about to ask for a lease."""
        self._ours.add(name)

    def ended(self, name: LeaseName, end: SessionEnd) -> None:
        """Note that the session of a program of this host has ended. NONE: it had none.

        A program is told of its lease only after the mirror has shown the record.
        """
        if name in self._ours:
            self._ended[name] = end
            self._stale.add(name)

    # ---- the owner of the device

    def grant(self, name: LeaseName, record: ExternalRecord) -> Swap | None:
        """The swap that makes a lease. None when this host does not own the device.

        It is not made when the device has got another owner meanwhile. So who takes a device finds
        every lease that was ever made.
        """
        known = self._mirror.owners.get(name.device)
        own = self._mirror.owner(name.device)
        if known is None or own is None or not own.held:
            return None
        if (own.host, own.epoch) != (self._host, self._epoch):
            return None
        keys = self._mirror.keys
        key = keys.external(*name)
        return Swap({keys.own(name.device): known.revision, key: 0}, {key: record.encode()})

    def withdraw(self, name: LeaseName, why: str) -> None:
        """Ask the program to end its session.

        When somebody has removed the record, it is written again: its host must say the end.
        """
        self._withdrawn[name] = why
        self._stale.add(name)

    def is_over(self, name: LeaseName, now: float) -> bool:
        """Whether the session has ended for sure: its host says so, or its host is dead."""
        record = self.record(name)
        if record is None:
            return not self.exists(name)
        if record.ended is not None:
            return True
        return self._mirror.epoch_is_over(record.host, record.epoch, now)

    def counted(self, name: LeaseName) -> None:
        """Note that this host, the owner, counts the cool-down of the ended session."""
        self._counted.add(name)
        self._stale.add(name)

    # ---- swaps

    def orders(self, now: float) -> Iterator[Order]:
        """The swaps to make now."""
        self._look_at_made()
        self._look_at_missing(now)
        stale, self._stale = self._stale, set()
        for name in stale:
            if name in self._pending:
                continue  # it is looked at again when that is done
            order = self._order_about(name) if self.exists(name) else self._restore(name)
            if order is not None:
                self._pending.add(name)
                yield order

    def _look_at_made(self) -> None:
        made, self._made = self._made, []
        for revision, order in made:
            if revision <= self._mirror.revision:
                self.done(order)
            else:
                self._made.append((revision, order))

    def _look_at_missing(self, now: float) -> None:
        """A host without a record is dead after some time. No change of the store tells that."""
        for name in list(self._homeless):
            is_missing = self._has_missing_host(name)
            if is_missing and not self.is_over(name, now):
                continue
            self._homeless.discard(name)
            self.news.add(name)

    def _has_missing_host(self, name: LeaseName) -> bool:
        record = self.record(name)
        return record is not None and record.host not in self._mirror.hosts

    def _restore(self, name: LeaseName) -> Order | None:
        """Write a record again that somebody has removed, or forget what has no record any more."""
        self._counted.discard(name)
        if self._ended.pop(name, None) is not None:
            self._ours.discard(name)
        why, record = self._withdrawn.get(name), self.lent.get(name)
        if name not in self.lent:
            self._withdrawn.pop(name, None)
        if why is None or record is None:
            return None
        swap = self.grant(name, record.model_copy(update={"withdrawn": why}))
        return None if swap is None else Order(Purpose.WITHDRAW, name, swap)

    def _order_about(self, name: LeaseName) -> Order | None:
        known = self._mirror.externals[name.device][name.number]
        record = known.record
        if not isinstance(record, ExternalRecord):
            return None
        is_ours = (record.host, record.epoch) == (self._host, self._epoch)
        if is_ours and record.ended is None:
            end = self._ended.get(name, None if name in self._ours else _end_of_unknown(record))
            if end is not None:
                return self._change(Purpose.END, name, known, record, {"ended": end})
        if name in self._counted and not self._is_of_another(name.device):
            key = self._mirror.keys.external(*name)
            return Order(Purpose.REMOVE, name, Swap({key: known.revision}, {key: None}))
        why = self._withdrawn.get(name)
        if why is not None and record.ended is None and not record.withdrawn:
            return self._change(Purpose.WITHDRAW, name, known, record, {"withdrawn": why})
        return None

    def _is_of_another(self, device: str) -> bool:
        """Whether another host counts the sessions of a device. It removes the record, too."""
        own = self._mirror.owner(device)
        return own is not None and own.held and own.host != self._host

    def _change(
        self,
        purpose: Purpose,
        name: LeaseName,
        known: Known,
        record: ExternalRecord,
        changes: dict[str, object],
    ) -> Order:
        key = self._mirror.keys.external(*name)
        data = record.model_copy(update=changes).encode()
        return Order(purpose, name, Swap({key: known.revision}, {key: data}))

    def committed(self, order: Order, revision: int) -> None:
        """Note that a swap was made. Its lease is looked at when the mirror shows it."""
        if revision > self._mirror.revision:
            self._made.append((revision, order))
        else:
            self.done(order)

    def done(self, order: Order) -> None:
        """Note that a swap is over, however it ended: its lease is looked at again."""
        name = LeaseName(*order.about)
        self._pending.discard(name)
        self._stale.add(name)


def _end_of_unknown(record: ExternalRecord) -> SessionEnd:
    """How the session of a lease has ended that no program of this host has.

    The program never heard of it: nobody asked for it any more when it was made. But a lease that
    was withdrawn may have had a record before, which somebody has removed.
    """
    return SessionEnd.UNCLEAN if record.withdrawn else SessionEnd.NONE
