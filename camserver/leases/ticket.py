"""What the lease table is made of: priorities, tickets and their states, budgets, statistics.

Pure values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

from camserver.errors import LeaseStateError
from camserver.model import SessionEnd

AGEING_S = 10.0
"""A waiter rises by one priority for every AGEING_S it has waited, so that a busy live view cannot
starve polling.
"""


class Priority(IntEnum):
    """Who goes first; lower is sooner."""

    LIVE = 0
    EVENT = 1
    POLL = 2


class TicketState(StrEnum):
    """Where a request for a session stands."""

    WAITING = "waiting"
    OFFERED = "offered"
    HELD = "held"
    RETURNED = "returned"
    WITHDRAWN = "withdrawn"


class TicketEvent(StrEnum):
    """What can happen to a ticket."""

    OFFER = "offer"
    ACCEPT = "accept"
    WITHDRAW = "withdraw"
    RELEASE = "release"


TRANSITIONS: Mapping[tuple[TicketState, TicketEvent], TicketState] = {
    (TicketState.WAITING, TicketEvent.OFFER): TicketState.OFFERED,
    (TicketState.WAITING, TicketEvent.WITHDRAW): TicketState.WITHDRAWN,
    (TicketState.OFFERED, TicketEvent.ACCEPT): TicketState.HELD,
    (TicketState.OFFERED, TicketEvent.WITHDRAW): TicketState.WITHDRAWN,
    (TicketState.HELD, TicketEvent.RELEASE): TicketState.RETURNED,
}


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks for a session: `kind` is poller, snapshot, live or external; `label` says which one.

    `pid`, `uid` and `command` are another program's, as the kernel names it.
    """

    kind: str
    label: str = ""
    pid: int = 0
    uid: int | None = None
    command: str = ""

    @property
    def external(self) -> bool:
        """Whether another program has the session: it outlives this process."""
        return self.kind in ("live", "external")

    @property
    def name(self) -> str:
        """As a person would say it: the label, or the kind where there is none."""
        return (self.label or self.kind) + (f" (pid {self.pid})" if self.pid else "")

    def __str__(self) -> str:
        return f"{self.kind} {self.label}".rstrip() + (f" (pid {self.pid})" if self.pid else "")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a device gives.

    Sessions at once, and for how long it still counts one after it was closed.
    """

    max_sessions: int = 1
    cooldown_s: float = 0.25
    unclean_cooldown_s: float = 5.0

    def cooldown_after(self, end: SessionEnd) -> float:
        """Seconds a slot stays taken after a session that ended so."""
        match end:
            case SessionEnd.NONE:
                return 0.0
            case SessionEnd.CLEAN:
                return self.cooldown_s
            case SessionEnd.UNCLEAN:
                return self.unclean_cooldown_s


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """One session on one device, as the journal keeps it.

    A session counts on more than one device when its camera was moved while it was open: then each
    has an entry.
    """

    device: str
    generation: int
    external: bool
    """Another program has the session, and may claim it from the next process."""
    cooling_until: float | None = None
    """When it was closed: the end of its cool-down, in seconds of the keeper's clock.

    The lease table keeps the event loop's time, the journal seconds since 1970. None: it was open.
    """
    camera: str = ""
    observed: bool = False
    """Nobody asked for it: another program opened it, and nobody will claim it."""

    @property
    def claimable(self) -> bool:
        """Whether another program may still have it."""
        return self.external and self.cooling_until is None

    def shifted(self, by_s: float) -> SessionEntry:
        """The same by another clock."""
        if self.cooling_until is None:
            return self
        return replace(self, cooling_until=self.cooling_until + by_s)


@dataclass(eq=False, slots=True)
class Ticket:
    """One request for one session; identity is the object itself. Only the table changes it."""

    device: str
    """By its name of today: a reload may change it."""
    camera: str
    holder: Holder
    priority: Priority
    sequence: int
    requested_at: float
    ageing_since: float
    """When its camera first asked in vain.

    A poll gives up after lease_wait, comes again, and must get older all the same.
    """
    state: TicketState = TicketState.WAITING
    generation: int = 0
    held_since: float = 0.0
    preempted: bool = False
    """Its holder was asked to give way; it holds on until its transport is closed."""
    observed: bool = False
    """Nobody asked for it: another program has opened the session."""
    moved_from: list[str] = field(default_factory=list)
    """Devices where its camera was before a reload. The session counts there as well."""

    @property
    def held(self) -> bool:
        """Whether its holder may have a session open."""
        return self.state is TicketState.HELD

    def apply(self, event: TicketEvent) -> None:
        """Go to the next state. Raises LeaseStateError when the event is impossible now."""
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise LeaseStateError(
                f"lease of {self.device} for {self.holder}: {event} is impossible when {self.state}"
            ) from None

    def entry(self, device: str) -> SessionEntry:
        """What the journal says of the held session, on one of its devices."""
        return SessionEntry(
            device,
            self.generation,
            external=self.holder.external and device == self.device,
            camera=self.camera,
            observed=self.observed,
        )

    def rank(self, now: float) -> tuple[int, float, int]:
        """Sort key among waiters: aged priority, then who has asked for longest, then arrival."""
        return (
            max(0, self.priority - int((now - self.ageing_since) / AGEING_S)),
            self.ageing_since,
            self.sequence,
        )

    @property
    def gives_way(self) -> bool:
        """Whether it can be asked to give way.

        A poll, unless it has waited so long that it came as soon as live.
        """
        return (
            self.priority is Priority.POLL
            and not self.preempted
            and self.rank(self.held_since)[0] > Priority.LIVE
        )


@dataclass(frozen=True, slots=True)
class Learned:
    """A device gives only `cap` sessions, as it said itself; believed until a moment."""

    cap: int
    until: float


@dataclass(frozen=True, slots=True)
class DeviceStatistics:
    """A frozen picture of one device.

    Counters since start, moments of the monotonic clock, seconds.
    """

    device: str
    max_sessions: int
    held: tuple[tuple[Holder, float], ...]
    """Each holder with the moment since when."""
    queue: tuple[tuple[Holder, float], ...]
    """Who waits, likewise, in order of arrival."""
    cooling_until: tuple[float, ...]
    learned: Learned | None
    granted: int
    opened: int
    """Leases under which a session was opened, as far as their ends tell."""
    held_s_total: float
    busy: int
    wait_s_total: float
    wait_s_max: float

    @property
    def waiting(self) -> int:
        """How many wait for a session."""
        return len(self.queue)

    @property
    def cooling(self) -> int:
        """How many sessions the device may still count although they are closed."""
        return len(self.cooling_until)
