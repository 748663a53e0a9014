"""Any order of reloads that move cameras between devices, and of leases.

No box ever gets a session over its budget.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from camserver.leases import Budget, Holder, Priority
from camserver.leases.table import LeaseTable
from camserver.leases.ticket import Ticket, TicketState
from camserver.model import SessionEnd

HOLDER = Holder("external", "film")
CAMERAS, DEVICES = ("gate", "yard", "hall"), ("a", "b", "nvr")
BUDGETS = {"a": Budget(1, 0.5, 4.0), "b": Budget(2, 0.0, 3.0), "nvr": Budget(2, 1.0, 5.0)}


class Reloads(RuleBasedStateMachine):
    """The model: on which devices each session counts, now and where it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.table = LeaseTable()
        self.on = dict.fromkeys(CAMERAS, "nvr")
        self.counts: dict[Ticket, set[str]] = {}  # offered or held
        # Ended: where each still counts, and until when
        self.cooling: dict[Ticket, dict[str, float]] = {}
        self.waiting: list[Ticket] = []
        self.configure()

    def configure(self) -> None:
        used = set(self.on.values())
        offered = self.table.configure({name: BUDGETS[name] for name in used}, self.now, self.on)
        for ticket, devices in self.counts.items():
            if ticket.device not in devices:
                devices.add(ticket.device)
        self.offered(offered)

    def offered(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            self.counts[ticket] = {ticket.device}
        for device in {ticket.device for ticket in tickets}:
            taken = sum(device in devices for devices in self.counts.values())
            cooling = sum(until.get(device, self.now) > self.now for until in self.cooling.values())
            assert taken + cooling <= BUDGETS[device].max_sessions, (device, taken, cooling)

    @rule(camera=st.sampled_from(CAMERAS), device=st.sampled_from(DEVICES))
    def reload(self, camera: str, device: str) -> None:
        before, self.on[camera] = self.on[camera], device
        for until in self.cooling.values():  # it may be the same box with a new name
            if before in until:
                until[device] = max(until[before], until.get(device, 0.0))
        self.configure()

    @rule(camera=st.sampled_from(CAMERAS), priority=st.sampled_from(list(Priority)))
    def request(self, camera: str, priority: Priority) -> None:
        ticket, offered = self.table.request(
            self.on[camera], HOLDER, priority, self.now, camera=camera
        )
        self.waiting.append(ticket)
        self.offered(offered)

    @rule(pick=st.integers(0, 20), end=st.sampled_from(list(SessionEnd)))
    def end(self, pick: int, end: SessionEnd) -> None:
        if self.counts:
            ticket = list(self.counts)[pick % len(self.counts)]
            if ticket.state is TicketState.OFFERED:
                self.table.accept(ticket, self.now)
            devices = self.counts.pop(ticket)
            self.cooling[ticket] = {
                device: self.now + BUDGETS[device].cooldown_after(end) for device in devices
            }
            self.offered(self.table.release(ticket, end, self.now))

    @rule(pick=st.integers(0, 20))
    def give_up(self, pick: int) -> None:
        open_ = [t for t in self.waiting if t.state in (TicketState.WAITING, TicketState.OFFERED)]
        if open_:
            ticket = open_[pick % len(open_)]
            self.counts.pop(ticket, None)
            self.offered(self.table.withdraw(ticket, self.now, busy=False))

    @rule(seconds=st.floats(0.1, 6.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for device in DEVICES:
            self.offered(self.table.offer(device, self.now))

    @invariant()
    def tickets_are_where_their_cameras_are(self) -> None:
        for ticket in self.waiting:
            if ticket.state is TicketState.WAITING:
                assert ticket.device == self.on[ticket.camera]


Reloads.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestReloads = Reloads.TestCase
