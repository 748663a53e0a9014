"""Leases: never over budget, nobody starves, no grant is lost, no waiter is passed over."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from camserver.errors import LeaseStateError
from camserver.leases import Budget, Holder, Priority
from camserver.leases.table import LEARNED_S, LeaseTable
from camserver.leases.ticket import Ticket, TicketEvent, TicketState
from camserver.model import SessionEnd

HOLDER = Holder("poller", "gate")


class TableMachine(RuleBasedStateMachine):
    """Any order of requests, accepts, withdrawals, releases and time keeps the invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.table = LeaseTable()
        self.budgets = {"one": Budget(1, 0.5, 5.0), "three": Budget(3, 0.0, 2.0)}
        self.table.configure(self.budgets, self.now)
        self.live: list[Ticket] = []
        self.told: list[Ticket] = []  # what the table said it offered
        self.before = dict.fromkeys(self.budgets, 0)

    @rule(device=st.sampled_from(["one", "three"]), priority=st.sampled_from(list(Priority)))
    def request(self, device: str, priority: Priority) -> None:
        ticket, offered = self.table.request(device, HOLDER, priority, self.now)
        self.live.append(ticket)
        self.told += offered

    @rule(pick=st.integers(0, 50))
    def accept(self, pick: int) -> None:
        offered = [t for t in self.live if t.state is TicketState.OFFERED]
        if offered:
            self.table.accept(offered[pick % len(offered)], self.now)

    @rule(pick=st.integers(0, 50), busy=st.booleans())
    def withdraw(self, pick: int, busy: bool) -> None:
        open_ = [t for t in self.live if t.state in (TicketState.OFFERED, TicketState.WAITING)]
        if open_:
            ticket = open_[pick % len(open_)]
            self.live.remove(ticket)
            self.told += self.table.withdraw(ticket, self.now, busy=busy)

    @rule(pick=st.integers(0, 50), end=st.sampled_from(list(SessionEnd)))
    def release(self, pick: int, end: SessionEnd) -> None:
        held = [t for t in self.live if t.state is TicketState.HELD]
        if held:
            ticket = held[pick % len(held)]
            self.live.remove(ticket)
            self.told += self.table.release(ticket, end, self.now)

    @rule(device=st.sampled_from(["one", "three"]))
    def observe(self, device: str) -> None:
        """Somebody opened a session without asking; it counts, even over the cap."""
        ticket, _ = self.table.observe(device, HOLDER, self.now)
        self.live.append(ticket)
        self.told.append(ticket)
        self.before[device] += 1

    @rule(pick=st.integers(0, 50))
    def refused(self, pick: int) -> None:
        held = [t for t in self.live if t.state is TicketState.HELD]
        if held:
            self.table.refused(held[pick % len(held)], self.now, certain=bool(pick % 2))

    @rule(seconds=st.floats(0.01, 20))
    def wait(self, seconds: float) -> None:
        """Time passes.

        The timer that looks after cool-downs comes later, or is overtaken by a request.
        """
        self.now += seconds

    @rule()
    def timer(self) -> None:
        for device in self.budgets:
            self.told += self.table.offer(device, self.now)

    @invariant()
    def within_budget_and_no_idle_slot(self) -> None:
        for s in self.table.statistics(self.now):
            mine = [t for t in self.live if t.device == s.device]
            taken = sum(t.state in (TicketState.OFFERED, TicketState.HELD) for t in mine)
            cap = s.learned.cap if s.learned else s.max_sessions
            assert taken + s.cooling <= max(cap, self.before[s.device]), "over the cap by a grant"
            self.before[s.device] = taken + s.cooling
            if s.waiting > sum(t.state is TicketState.OFFERED for t in mine):
                # a free slot beside a waiter would be a lost grant, unless its timer is due
                assert (
                    taken + s.cooling >= cap
                    or (self.table.next_free_slot_at(s.device, self.now - 100) or self.now + 1)
                    <= self.now
                )

    @invariant()
    def every_offer_was_told_once(self) -> None:
        """Whoever is not told of an offer sleeps on, and its slot stands idle."""
        assert len(self.told) == len(set(map(id, self.told)))
        offered = {id(t) for t in self.live if t.state in (TicketState.OFFERED, TicketState.HELD)}
        assert offered <= set(map(id, self.told))

    @invariant()
    def generations_are_unique(self) -> None:
        generations = [t.generation for t in self.live if t.state is TicketState.HELD]
        assert len(generations) == len(set(generations))


