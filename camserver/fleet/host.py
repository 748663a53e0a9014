"""One epoch of one host of a fleet, without I/O: what happened goes in, swaps to make come out.

Whoever drives it gives it what the store has (`replace`, `apply`), asks for `orders` at each tick
and after each event, makes those swaps, and says what became of them. Times are of one clock of
this machine, which counts in suspend, too.

    joining --record committed--> live --dead, or another epoch--> fenced
    live --leave--> leaving --every device free, record committed--> left
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from camserver.fleet.mirror import ENDED, Mirror
from camserver.fleet.ownership import Standing, Take, batches, standing, take_of
from camserver.fleet.records import HostRecord, HostState, MetaRecord, OwnRecord
from camserver.fleet.silence import Silence
from camserver.fleet.store import Change, Snapshot, Swap
from camserver.fleet.terms import FleetTerms
from camserver.fleet.validity import Validity

DEVICES_A_SWAP = 60
"""etcd accepts 128 operations in one swap by default; each device has a condition, too."""
TAKES_AT_ONCE = 4
"""Swaps of devices that are on their way at the same time."""


class Phase(StrEnum):
    """The life of one epoch of this host."""

    JOINING = "joining"
    LIVE = "live"
    LEAVING = "leaving"
    LEFT = "left"
    FENCED = "fenced"
    """Another host has declared this one dead, or has its name. A new epoch must join."""


class Purpose(StrEnum):
    """What a swap is for."""

    RENEW = "renew"
    BURY = "bury"
    TAKE = "take"
    FREE = "free"


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A swap to make. `about` are the hosts or devices that it is about."""

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


