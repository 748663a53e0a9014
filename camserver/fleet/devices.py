"""The devices of one host in one epoch: which are its own, which it takes, which it hands over.

Pure: the mirror and `now` go in, swaps come out. Costs grow with what changes, not with the fleet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from camserver.fleet.mirror import Mirror
from camserver.fleet.orders import Order, Purpose, Remains
from camserver.fleet.ownership import Standing, Take, batches, standing, take_of
from camserver.fleet.records import OwnRecord
from camserver.fleet.store import Swap
from camserver.fleet.terms import FleetTerms

DEVICES_A_SWAP = 60
"""etcd accepts 128 operations in one swap by default; each device has a condition, too."""
TAKES_AT_ONCE = 4
"""Swaps of devices that are on their way at the same time."""


class Devices:
    """What one epoch of a host does about devices."""

    def __init__(self, host: str, epoch: int, mirror: Mirror, terms: FleetTerms) -> None:
        self.owned: set[str] = set()
        """The devices that are ours."""
        self.handing_over: set[str] = set()
        """Devices of ours that another host should have: their sessions must end."""
        self.acquired: deque[Take] = deque()
        """Devices that have become ours, until the driver takes them over."""
        self.lost: deque[str] = deque()
        """Devices that are not ours any more without a hand-over, until the driver ends them."""
        self._host = host
        self._epoch = epoch
        self._mirror = mirror
        self._terms = terms
        self._is_leaving = False
        self._wanted: Mapping[str, str | None] | None = None  # None: not known yet
        self._stale: set[str] = set()  # to be looked at again
        # Devices that should be ours, and since when we know that they have no record
        self._unrecorded: dict[str, float] = {}
        self._takes: dict[str, Take] = {}  # should be ours, and are not
        self._taken: dict[str, Take] = {}  # how they were taken whose swap may be committed
        self._remains: dict[str, Remains] = {}
        self._orders: set[Order] = set()
        self._pending: set[str] = set()  # devices that an order is about
        self._made: list[tuple[int, Order]] = []  # swaps that the mirror does not show yet

    @property
    def is_empty(self) -> bool:
        """Whether no device is ours, or may become ours by a swap that is on its way."""
        return not (self.owned or self._orders or self._made)

    # ---- what happened

    def want(self, wanted: Mapping[str, str | None]) -> None:
        """Set the assignment: the host that should have each device."""
        before, self._wanted = self._wanted or {}, wanted
        self._stale |= {d for d, host in wanted.items() if before.get(d) != host}
        self._stale |= before.keys() - wanted.keys()

    def leave(self) -> None:
        """Hand over everything, and take nothing more."""
        self._is_leaving = True
        self._stale |= self.owned

    @property
    def to_end(self) -> set[str]:
        """The devices that are handed over and whose sessions have not ended yet."""
        return self.handing_over - self._remains.keys()

    def ended(self, device: str, remains: Remains) -> None:
        """Note that all sessions of a device that is handed over have ended."""
        if device in self.handing_over:
            self._remains[device] = remains

    def read_anew(self) -> None:
        """Note that the mirror was replaced."""
        self._stale |= self._mirror.owners.keys() | self.owned | (self._wanted or {}).keys()

    def changed(self, devices: Iterable[str]) -> None:
        """Note that the records of devices, or of their owners, have changed."""
        self._stale.update(devices)

    def look(self, now: float) -> None:
        """Find out what has become of the devices that may have changed."""
        made, self._made = self._made, []
        for revision, order in made:
            if revision <= self._mirror.revision:
                self.done(order)
            else:
                self._made.append((revision, order))
        stale, self._stale = self._stale, set()
        for device in stale:
            self._look_at(device, now)
        self._look_at_unrecorded(now)

    def _look_at(self, device: str, now: float) -> None:
        what = standing(self._mirror, device, self._host, self._epoch, now)
        target = None if self._wanted is None else self._wanted.get(device)
        self._takes.pop(device, None)
        if target != self._host or device in self._mirror.owners:
            self._unrecorded.pop(device, None)
        if what is Standing.OURS:
            self._own(device)
            if self._is_leaving or (self._wanted is not None and target != self._host):
                self.handing_over.add(device)
            return
        if device in self.owned and device not in self._remains:
            self.lost.append(device)
        self.owned.discard(device)
        self.handing_over.discard(device)
        self._remains.pop(device, None)
        if target != self._host:
            return
        if device not in self._mirror.owners:
            self._unrecorded.setdefault(device, now)
        elif what in (Standing.FREE, Standing.ORPHAN):
            self._takes[device] = take_of(self._mirror, device, what, now)
        elif self._owner_is_missing(device):
            self._stale.add(device)  # until its owner has been missing for W

    def _own(self, device: str) -> None:
        if device not in self.owned:
            self.owned.add(device)
            if (take := self._taken.pop(device, None)) is not None:
                self.acquired.append(take)

    def _owner_is_missing(self, device: str) -> bool:
        own = self._mirror.owner(device)
        return own is not None and own.host not in self._mirror.hosts

    def _look_at_unrecorded(self, now: float) -> None:
        """Take devices without a record when nobody can have a right to them any more.

        The record may have been removed a moment ago, and its owner may not know it yet. Or a
        reload gives a device another name, and its owner has not read the inventory yet.
        """
        limit_s = self._mirror.silence_s if self._unrecorded else 0.0
        for device, since in self._unrecorded.items():
            if now - since <= limit_s or now <= self._mirror.holds.over_at():
                break  # they are in the order of time
            if device not in self._takes:
                self._takes[device] = take_of(self._mirror, device, Standing.FREE, now)

    # ---- swaps

    def orders(self) -> Iterator[Order]:
        """The swaps to make now. Each is given once."""
        yield from self._frees()
        if not self._is_leaving:
            yield from self._take_orders()

    def committed(self, order: Order, revision: int) -> None:
        """Note that a swap was made. Its devices are looked at when the mirror shows it."""
        if revision > self._mirror.revision:
            self._orders.discard(order)
            self._made.append((revision, order))
        else:
            self.done(order)

    def done(self, order: Order) -> None:
        """Note that a swap is over, however it ended: its devices are looked at again."""
        self._orders.discard(order)
        self._pending.difference_update(order.about)
        self._stale.update(order.about)

    def _order(self, purpose: Purpose, about: Iterable[str], swap: Swap) -> Order:
        order = Order(purpose, tuple(about), swap)
        self._orders.add(order)
        self._pending.update(order.about)
        return order

    def _frees(self) -> Iterator[Order]:
        own, owners = self._mirror.keys.own, self._mirror.owners
        ended = [d for d in self._remains if d in owners and d not in self._pending]
        for batch in batches(ended, DEVICES_A_SWAP):
            swap = Swap(
                {own(device): owners[device].revision for device in batch},
                {own(device): self._free_record(device).encode() for device in batch},
            )
            yield self._order(Purpose.FREE, batch, swap)

    def _free_record(self, device: str) -> OwnRecord:
        remains = self._remains[device]
        return OwnRecord(
            host=self._host,
            epoch=self._epoch,
            held=False,
            cooling_s=remains.cooling_s,
            learned_cap=remains.learned_cap,
            learned_s=remains.learned_s,
            due_s=dict(remains.due_s),
        )

    def _take_orders(self) -> Iterator[Order]:
        under_way = sum(order.purpose is Purpose.TAKE for order in self._orders)
        takes = (take for take in self._takes.values() if take.device not in self._pending)
        own = self._mirror.keys.own
        mine = OwnRecord(host=self._host, epoch=self._epoch, held=True).encode()
        room = max(0, TAKES_AT_ONCE - under_way)
        for batch in list(islice(batches(takes, DEVICES_A_SWAP), room)):
            self._taken |= {take.device: take for take in batch}
            swap = Swap(
                {own(take.device): take.revision for take in batch},
                {own(take.device): mine for take in batch},
            )
            yield self._order(Purpose.TAKE, (take.device for take in batch), swap)
