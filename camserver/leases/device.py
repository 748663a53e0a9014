"""One device in the lease table: its budget, its queue, and the sessions that it counts.

The code is pure: it takes `now` and returns values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from camserver.leases.right import Remaining
from camserver.leases.ticket import (
    Budget,
    DeviceStatistics,
    Learned,
    Priority,
    SessionEntry,
    Ticket,
    TicketEvent,
)
from camserver.model import SessionEnd


@dataclass(frozen=True, slots=True)
class CoolingSession:
    """A closed session, or one that an earlier process left. It takes a slot until `until`."""

    generation: int
    camera: str
    until: float
    claimable: bool = False
    """Another program may still have the session, and may claim it."""
    observed: bool = False
    claim_hash: str = ""
    uid: int | None = None


@dataclass(slots=True)
class Device:
    """The state of one device. Only the lease table changes it."""

    budget: Budget
    learned: Learned | None = None
    waiting: list[Ticket] = field(default_factory=list)
    taken: list[Ticket] = field(default_factory=list)
    """Tickets that are offered or held."""
    moved: list[Ticket] = field(default_factory=list)
    """Tickets of sessions that were opened on this device. A reload has moved their cameras to
    another device.
    """
    cooling: list[CoolingSession] = field(default_factory=list)
    granted: int = 0
    opened: int = 0
    held_s_total: float = 0.0
    busy: int = 0
    wait_s_total: float = 0.0
    wait_s_max: float = 0.0

    @property
    def unused(self) -> bool:
        """Whether the device counts no session and has no waiter."""
        return not (self.waiting or self.taken or self.moved or self.cooling)

    def cap(self, now: float) -> int:
        """The number of sessions that the device gives at the moment."""
        if self.learned is None or self.learned.until <= now:
            return self.budget.max_sessions
        return min(self.learned.cap, self.budget.max_sessions)

    def drop_cooled(self, now: float) -> None:
        """Free the slots whose cool-down has passed."""
        self.cooling = [session for session in self.cooling if session.until > now]

    def offer(self, now: float) -> list[Ticket]:
        """Offer every free slot to the waiters in order. Returns the tickets that got one."""
        self.drop_cooled(now)
        count = len(self.taken) + len(self.moved) + len(self.cooling)
        offered: list[Ticket] = []
        while self.waiting and count + len(offered) < self.cap(now):
            ticket = min(self.waiting, key=lambda t: t.rank(now))
            self.waiting.remove(ticket)
            ticket.apply(TicketEvent.OFFER)
            self.taken.append(ticket)
            offered.append(ticket)
        return offered

    def end(self, ticket: Ticket, end: SessionEnd, now: float) -> None:
        """Free the slot of a ticket after the cool-down that the end of its session requires."""
        (self.taken if ticket in self.taken else self.moved).remove(ticket)
        cooldown_s = self.budget.cooldown_after(end)
        if cooldown_s > 0:
            self.cooling.append(CoolingSession(ticket.generation, ticket.camera, now + cooldown_s))

    def cool_also(self, sessions: Iterable[CoolingSession]) -> None:
        """Count cooling sessions of another device here, too. No session is counted twice."""
        by_generation = {session.generation: session for session in self.cooling}
        for session in sessions:
            known = by_generation.get(session.generation)
            if known is None or known.until < session.until:
                by_generation[session.generation] = session
        self.cooling = list(by_generation.values())

    def next_free_slot_at(self, now: float) -> float | None:
        """The moment when a slot comes free by itself. None when no ticket waits for a slot."""
        if not self.waiting:
            return None
        moments = [session.until for session in self.cooling]
        if self.learned is not None and self.learned.until > now:
            moments.append(self.learned.until)
        return min(moments, default=None)

    def to_preempt(self, now: float) -> list[Ticket]:
        """Held polls that must be preempted because live requests wait or the cap is exceeded.

        The newest come first. A poll that was preempted before is not returned again.
        """
        held = [t for t in self.taken if t.held]
        live = sum(t.priority is Priority.LIVE for t in self.waiting)
        too_many = max(0, len(held) - self.cap(now))
        asked_before = sum(t.preempted for t in held)
        wanted = max(0, live + too_many - asked_before)
        return [t for t in reversed(held) if t.gives_way][:wanted]

    def to_end(self) -> list[Ticket]:
        """The held tickets of this process that were not asked to end before.

        In a fleet, the session of another program is a right of the host on which it runs.
        """
        held = (t for t in (*self.taken, *self.moved) if t.held)
        return [t for t in held if not t.preempted and not t.holder.external]

    def remaining(self, now: float) -> Remaining:
        """What the device still counts, as durations."""
        cooling_s = tuple(session.until - now for session in self.cooling if session.until > now)
        learned = self.learned
        if learned is None or learned.until <= now:
            return Remaining(cooling_s)
        return Remaining(cooling_s, learned.cap, learned.until - now)

    def other_sessions(self, ticket: Ticket, now: float) -> int:
        """The number of sessions besides the ticket's own that are held or cooling down."""
        held = sum(t is not ticket and t.held for t in (*self.taken, *self.moved))
        return held + sum(session.until > now for session in self.cooling)

    def entries(self, name: str, now: float) -> list[SessionEntry]:
        """The sessions of this device that the journal has to keep."""
        held = [t.entry(name) for t in (*self.taken, *self.moved) if t.held]
        cooling = [
            SessionEntry(
                name,
                s.generation,
                external=s.claimable,
                cooling_until=None if s.claimable else s.until,
                camera=s.camera,
                observed=s.observed,
                claim_hash=s.claim_hash,
                uid=s.uid,
            )
            for s in self.cooling
            if s.until > now
        ]
        return held + cooling

    def statistics(self, name: str, now: float) -> DeviceStatistics:
        """A frozen copy of the counters and the queue."""
        learned = self.learned
        return DeviceStatistics(
            device=name,
            max_sessions=self.budget.max_sessions,
            held=tuple((t.holder, t.held_since) for t in (*self.taken, *self.moved) if t.held),
            queue=tuple(
                (t.holder, t.requested_at)
                for t in (*(t for t in self.taken if not t.held), *self.waiting)
            ),
            cooling_until=tuple(s.until for s in self.cooling if s.until > now),
            learned=learned if learned is not None and learned.until > now else None,
            granted=self.granted,
            opened=self.opened,
            held_s_total=self.held_s_total,
            busy=self.busy,
            wait_s_total=self.wait_s_total,
            wait_s_max=self.wait_s_max,
        )
