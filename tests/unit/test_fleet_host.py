"""One epoch of a host: how it joins, and how it loses its place."""

from __future__ import annotations

import pytest
from fleet_records import host_record

from camserver.fleet.holds import Holds
from camserver.fleet.host import FleetHost, next_epoch
from camserver.fleet.mirror import Mirror
from camserver.fleet.orders import Fenced, Order, Phase, Purpose, Remains
from camserver.fleet.records import HostState, Keys, OwnRecord, Record
from camserver.fleet.store import Change, Entry, Snapshot
from camserver.fleet.terms import FleetTerms

KEYS, TERMS = Keys("test"), FleetTerms()
W = TERMS.silence_s


class Rig:
    """A host `a` and a store that does what it says, at once."""

    def __init__(self, **records: Record) -> None:
        self.revision = 0
        self.entries: dict[str, Entry] = {}
        for key, record in records.items():
            self.write(KEYS.host(key), record)
        mirror = Mirror(KEYS, TERMS, Holds(TERMS))
        mirror.replace(self.snapshot, 0.0)
        self.host = FleetHost("a", next_epoch(mirror, "a", host_record()), mirror, TERMS)
        self.host.replace(self.snapshot, 0.0)

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.revision, dict(self.entries))

    def write(self, key: str, record: Record) -> Change:
        self.revision += 1
        self.entries[key] = Entry(record.encode(), self.revision)
        return Change(self.revision, {key: self.entries[key]})

    def do(self, now: float) -> list[Order]:
        """Make the swaps that the host wants now."""
        orders = list(self.host.orders(now))
        for order in orders:
            changes = {}
            self.revision += 1
            for key, value in order.swap.changes.items():
                assert value is not None
                changes[key] = self.entries[key] = Entry(value, self.revision)
            self.host.committed(order, self.revision)
            self.host.apply(Change(self.revision, changes), now)
        return orders

    def see(self, key: str, record: Record, now: float) -> None:
        self.host.apply(self.write(key, record), now)


def purposes(orders: list[Order]) -> list[Purpose]:
    return [order.purpose for order in orders]


@pytest.mark.parametrize("state", [HostState.LEFT, HostState.DEAD])
def test_a_host_whose_last_epoch_is_over_joins_at_once(state: HostState) -> None:
    rig = Rig(a=host_record(epoch=4, state=state))
    rig.do(0.0)
    assert (rig.host.phase, rig.host.epoch) == (Phase.LIVE, 5)


def test_a_name_that_is_in_use_is_waited_for() -> None:
    """An earlier process of this host may still have sessions."""
    rig = Rig(a=host_record(epoch=4))
    assert rig.do(W - 0.1) == []
    assert rig.host.name_is_free_in_s(W - 0.1) == pytest.approx(0.1)
    rig.do(W)
    assert (rig.host.phase, rig.host.epoch) == (Phase.LIVE, 5)


def test_a_name_that_another_host_renews_is_not_taken() -> None:
    rig = Rig(a=host_record(epoch=4, machine_id="another"))
    for now in range(1, 60):
        rig.see(KEYS.host("a"), host_record(epoch=4, machine_id="another", sequence=now), now)
        assert rig.do(now) == []
    assert rig.host.phase is Phase.JOINING


def test_a_host_that_was_declared_dead_knows_why() -> None:
    rig = Rig()
    rig.do(0.0)
    buried = rig.host.mirror.host("a")
    assert buried is not None
    rig.see(KEYS.host("a"), buried.model_copy(update={"state": HostState.DEAD}), 1.0)
    assert (rig.host.phase, rig.host.fenced) == (Phase.FENCED, Fenced.DECLARED_DEAD)


def test_a_host_whose_name_was_taken_knows_why() -> None:
    rig = Rig()
    rig.do(0.0)
    rig.see(KEYS.host("a"), host_record(epoch=2, machine_id="another"), 1.0)
    assert rig.host.fenced is Fenced.NAME_TAKEN


def test_two_hosts_of_one_name_and_one_machine_are_never_both_live() -> None:
    """As clones, or containers without a machine-id, that start together: the swap decides."""
    rig = Rig()
    mirror = Mirror(KEYS, TERMS, Holds(TERMS))
    mirror.replace(rig.snapshot, 0.0)
    other = FleetHost("a", next_epoch(mirror, "a", host_record()), mirror, TERMS)
    other.replace(rig.snapshot, 0.0)
    assert other.epoch == rig.host.epoch
    (lost,) = other.orders(0.0)
    rig.do(0.0)
    other.refused(lost)
    other.replace(rig.snapshot, 0.1)
    assert (other.phase, other.fenced) == (Phase.FENCED, Fenced.NAME_TAKEN)
    assert not other.validity.may_open(0.2)


