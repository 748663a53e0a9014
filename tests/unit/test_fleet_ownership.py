"""The mirror of the store, and who may take a device from whom."""

from __future__ import annotations

from typing import Any

import pytest
from fleet_records import host_record

from camserver.fleet.holds import Holds
from camserver.fleet.mirror import Mirror
from camserver.fleet.ownership import Standing, Take, batches, standing, take_of
from camserver.fleet.records import HostRecord, HostState, Keys, MetaRecord, OwnRecord
from camserver.fleet.store import Change, Entry, Snapshot
from camserver.fleet.terms import FleetTerms

KEYS = Keys("test")
TERMS = FleetTerms()


def host(epoch: int = 1, state: HostState = HostState.LIVE) -> HostRecord:
    return host_record(epoch=epoch, state=state)


class Store:
    """Records by key, with revisions, as a mirror is fed."""

    def __init__(self) -> None:
        self.revision = 0
        self.entries: dict[str, Entry] = {}
        self.mirror = Mirror(KEYS, TERMS, Holds(TERMS))

    def put(self, key: str, record: Any, now: float = 0.0) -> None:
        self.revision += 1
        data = record if isinstance(record, bytes) else record.encode()
        self.entries[key] = Entry(data, self.revision)
        self.mirror.apply(Change(self.revision, {key: self.entries[key]}), now)

    def remove(self, key: str, now: float) -> None:
        self.revision += 1
        del self.entries[key]
        self.mirror.apply(Change(self.revision, {key: None}), now)

    def own(self, owner: str, epoch: int, *, held: bool = True, **more: Any) -> None:
        self.put(KEYS.own("d"), OwnRecord(host=owner, epoch=epoch, held=held, **more))

    def standing(self, me: str = "a", epoch: int = 1, now: float = 100.0) -> Standing:
        return standing(self.mirror, "d", me, epoch, now)


@pytest.fixture
def store() -> Store:
    store = Store()
    store.put(KEYS.host("a"), host())
    store.put(KEYS.host("b"), host())
    return store


def test_a_device_that_nobody_had_is_free(store: Store) -> None:
    assert store.standing() is Standing.FREE


def test_a_device_is_ours_in_our_present_epoch_only(store: Store) -> None:
    """After a restart it is an orphan: its sessions of before may still be counted."""
    store.own("a", 1)
    assert store.standing(epoch=1) is Standing.OURS
    store.put(KEYS.host("a"), host(epoch=2))
    assert store.standing(epoch=2) is Standing.ORPHAN


@pytest.mark.parametrize("state", [HostState.LIVE, HostState.LEAVING])
def test_a_live_host_keeps_its_device_however_silent(store: Store, state: HostState) -> None:
    store.put(KEYS.host("b"), host(state=state))
    store.own("b", 1)
    assert store.standing(now=10_000.0) is Standing.ANOTHER


@pytest.mark.parametrize(
    "over", [host(state=HostState.DEAD), host(state=HostState.LEFT), host(epoch=2)]
)
def test_a_device_of_an_epoch_that_is_over_is_an_orphan(store: Store, over: HostRecord) -> None:
    store.own("b", 1)
    store.put(KEYS.host("b"), over)
    assert store.standing() is Standing.ORPHAN


def test_a_dead_record_of_an_older_epoch_does_not_end_a_newer_one(store: Store) -> None:
    store.own("b", 2)
    store.put(KEYS.host("b"), host(epoch=1, state=HostState.DEAD))
    assert store.standing() is Standing.ANOTHER


def test_a_host_whose_record_was_removed_may_live_for_w(store: Store) -> None:
    store.own("b", 1)
    store.remove(KEYS.host("b"), 100.0)
    assert store.standing(now=100.0 + TERMS.silence_s) is Standing.ANOTHER
    assert store.standing(now=100.1 + TERMS.silence_s) is Standing.ORPHAN


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"\xff", b'{"host":"b"}'])
def test_rubbish_counts_as_what_is_safest(store: Store, rubbish: bytes) -> None:
    """A device with an unreadable owner is another host's; an unreadable host is there."""
    store.put(KEYS.own("d"), rubbish)
    assert store.standing() is Standing.ANOTHER
    assert list(store.mirror.faults) == [KEYS.own("d")]
    store.own("b", 1)
    assert store.mirror.faults == {}
    store.put(KEYS.host("b"), rubbish)
    assert store.standing(now=1e6) is Standing.ANOTHER
    store.put(f"{KEYS.prefix}other", b"x")
    assert len(store.mirror.faults) == 2


def test_the_cool_down_of_an_orphan_counts_from_the_death_seen(store: Store) -> None:
    store.own("b", 1)
    store.put(KEYS.host("b"), host(state=HostState.DEAD), now=50.0)
    take = take_of(store.mirror, "d", store.standing(), 60.0)
    assert (take.lost, take.seen_at, take.revision) == (True, 50.0, 3)


def test_a_free_device_is_taken_with_what_its_last_owner_left(store: Store) -> None:
    store.own("b", 1, held=False, cooling_s=(3.0,), due_s={"gate": 7.5}, learned_cap=1)
    take = take_of(store.mirror, "d", store.standing(), 60.0)
    assert take.last is not None
    assert (take.lost, take.last.cooling_s, take.last.due_s) == (False, (3.0,), {"gate": 7.5})


def test_a_snapshot_replaces_everything(store: Store) -> None:
    store.own("b", 1)
    store.put(KEYS.meta, MetaRecord.of(TERMS))
    mirror = Mirror(KEYS, TERMS, Holds(TERMS))
    mirror.replace(Snapshot(store.revision, store.entries), 5.0)
    assert {name for name, _ in mirror.live()} == {"a", "b"}
    assert mirror.owner("d") == store.mirror.owner("d")
    assert mirror.meta == store.mirror.meta
    mirror.apply(Change(1, {KEYS.own("d"): None}), 6.0)  # older than the snapshot
    assert mirror.owner("d") is not None
    assert mirror.devices_of == {"b": {"d"}}
    mirror.replace(Snapshot(99, {}), 7.0)
    assert not list(mirror.live())
    assert mirror.meta is None


def test_takes_come_in_batches() -> None:
    takes = [Take(str(n), 0, None, False, 0.0) for n in range(25)]
    assert [len(batch) for batch in batches(takes, 10)] == [10, 10, 5]


def test_a_key_that_nobody_knows_is_named_until_it_is_removed(store: Store) -> None:
    """A newer version may have written it."""
    key = f"{KEYS.prefix}ext/d/7"
    store.put(key, b"{}")
    assert list(store.mirror.faults) == [key]
    store.remove(key, 1.0)
    assert store.mirror.faults == {}
