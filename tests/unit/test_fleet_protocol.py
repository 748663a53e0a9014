"""The protocol of a fleet beside faults: no device ever has two owners with sessions.

`tests/fleet_sim.py` has the hosts, the store, the faults and the judge.
"""

from __future__ import annotations

import pytest
from fleet_sim import Rules, simulate

from camserver.fleet.terms import FleetTerms

SECONDS, DEVICES = 120.0, 6


@pytest.mark.parametrize("seed", range(8))
def test_no_session_too_many_and_none_in_a_cool_down(seed: int) -> None:
    world = simulate(seed, Rules(), SECONDS, devices=DEVICES)
    assert world.judge.faults == []
    assert world.judge.sessions > 0.5 * SECONDS * DEVICES, "they poll all the same"


@pytest.mark.parametrize(
    "rules", [Rules(terms=FleetTerms(5.0, 3.0, 1.0)), Rules(drift=0.35)], ids=["W<D", "drift"]
)
def test_the_judge_sees_what_it_should(rules: Rules) -> None:
    """Controls: with times that are not safe, or clocks that differ too much, there are faults."""
    assert any(simulate(seed, rules, SECONDS, devices=DEVICES).judge.faults for seed in (14, 28))