TestTable = TableMachine.TestCase


TestTable.settings = settings(max_examples=150, deadline=None)


def test_every_impossible_event_names_both() -> None:
    """An event a state does not allow is refused, and the message says which and when."""
    table = LeaseTable()
    table.configure({"d": Budget()}, 0.0)
    ticket, _ = table.request("d", HOLDER, Priority.POLL, 0.0)
    table.accept(ticket, 0.0)
    with pytest.raises(LeaseStateError, match="d for poller gate: accept is impossible when held"):
        table.accept(ticket, 0.0)
    table.release(ticket, SessionEnd.CLEAN, 0.0)
    with pytest.raises(LeaseStateError, match="release is impossible when returned"):
        table.release(ticket, SessionEnd.CLEAN, 0.0)
    assert TicketEvent.OFFER.value == "offer"


def test_order_is_priority_then_arrival_and_age_lifts() -> None:
    """Live before poll, equals in order of arrival; a poll that waited long gets its turn."""
    table = LeaseTable()
    table.configure({"d": Budget(1, 0.0, 0.0)}, 0.0)
    first, _ = table.request("d", HOLDER, Priority.POLL, 0.0)
    table.accept(first, 0.0)
    poll, _ = table.request("d", HOLDER, Priority.POLL, 0.0)
    live1, _ = table.request("d", HOLDER, Priority.LIVE, 1.0)
    live2, _ = table.request("d", HOLDER, Priority.LIVE, 2.0)
    assert table.release(first, SessionEnd.CLEAN, 3.0) == [live1]
    table.accept(live1, 3.0)
    late, _ = table.request("d", HOLDER, Priority.LIVE, 25.0)
    assert table.release(live1, SessionEnd.CLEAN, 25.0) == [poll], "aged over both live requests"
    table.accept(poll, 25.0)
    assert table.release(poll, SessionEnd.CLEAN, 26.0) == [live2]
    assert late.state is TicketState.WAITING


def test_live_requests_ask_as_many_polls_as_they_are() -> None:
    """Not more, each once, the newest first; who holds live or event sessions is never asked."""
    table = LeaseTable()
    table.configure({"d": Budget(4, 0.0, 0.0)}, 0.0)
    held = {}
    for name, priority in (
        ("old", Priority.POLL),
        ("event", Priority.EVENT),
        ("new", Priority.POLL),
        ("live", Priority.LIVE),
    ):
        held[name], _ = table.request("d", HOLDER, priority, 0.0)
        table.accept(held[name], 0.0)
    assert table.preempt("d", 1.0) == []
    table.request("d", HOLDER, Priority.EVENT, 1.0)
    assert table.preempt("d", 1.0) == []
    table.request("d", HOLDER, Priority.LIVE, 1.0)
    assert table.preempt("d", 1.0) == [held["new"]]
    assert table.preempt("d", 1.0) == []
    table.request("d", HOLDER, Priority.LIVE, 1.0)
    table.request("d", HOLDER, Priority.LIVE, 1.0)
    assert table.preempt("d", 1.0) == [held["old"]]
    assert all(ticket.state is TicketState.HELD for ticket in held.values()), (
        "asked, not taken away"
    )


def test_a_device_that_said_full_is_asked_for_no_more_for_a_while() -> None:
    """Two sessions open, the third refused: two is what it gives, for LEARNED_S.

    A session refused alone teaches nothing.
    """
    table = LeaseTable()
    table.configure({"d": Budget(4, 0.0, 0.0)}, 0.0)
    tickets = [table.request("d", HOLDER, Priority.POLL, 0.0)[0] for _ in range(3)]
    for ticket in tickets:
        table.accept(ticket, 0.0)
    learned = table.refused(tickets[2], 1.0, certain=True)
    assert learned is not None
    assert learned.cap == 2
    table.release(tickets[2], SessionEnd.NONE, 1.0)
    waiting, offered = table.request("d", HOLDER, Priority.LIVE, 2.0)
    assert offered == []
    assert table.statistics(2.0)[0].busy == 1
    assert table.next_free_slot_at("d", 2.0) == 1.0 + LEARNED_S
    assert table.offer("d", 1.0 + LEARNED_S) == [waiting]
    assert table.statistics(1.0 + LEARNED_S)[0].learned is None
    for ticket in tickets[:2]:
        table.release(ticket, SessionEnd.NONE, 700.0)
    table.accept(waiting, 700.0)
    assert table.refused(waiting, 700.0, certain=True) is None
