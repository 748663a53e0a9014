"""The protocol of a fleet beside faults: no device ever has two owners with sessions.

`tests/fleet_world.py` has the store, the faults and the judge, `tests/fleet_sim.py` the hosts.
`make chaos-fleet` runs 500 seeds.
"""

from __future__ import annotations

import pytest
from fleet_sim import simulate
from fleet_world import Fault, Rules

from camserver.fleet.terms import FleetTerms
from camserver.fleet.validity import Sent, Validity

SECONDS, DEVICES = 150.0, 6
SEEDS = range(8)


@pytest.mark.parametrize("vouch", [False, True], ids=["", "vouching"])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_device_has_two_owners(seed: int, vouch: bool) -> None:
    world = simulate(seed, Rules(terms=FleetTerms(vouch=vouch)), SECONDS, devices=DEVICES)
    assert world.judge.faults == []
    assert world.judge.sessions > 0.5 * SECONDS * DEVICES, "they poll all the same"


@pytest.mark.parametrize(
    "rules", [Rules(terms=FleetTerms(5.0, 3.0, 1.0)), Rules(drift=0.35)], ids=["W<D", "drift"]
)
def test_times_that_are_not_safe_give_two_owners(rules: Rules) -> None:
    assert any(simulate(seed, rules, SECONDS, devices=DEVICES).judge.faults for seed in SEEDS)


def test_a_host_that_is_stopped_needs_the_timer_of_the_kernel() -> None:
    """A stopped process keeps its TCP sessions, and cannot end them."""
    stops = tuple(Fault(20.0 + 20 * n, "pause", n % 3, 14.0) for n in range(3))
    for has_timer in (True, False):
        worlds = (simulate(s, Rules(has_timer=has_timer), 90.0, plan=stops) for s in range(3))
        faults = [world.judge.faults for world in worlds]
        assert any(faults) is not has_timer


RETURN_DURING_A_CUT = (Fault(10.0, "kill", 2, 30.0), Fault(25.0, "cut", 0, 40.0))
"""A host comes back while another one is cut off, which does not see it and cannot ask it."""


def test_only_a_host_that_was_seen_may_declare_another_one_dead() -> None:
    for seed in range(3):
        rules = Rules(terms=FleetTerms(vouch=True))
        world = simulate(seed, rules, 80.0, plan=RETURN_DURING_A_CUT, devices=DEVICES)
        assert world.judge.faults == []
        control = Rules(terms=FleetTerms(vouch=True), anyone_buries=True)
        world = simulate(seed, control, 80.0, plan=RETURN_DURING_A_CUT, devices=DEVICES)
        assert any("owned by" in fault for fault in world.judge.faults)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_device_has_two_owners_beside_holds(seed: int) -> None:
    world = simulate(seed, Rules(has_holds=True), 2 * SECONDS, devices=DEVICES)
    assert world.judge.faults == []


OUTAGE_DURING_A_HOLD = (Fault(15.0, "hold", 0, 70.0), Fault(20.0, "store", 0, 45.0))


def test_hosts_poll_on_during_a_hold() -> None:
    world = simulate(1, Rules(), 80.0, plan=OUTAGE_DURING_A_HOLD, devices=DEVICES)
    assert world.judge.faults == []
    assert world.judge.sessions > 0.9 * (80.0 - 10.0) * DEVICES


CUT_AT_THE_END_OF_A_HOLD = (Fault(15.0, "hold", 0, 10.0), Fault(25.1, "deaf", 0, 60.0))


def test_the_end_of_a_hold_counts_before_it_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others may have seen the short renewal whose outcome this host does not know."""

    def sending(self: Validity, sequence: int, now: float, valid_s: float) -> None:
        self._sent[sequence] = Sent(now, valid_s)

    def faults() -> list[str]:
        rules, plan = Rules(), CUT_AT_THE_END_OF_A_HOLD
        worlds = (simulate(seed, rules, 80.0, plan=plan, devices=DEVICES) for seed in range(6))
        return [fault for world in worlds for fault in world.judge.faults]

    assert faults() == []
    monkeypatch.setattr(Validity, "sending", sending)
    assert faults()


def test_hosts_that_vouch_poll_on_while_the_store_is_away() -> None:
    outage = (Fault(20.0, "store", 0, 60.0),)
    polled = {
        vouch: simulate(1, Rules(terms=FleetTerms(vouch=vouch)), 80.0, plan=outage, devices=DEVICES)
        for vouch in (False, True)
    }
    assert all(world.judge.faults == [] for world in polled.values())
    assert polled[True].judge.sessions > 2.0 * polled[False].judge.sessions