def test_an_older_record_of_ours_in_a_newer_store_ends_the_epoch() -> None:
    """A backup may be restored with its revision raised."""
    rig = Rig()
    rig.do(0.0)
    old = rig.snapshot
    rig.do(1.0)
    rig.host.replace(Snapshot(rig.revision + 1000, old.entries), 2.0)
    assert rig.host.fenced is Fenced.HISTORY_CHANGED


def test_a_new_epoch_is_after_all_that_the_host_ever_owned() -> None:
    """Its record may have been removed, but not those of its devices."""
    rig = Rig()
    rig.write(KEYS.own("d"), OwnRecord(host="a", epoch=7, held=True))
    mirror = Mirror(KEYS, TERMS, Holds(TERMS))
    mirror.replace(rig.snapshot, 0.0)
    assert next_epoch(mirror, "a", host_record()).epoch == 8


def test_a_store_that_has_lost_changes_ends_the_epoch() -> None:
    """It was restored from a backup: what it says of owners may be old."""
    rig = Rig()
    rig.do(0.0)
    rig.host.replace(Snapshot(rig.revision - 1, {}), 1.0)
    assert rig.host.fenced is Fenced.HISTORY_CHANGED
    assert list(rig.host.orders(1.0)) == []


def test_a_device_without_a_record_is_taken_when_it_was_watched_for_w() -> None:
    """Its record may have been removed a moment ago, and its owner may not know it yet."""
    rig = Rig()
    rig.host.devices.want({"d": "a"})
    assert purposes(rig.do(0.0)) == [Purpose.RENEW]
    for now in (2.0, 4.0, W):
        assert Purpose.TAKE not in purposes(rig.do(now))
    assert Purpose.TAKE in purposes(rig.do(W + 0.1))
    assert rig.host.may_open("d", W + 0.2)


def test_a_free_device_is_taken_at_once_with_what_its_owner_left() -> None:
    rig = Rig()
    rig.host.devices.want({"d": "a"})
    rig.do(0.0)
    free = OwnRecord(host="b", epoch=1, held=False, cooling_s=(2.0,), due_s={"cam": 7.0})
    rig.see(KEYS.own("d"), free, 1.0)
    assert purposes(rig.do(1.5)) == [Purpose.RENEW, Purpose.TAKE]
    take = rig.host.devices.acquired.popleft()
    assert (take.last, take.lost) == (free, False)


def silent_other(rig: Rig) -> None:
    """Another host has been silent for more than W, and we have renewed a moment ago."""
    rig.do(0.0)
    rig.see(KEYS.host("b"), host_record(machine_id="b"), 0.1)
    for now in range(1, 7):
        rig.do(now)


def test_a_silent_host_is_declared_dead_once() -> None:
    rig = Rig()
    silent_other(rig)
    orders = [o for o in rig.host.orders(W + 0.2) if o.purpose is Purpose.BURY]
    assert [order.about for order in orders] == [("b",)]
    rig.host.refused(orders[0])  # its record has changed, and we have not seen it yet
    assert Purpose.BURY not in purposes(list(rig.host.orders(W + 0.3)))


def test_nobody_is_declared_dead_by_a_host_that_does_not_see_the_store() -> None:
    rig = Rig()
    silent_other(rig)
    rig.host.lost_sight()
    assert Purpose.BURY not in purposes(list(rig.host.orders(W + 0.2)))
    rig.host.replace(rig.snapshot, W + 0.3)
    assert Purpose.BURY not in purposes(list(rig.host.orders(W + 0.3))), "it counts anew"


def test_a_host_leaves_when_every_device_is_free() -> None:
    rig = Rig()
    rig.host.devices.want({"d": "a"})
    rig.do(0.0)
    rig.see(KEYS.own("d"), OwnRecord(host="b", epoch=1, held=False), 0.5)
    rig.do(1.0)
    rig.host.leave()
    rig.do(1.1)
    assert rig.host.devices.handing_over == {"d"}
    assert not rig.host.may_open("d", 1.2)
    rig.host.devices.ended("d", Remains(cooling_s=(1.0,)))
    assert purposes(rig.do(1.3)) == [Purpose.FREE]
    assert purposes(rig.do(1.4)) == [Purpose.RENEW], "it does not wait until a renewal is due"
    assert rig.host.phase is Phase.LEFT
