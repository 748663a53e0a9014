"""One epoch of one host of a fleet, without I/O: what happened goes in, swaps to make come out.

Whoever drives it gives it what the store has (`replace`, `apply`), asks for `orders` at each tick
and after each event, makes those swaps, and says what became of them. Times are of one clock of
this machine, which counts in suspend, too.

    joining --record committed--> live --dead, or another epoch--> fenced
    live --leave--> leaving --every device free, record committed--> left
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator

from camserver.fleet.devices import Devices
from camserver.fleet.external import Externals, LeaseName
from camserver.fleet.mirror import Mirror
from camserver.fleet.orders import OF_PROGRAMS, Fenced, Order, Phase, Purpose
from camserver.fleet.records import ENDED, HostRecord, HostState, MetaRecord
from camserver.fleet.silence import Silence
from camserver.fleet.store import Change, Snapshot, Swap
from camserver.fleet.terms import FleetTerms
from camserver.fleet.validity import Validity
from camserver.fleet.vouching import Asking, Vouching, all_agree


class FleetHost:
    """One epoch of one host."""

    def __init__(
        self,
        name: str,
        me: HostRecord,
        mirror: Mirror,
        terms: FleetTerms,
        past: Collection[str] = (),
    ) -> None:
        """`me` is this host's record with its new epoch. `mirror` is empty, or was just read.

        `past` has the tokens of the epochs of this process that are over.
        """
        self.name = name
        self.epoch = me.epoch
        self.mirror = mirror
        self.phase = Phase.JOINING
        self.fenced: Fenced | None = None
        self.validity = Validity(terms)
        self.silence = Silence(terms)
        self.devices = Devices(name, me.epoch, mirror, terms)
        self.externals = Externals(name, me.epoch, mirror)
        self._me = me
        self._past = past
        self._terms = terms
        self._vouching = Vouching(terms) if terms.vouch else None
        self._joined_at = 0  # the store's revision
        self._my_revision = 0
        self._next_renewal = 0.0
        self._is_blind = False
        self._orders: set[Order] = set()  # renewals and burials

    # ---- what may be done

    def may_open(self, device: str, now: float) -> bool:
        """Whether a session of a device may be opened, or go on (invariant 1)."""
        return (
            device in self.devices.owned
            and device not in self.devices.handing_over
            and self.phase in (Phase.LIVE, Phase.LEAVING)
            and self.validity.may_open(now)
        )

    def name_is_free_in_s(self, now: float) -> float:
        """For how long the name must be silent before this host may join with it.

        An earlier process of this host may still have sessions; or another host has the same name.
        """
        record = self.mirror.host(self.name)
        if self.phase is not Phase.JOINING or record is None or record.state in ENDED:
            return 0.0
        if record.token and record.token in self._past:  # we know that it is over
            return 0.0
        limit_s = self.silence.limit_s(self.name)
        return max(0.0, limit_s - self.silence.silent_s(self.name, now))

    def set_inventory(self, inventory: str) -> None:
        """Set the hash of the inventory, for the next renewal."""
        self._me = self._me.model_copy(update={"inventory": inventory})

    # ---- what happened

    def leave(self) -> None:
        """Begin to hand over everything."""
        if self.phase is Phase.LIVE:
            self.phase = Phase.LEAVING
            self._next_renewal = 0.0
            self.devices.leave()

    def lost_sight(self) -> None:
        """Note that changes of the store may be unseen: nobody is declared dead until `replace`."""
        self._is_blind = True

    def replace(self, snapshot: Snapshot, now: float, *, was_away: bool = True) -> None:
        """Take over all that the store has.

        `was_away`: the store did not answer for some time. Then silence is counted anew, because
        others could not renew either.
        """
        if snapshot.revision < self.mirror.revision:
            self._fence(Fenced.HISTORY_CHANGED)
            return
        self._is_blind = False
        self.mirror.replace(snapshot, now)
        if was_away:
            self.silence.was_away(now)
        self.devices.read_anew()
        self.externals.read_anew()
        self._see(now)

    def apply(self, change: Change, now: float) -> None:
        """Take over what has changed in the store. A heartbeat changes nothing."""
        lives = {name: self._life_of(name) for name in self.mirror.hosts}
        for key in self.mirror.apply(change, now):
            match key:
                case "own", (device,):
                    self.devices.changed((device,))
                case "ext", (device, number):
                    self.externals.changed((LeaseName(device, number),))
                case "host", (name,) if self._life_of(name) != lives.get(name):
                    self.devices.changed(self.mirror.devices_of.get(name, ()))
                    self.externals.host_changed(name)
        self._see(now)

    def _life_of(self, name: str) -> tuple[HostState, int] | None:
        """What of a host's record decides about its devices. Renewals do not change it."""
        record = self.mirror.host(name)
        return None if record is None else (record.state, record.epoch)

    def committed(self, order: Order, revision: int) -> None:
        """Note that a swap was made."""
        if order.purpose in OF_PROGRAMS:
            self.externals.committed(order, revision)
            return
        if order not in self._orders:
            self.devices.committed(order, revision)
            return
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

    def _done(self, order: Order) -> None:
        if order.purpose in OF_PROGRAMS:
            self.externals.done(order)
            return
        if order not in self._orders:
            self.devices.done(order)
            return
        self._orders.discard(order)

    def _see(self, now: float) -> None:
        self._see_own_record()
        is_joining = self.phase is Phase.JOINING  # then its name may be in use
        self.silence.looked(
            {
                name: (self.mirror.hosts[name].revision, record.valid_s)
                for name, record in self.mirror.live()
                if name != self.name or is_joining
            },
            now,
        )
        self.devices.look(now)

    def _fence(self, why: Fenced) -> None:
        self.phase, self.fenced = Phase.FENCED, why

    def _see_own_record(self) -> None:
        record = self.mirror.host(self.name)
        is_joining = self.phase is Phase.JOINING
        if record is None:
            if not is_joining:  # it is not there, or cannot be read
                self._fence(Fenced.RECORD_REMOVED)
            return
        revision = self.mirror.hosts[self.name].revision
        is_ours = record.epoch == self.epoch and record.token == self._me.token
        if is_joining and record.epoch < self.epoch:
            self._my_revision = revision
        elif not is_ours:
            self._fence(Fenced.NAME_TAKEN)
        elif record.state is HostState.DEAD:
            self._fence(Fenced.DECLARED_DEAD)
        elif revision < self._my_revision <= self.mirror.revision:
            self._fence(Fenced.HISTORY_CHANGED)  # the store has an older record than we wrote
        else:
            self._my_revision = max(self._my_revision, revision)
            if is_joining:
                self.phase, self._joined_at = Phase.LIVE, self._my_revision
            if record.state is HostState.LEFT:
                self.phase = Phase.LEFT
            self.validity.committed(record.sequence)

    # ---- vouching

    def _others(self) -> dict[str, int]:
        """The epochs of the other hosts that are not over."""
        return {name: record.epoch for name, record in self.mirror.live() if name != self.name}

    def asking(self, now: float) -> Asking | None:
        """What to ask the other hosts now, because the store is away. None: nothing."""
        if self._vouching is None or self.phase is not Phase.LIVE:
            return None
        return self._vouching.asking(self._others(), self.validity, now)

    def answered(self, asking: Asking, agreed: Iterable[str]) -> None:
        """Note which hosts have promised to wait for this one."""
        is_known = all(self.mirror.host(name) is not None for name in self.mirror.hosts)
        if self.phase is Phase.LIVE and is_known and all_agree(asking, agreed, self._others()):
            self.validity.vouched(asking.asked_at)

    def promise(self, host: str, its_epoch: int, our_epoch: int, now: float) -> bool:
        """Promise not to declare another host dead for W, because it has asked. False: refused.

        `our_epoch` is the epoch in which it knows us.
        """
        record = self.mirror.host(host)
        is_same = record is not None and record.epoch == its_epoch and our_epoch == self.epoch
        is_being_buried = any(
            order.purpose is Purpose.BURY and host in order.about for order in self._orders
        )
        if self._vouching is None or self.phase is not Phase.LIVE or not is_same:
            return False
        return not is_being_buried and self.silence.promise(host, now)

    # ---- what to do

    def orders(self, now: float) -> Iterator[Order]:
        """The swaps to make now. Each is given once."""
        if self.phase in (Phase.LEFT, Phase.FENCED):
            return
        yield from self._renewal(now)
        if self.phase is Phase.JOINING or not self.validity.may_open(now):
            return
        self.devices.look(now)
        yield from self._burials(now)
        yield from self.devices.orders()
        yield from self.externals.orders(now)

    def _order(self, purpose: Purpose, about: str, swap: Swap, sequence: int = 0) -> Order:
        order = Order(purpose, (about,), swap, sequence)
        self._orders.add(order)
        return order

    def _renewal(self, now: float) -> Iterator[Order]:
        """The next renewal of our record, or its first writing."""
        if any(order.purpose is Purpose.RENEW for order in self._orders):
            return
        keys, mirror, terms, state = self.mirror.keys, self.mirror, self._terms, HostState.LIVE
        if self.phase is Phase.LEAVING:
            is_done = self.devices.is_empty and self.externals.is_empty and not self._orders
            state = HostState.LEFT if is_done else HostState.LEAVING
        is_due = now >= self._next_renewal or state is HostState.LEFT
        if not is_due or self.name_is_free_in_s(now) > 0:
            return
        self._me = self._me.model_copy(
            update={
                "sequence": self._me.sequence + 1,
                "seen": mirror.revision,
                "state": state,
                "valid_s": (self.phase is not Phase.LEAVING and mirror.hold_s) or terms.valid_s,
            }
        )
        expected = {keys.host(self.name): self._my_revision}
        changes: dict[str, bytes | None] = {keys.host(self.name): self._me.encode()}
        if mirror.meta is None:
            expected[keys.meta] = 0
            changes[keys.meta] = MetaRecord.of(self._terms).encode()
        self._next_renewal = now + self._terms.renew_s
        self.validity.sending(self._me.sequence, now, self._me.valid_s)
        yield self._order(Purpose.RENEW, self.name, Swap(expected, changes), self._me.sequence)

    def _burials(self, now: float) -> Iterator[Order]:
        if self._is_blind:
            return
        under_way = {o.about[0] for o in self._orders if o.purpose is Purpose.BURY}
        for burial in list(self.silence.burials(self.validity, now)):
            record = self.mirror.host(burial.host)
            if record is None or record.state in ENDED or burial.host in under_way:
                continue
            if self._vouching is not None and record.seen < self._joined_at:
                continue  # it does not know us, so it cannot have asked us to wait
            key = self.mirror.keys.host(burial.host)
            self.silence.trying(burial.host, now)
            dead = record.model_copy(update={"state": HostState.DEAD}).encode()
            yield self._order(Purpose.BURY, burial.host, Swap({key: burial.revision}, {key: dead}))


def next_epoch(mirror: Mirror, name: str, me: HostRecord) -> HostRecord:
    """The record with which a host joins: its epoch is after all that it ever had."""
    before = mirror.host(name)
    owned = (own.epoch for d in mirror.devices_of.get(name, ()) if (own := mirror.owner(d)))
    last = max((0 if before is None else before.epoch, *owned, *mirror.epochs_of_programs(name)))
    return me.model_copy(update={"epoch": last + 1, "token": secrets.token_hex(8)})