class FleetHost:
    """One epoch of one host. Costs grow with what changes, not with the fleet."""

    def __init__(
        self, name: str, me: HostRecord, mirror: Mirror, terms: FleetTerms, *, vouches: bool = False
    ) -> None:
        """`me` is this host's record with its new epoch. `mirror` is empty, or was just read.

        `vouches`: hosts vouch for each other when the store is away.
        """
        self.name = name
        self.epoch = me.epoch
        self.mirror = mirror
        self.phase = Phase.JOINING
        self.validity = Validity(terms)
        self.silence = Silence(terms)
        self.acquired: deque[Take] = deque()
        """Devices that have become ours, until the driver takes them over."""
        self.handing_over: set[str] = set()
        """Devices of ours that another host should have: their sessions must end."""
        self._me = me
        self._terms = terms
        self._vouches = vouches
        self._joined_at = 0  # the store's revision
        self._my_revision = 0
        self._next_renewal = 0.0
        self._wanted: Mapping[str, str | None] = {}
        self._orders: set[Order] = set()
        self._pending: set[str] = set()  # devices that an order is about
        self._takes: dict[str, Take] = {}  # devices that should be ours, and are not
        self._taken: dict[str, Take] = {}  # how devices were taken whose swap may be committed
        self._owned: set[str] = set()
        self._remains: dict[str, Remains] = {}
        self._stale: set[str] = set()  # devices to be looked at again

    # ---- what may be done

    def may_open(self, device: str, now: float) -> bool:
        """Whether a session of a device may be opened, or go on (invariant 1)."""
        return (
            device in self._owned
            and device not in self.handing_over
            and self.phase in (Phase.LIVE, Phase.LEAVING)
            and self.validity.may_open(now)
        )

    @property
    def owned(self) -> frozenset[str]:
        """The devices that are ours."""
        return frozenset(self._owned)

    # ---- what happened

    def want(self, wanted: Mapping[str, str | None]) -> None:
        """Set the assignment: the host that should have each device."""
        before, self._wanted = self._wanted, wanted
        self._stale |= {d for d, host in wanted.items() if before.get(d) != host}
        self._stale |= before.keys() - wanted.keys()

    def leave(self) -> None:
        """Begin to hand over everything."""
        if self.phase is Phase.LIVE:
            self.phase = Phase.LEAVING
            self._next_renewal = 0.0
            self._stale |= self._owned

    def ended(self, device: str, remains: Remains) -> None:
        """Note that all sessions of a device that is handed over have ended."""
        if device in self.handing_over:
            self._remains[device] = remains

    def replace(self, snapshot: Snapshot, now: float) -> None:
        """Take over all that the store has, after it was away or at the start."""
        self.mirror.replace(snapshot, now)
        self.silence.was_away(now)
        self._stale |= self.mirror.owners.keys() | self._owned | self._wanted.keys()
        self._see(now)

    def apply(self, change: Change, now: float) -> None:
        """Take over what has changed in the store. A heartbeat changes nothing."""
        self.mirror.apply(change, now)
        for key in change.entries:
            match self.mirror.keys.parse(key):
                case "own", (device,):
                    self._stale.add(device)
                case "host", (name,):
                    self._stale |= self.mirror.devices_of.get(name, set())
        self._see(now)

    def committed(self, order: Order, revision: int) -> None:
        """Note that a swap was made."""
        self._done(order)
        if order.purpose is Purpose.RENEW:
            self.validity.committed(order.sequence)
            self._my_revision = max(self._my_revision, revision)

    def refused(self, order: Order) -> None:
        """Note that a swap was not made: a key was not as expected, or nothing was sent."""
        self._done(order)
        if order.purpose is Purpose.RENEW:
            self._next_renewal = 0.0

    def unknown(self, order: Order) -> None:
        """Note that it is not known whether a swap was made, or will be. It may land later."""
        self._done(order)
        if order.purpose is Purpose.BURY:
            self.silence.outcome_unknown(order.about[0])

    def _done(self, order: Order) -> None:
        self._orders.discard(order)
        if order.purpose in (Purpose.TAKE, Purpose.FREE):
            self._pending.difference_update(order.about)
            self._stale |= set(order.about)

    def _see(self, now: float) -> None:
        others = {n: self.mirror.hosts[n].revision for n, _ in self.mirror.live() if n != self.name}
        self.silence.looked(others, now)
        self._see_own_record()
        self._look_at_stale(now)

    def _see_own_record(self) -> None:
        record = self.mirror.host(self.name)
        is_joining = self.phase is Phase.JOINING
        if record is None:
            if not is_joining and self.name not in self.mirror.hosts:
                self.phase = Phase.FENCED  # somebody has removed it
            return
        is_ours = record.epoch == self.epoch and record.machine_id == self._me.machine_id
        if is_joining and (record.epoch < self.epoch):
            self._my_revision = self.mirror.hosts[self.name].revision
        elif not is_ours or record.state is HostState.DEAD:
            self.phase = Phase.FENCED
        else:
            self._my_revision = max(self._my_revision, self.mirror.hosts[self.name].revision)
            if is_joining:
                self.phase, self._joined_at = Phase.LIVE, self._my_revision
            if record.state is HostState.LEFT:
                self.phase = Phase.LEFT
            self.validity.committed(record.sequence)

    def _look_at_stale(self, now: float) -> None:
        """Find out what has become of the devices that may have changed."""
        stale, self._stale = self._stale, set()
        for device in stale:
            what = standing(self.mirror, device, self.name, self.epoch, now)
            target = self._wanted.get(device)
            self._takes.pop(device, None)
            if what is Standing.OURS:
                self._own(device)
                if self.phase is Phase.LEAVING or target not in (None, self.name):
                    self.handing_over.add(device)
                continue
            self._owned.discard(device)
            self.handing_over.discard(device)
            self._remains.pop(device, None)
            if target == self.name and what in (Standing.FREE, Standing.ORPHAN):
                self._takes[device] = take_of(self.mirror, device, what, now)
            elif target == self.name and self._owner_is_missing(device):
                self._stale.add(device)  # until its owner has been missing for W

    def _owner_is_missing(self, device: str) -> bool:
        own = self.mirror.owner(device)
        return own is not None and own.host not in self.mirror.hosts

    def _own(self, device: str) -> None:
        if device not in self._owned:
            self._owned.add(device)
            if (take := self._taken.pop(device, None)) is not None:
                self.acquired.append(take)

    # ---- what to do

    def orders(self, now: float) -> Iterator[Order]:
        """The swaps to make now. Each is given once."""
        if self.phase in (Phase.LEFT, Phase.FENCED):
            return
        yield from self._renewal(now)
        if self.phase is Phase.JOINING or not self.validity.may_open(now):
            return
        self._look_at_stale(now)
        yield from self._burials(now)
        yield from self._frees()
        if self.phase is Phase.LIVE:
            yield from self._take_orders()

    def _order(
        self, purpose: Purpose, about: Iterable[str], swap: Swap, sequence: int = 0
    ) -> Order:
        order = Order(purpose, tuple(about), swap, sequence)
        self._orders.add(order)
        if purpose in (Purpose.TAKE, Purpose.FREE):
            self._pending.update(order.about)
        return order

    def _renewal(self, now: float) -> Iterator[Order]:
        """The next renewal of our record, or its first writing."""
        if now < self._next_renewal or any(o.purpose is Purpose.RENEW for o in self._orders):
            return
        keys, mirror = self.mirror.keys, self.mirror
        state = HostState.LIVE
        if self.phase is Phase.LEAVING:
            state = HostState.LEAVING if self._owned or self._orders else HostState.LEFT
        self._me = self._me.model_copy(
            update={
                "sequence": self._me.sequence + 1,
                "seen": mirror.revision,
                "state": state,
                "hold": mirror.hold,
            }
        )
        expected = {keys.host(self.name): self._my_revision}
        changes: dict[str, bytes | None] = {keys.host(self.name): self._me.encode()}
        if mirror.meta is None:
            expected[keys.meta] = 0
            changes[keys.meta] = MetaRecord.of(self._terms).encode()
        self._next_renewal = now + self._terms.renew_s
        self.validity.sending(self._me.sequence, now)
        yield self._order(Purpose.RENEW, (self.name,), Swap(expected, changes), self._me.sequence)

    def _burials(self, now: float) -> Iterator[Order]:
        under_way = {o.about[0] for o in self._orders if o.purpose is Purpose.BURY}
        for burial in list(self.silence.burials(self.validity, now)):
            record = self.mirror.host(burial.host)
            if record is None or record.state in ENDED or burial.host in under_way:
                continue
            if self._vouches and record.seen < self._joined_at:
                continue  # it does not know us, so it cannot have asked us to wait
            key = self.mirror.keys.host(burial.host)
            dead = record.model_copy(update={"state": HostState.DEAD}).encode()
            swap = Swap({key: burial.revision}, {key: dead})
            yield self._order(Purpose.BURY, (burial.host,), swap)

    def _frees(self) -> Iterator[Order]:
        for device, remains in self._remains.items():
            known = self.mirror.owners.get(device)
            if known is None or device in self._pending:
                continue
            record = OwnRecord(
                host=self.name,
                epoch=self.epoch,
                held=False,
                cooling_s=remains.cooling_s,
                learned_cap=remains.learned_cap,
                learned_s=remains.learned_s,
                due_s=dict(remains.due_s),
            )
            key = self.mirror.keys.own(device)
            yield self._order(
                Purpose.FREE, (device,), Swap({key: known.revision}, {key: record.encode()})
            )

    def _take_orders(self) -> Iterator[Order]:
        under_way = sum(order.purpose is Purpose.TAKE for order in self._orders)
        takes = (take for take in self._takes.values() if take.device not in self._pending)
        own = self.mirror.keys.own
        mine = OwnRecord(host=self.name, epoch=self.epoch, held=True).encode()
        for batch in list(
            islice(batches(takes, DEVICES_A_SWAP), max(0, TAKES_AT_ONCE - under_way))
        ):
            self._taken |= {take.device: take for take in batch}
            swap = Swap(
                {own(take.device): take.revision for take in batch},
                {own(take.device): mine for take in batch},
            )
            yield self._order(Purpose.TAKE, (take.device for take in batch), swap)


def next_epoch(mirror: Mirror, name: str, me: HostRecord) -> HostRecord:
    """The record with which a host joins: its epoch is after all that it ever had."""
    before = mirror.host(name)
    return me.model_copy(update={"epoch": 1 if before is None else before.epoch + 1})
