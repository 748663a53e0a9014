"""Validity, silence and burial: who may open sessions, and who may be declared dead."""

from __future__ import annotations

import pytest

from camserver.fleet.silence import Silence
from camserver.fleet.terms import CLOSE_S, MARGIN_S, FleetTerms
from camserver.fleet.validity import Validity

TERMS = FleetTerms()


def valid(*sent: float) -> Validity:
    validity = Validity(TERMS)
    for number, at in enumerate(sent):
        validity.sending(number, at, TERMS.valid_s)
        validity.committed(number)
    return validity


@pytest.mark.parametrize(
    ("terms", "is_safe"),
    [
        (FleetTerms(), True),
        (FleetTerms(5.0, 5.0, 1.0), False),
        (FleetTerms(5.0, 5.5, 1.0), False),
        (FleetTerms(5.0, 6.5, 2.0), False),
        (FleetTerms(12.0, 14.0, 3.0), True),
    ],
)
def test_times_that_are_not_safe_are_refused(terms: FleetTerms, is_safe: bool) -> None:
    assert (terms.faults() == ()) is is_safe


def test_validity_counts_from_the_moment_of_sending() -> None:
    """Not from the answer, and not before the renewal is proven committed."""
    validity = Validity(TERMS)
    validity.sending(1, 100.0, TERMS.valid_s)
    assert not validity.may_open(100.0)
    validity.committed(1)
    assert validity.until == 105.0
    assert validity.may_open(105.0 - MARGIN_S - CLOSE_S - 0.01)
    assert not validity.may_open(105.0 - MARGIN_S - CLOSE_S)


def test_a_renewal_that_lands_late_moves_nothing_back() -> None:
    """After a cut an old renewal may be committed when a newer one already is."""
    validity = Validity(TERMS)
    validity.sending(1, 100.0, TERMS.valid_s)
    validity.sending(2, 103.0, TERMS.valid_s)
    validity.committed(2)
    validity.committed(1)
    assert validity.until == 108.0
    assert validity.renewed_at == 103.0


def test_only_a_host_whose_own_renewals_get_through_may_bury() -> None:
    silence, validity = Silence(TERMS), valid(100.0)
    silence.looked({"b": (7, TERMS.valid_s)}, 100.0)
    assert not list(silence.burials(validity, 107.0))
    validity = valid(106.5)
    assert [b.revision for b in silence.burials(validity, 107.0)] == [7]
    assert not list(silence.burials(validity, 106.4))  # W has not passed


def test_a_record_that_changes_is_not_silent() -> None:
    silence = Silence(TERMS)
    for n in range(20):
        silence.looked({"b": (n, TERMS.valid_s)}, 100.0 + n)
    assert silence.silent_s("b", 119.5) == 0.5
    assert not list(silence.burials(valid(119.0), 119.5))


def test_after_an_outage_of_its_own_a_host_counts_anew() -> None:
    silence = Silence(TERMS)
    silence.looked({"b": (7, TERMS.valid_s)}, 100.0)
    silence.was_away(160.0)
    assert not list(silence.burials(valid(165.9), 166.0))
    assert list(silence.burials(valid(166.4), 166.6))


def test_a_promise_keeps_a_host_alive_for_w() -> None:
    silence = Silence(TERMS)
    silence.looked({"b": (7, TERMS.valid_s)}, 100.0)
    assert silence.promise("b", 106.0)
    assert not list(silence.burials(valid(112.0), 112.4))
    assert list(silence.burials(valid(112.4), 112.6))
    assert not silence.promise("nobody", 106.0)


def test_after_an_unknown_outcome_nobody_is_vouched_for_until_the_record_moves() -> None:
    silence = Silence(TERMS)
    silence.looked({"b": (7, TERMS.valid_s)}, 100.0)
    silence.trying("b", 106.6)
    assert not silence.promise("b", 106.6)
    assert not list(silence.burials(valid(107.0), 107.0))
    assert list(silence.burials(valid(110.0), 110.0)), "it may be lost, so it is tried again"
    assert not silence.promise("b", 110.0)
    silence.looked({"b": (8, TERMS.valid_s)}, 107.5)
    assert silence.promise("b", 108.0)


def test_vouching_extends_from_the_moment_of_asking() -> None:
    validity = valid(100.0)
    validity.vouched(104.0)
    assert validity.until == 109.0
    assert validity.renewed_at == 100.0
    assert not validity.may_bury(104.0)


def test_during_a_hold_a_renewal_counts_longer() -> None:
    """Its record says so, and whoever declares a host dead has seen just that record."""
    validity, silence = Validity(TERMS), Silence(TERMS)
    validity.sending(1, 100.0, 600.0)
    validity.committed(1)
    assert validity.until == 700.0
    silence.looked({"b": (7, 600.0)}, 100.0)
    assert silence.limit_s("b") > 600.0 * 1.02
    assert not list(silence.burials(valid(712.0), 712.0))
    assert list(silence.burials(valid(714.0), 714.0))


def test_at_the_end_of_a_hold_the_validity_is_short_before_anybody_can_know() -> None:
    """The short renewal may be committed although its outcome is not known here."""
    validity = Validity(TERMS)
    validity.sending(1, 100.0, 600.0)
    validity.sending(2, 110.0, 600.0)
    validity.committed(1)
    validity.sending(3, 120.0, TERMS.valid_s)
    assert validity.until == 125.0
    validity.committed(2)  # proven late: it does not count any more
    assert validity.until == 125.0
    validity.committed(3)
    assert validity.until == 125.0
