"""Which host should own which device."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camserver.fleet.assignment import ANYWHERE, CAPACITY_BOUND, Candidate, assign

HOSTS = [Candidate(f"host-{n}") for n in range(20)]
DEVICES = {f"10.0.{n // 256}.{n % 256}": ANYWHERE for n in range(20_000)}


def test_every_host_gets_its_share() -> None:
    counts = Counter(assign(DEVICES, HOSTS).values())
    assert len(counts) == len(HOSTS)
    assert max(counts.values()) <= CAPACITY_BOUND * 1000 + 1
    assert min(counts.values()) >= 850


def test_a_small_fleet_leaves_no_host_without_devices() -> None:
    for seed in range(50):
        devices = {f"{seed}-{n}": ANYWHERE for n in range(6)}
        assert sorted(Counter(assign(devices, HOSTS[:3]).values()).values()) == [2, 2, 2]


def test_a_leave_moves_only_the_devices_of_that_host() -> None:
    before, after = assign(DEVICES, HOSTS), assign(DEVICES, HOSTS[1:])
    moved = {device for device in DEVICES if before[device] != after[device]}
    had = {device for device, owner in before.items() if owner == "host-0"}
    assert had <= moved
    assert len(moved - had) <= 0.01 * len(DEVICES)


def test_a_join_moves_hardly_more_than_the_share_of_the_new_host() -> None:
    before, after = assign(DEVICES, HOSTS[1:]), assign(DEVICES, HOSTS)
    moved = {device for device in DEVICES if before[device] != after[device]}
    assert 850 <= len(moved) <= 1250
    assert sum(after[device] != "host-0" for device in moved) <= 0.01 * len(DEVICES)


def test_weights_count() -> None:
    counts = Counter(assign(DEVICES, [Candidate("big", 3.0), Candidate("small", 1.0)]).values())
    assert counts["big"] == pytest.approx(15_000, rel=0.05)


def test_a_device_goes_only_to_hosts_that_reach_it() -> None:
    devices = {f"a{n}": ("site-a-*",) for n in range(300)} | {f"x{n}": ANYWHERE for n in range(300)}
    owners = assign(devices, [Candidate("site-a-1"), Candidate("site-b-1"), Candidate("site-b-2")])
    assert {owners[f"a{n}"] for n in range(300)} == {"site-a-1"}
    counts = Counter(owners[f"x{n}"] for n in range(300))
    assert counts["site-b-1"] + counts["site-b-2"] >= 180
    assert assign({"a": ("site-c-*",)}, [Candidate("site-a-1")]) == {"a": None}
    assert assign({"a": ANYWHERE}, []) == {"a": None}


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.sampled_from([ANYWHERE, ("a*",), ("b*", "a1"), ("none",)]),
        max_size=60,
    ),
    st.lists(
        st.builds(Candidate, st.sampled_from(["a1", "a2", "b1", "b2"]), st.floats(0.1, 10)),
        max_size=4,
        unique_by=lambda candidate: candidate.name,
    ),
)
def test_all_hosts_compute_the_same(
    devices: dict[str, tuple[str, ...]], hosts: list[Candidate]
) -> None:
    """Whatever the order in which they know devices and hosts."""
    owners = assign(devices, hosts)
    assert owners == assign(dict(reversed(devices.items())), hosts[::-1])
    assert owners.keys() == devices.keys()
    known = {candidate.name for candidate in hosts}
    assert {owner for owner in owners.values() if owner} <= known
