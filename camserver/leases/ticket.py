"""The values of the lease table: priorities, tickets and their states, budgets, statistics."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

from camserver.errors import LeaseStateError
from camserver.model import SessionEnd

AGEING_S = 10.0
"""A waiter rises by one priority for every AGEING_S seconds that it has waited. So a busy live view
cannot starve polling.
"""


class Priority(IntEnum):
    """The priority of a request. A lower value is served first."""

    LIVE = 0
    EVENT = 1
    POLL = 2


class TicketState(StrEnum):
    """The state of a request for a session."""

    WAITING = "waiting"
    OFFERED = "offered"
    HELD = "held"
    RETURNED = "returned"
    WITHDRAWN = "withdrawn"


class TicketEvent(StrEnum):
    """An event that changes the state of a ticket."""

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
    """Who requests or holds a session.

    `kind` is poller, snapshot, live or external. `label` says which one. `pid`, `uid` and `command`
    describe another program, as the kernel reports it.
    """

    kind: str
    label: str = ""
    pid: int = 0
    uid: int | None = None
    command: str = ""
    keeps_secret: bool = False
    """Whether the program claims its lease by a secret. Programs of earlier versions do not."""

    @property
    def external(self) -> bool:
        """Whether another program has the session. Then the session outlives this process."""
        return self.kind in ("live", "external")

    @property
    def name(self) -> str:
        """The name for a person: the label, or the kind when there is no label."""
        return (self.label or self.kind) + (f" (pid {self.pid})" if self.pid else "")

    def __str__(self) -> str:
        return f"{self.kind} {self.label}".rstrip() + (f" (pid {self.pid})" if self.pid else "")


@dataclass(frozen=True, slots=True)
class Budget:
    """The number of sessions a device gives at once, and how long it counts a closed session."""

    max_sessions: int = 1
    cooldown_s: float = 0.25
    unclean_cooldown_s: float = 5.0

    def cooldown_after(self, end: SessionEnd) -> float:
        """The seconds that a slot stays taken after a session that ended with `end`."""
        match end:
            case SessionEnd.NONE:
                return 0.0
            case SessionEnd.CLEAN:
                return self.cooldown_s
            case SessionEnd.UNCLEAN:
                return self.unclean_cooldown_s


@dataclass(frozen=True, slots=True)
class Claim:
    """What proves that a lease is a program's own, when it takes it again from the next daemon.

    The generation names the lease, and everybody may know it. The secret is known only to the
    program that got the lease. The journal has only its hash.
    """

    generation: int
    secret: str = field(default="", repr=False)

    @classmethod
    def new(cls, generation: int) -> Claim:
        """A claim with a new secret."""
        return cls(generation, secrets.token_hex(16))

    @classmethod
    def parse(cls, text: str) -> Claim:
        """The claim in its text form. Raises ValueError."""
        generation, _, secret = text.partition(".")
        return cls(int(generation), secret)

    def __str__(self) -> str:
        return f"{self.generation}.{self.secret}"

    @property
    def hash(self) -> str:
        """What the journal keeps of the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:32]

    def is_of(self, generation: int, claim_hash: str, uid: int | None, by_uid: int | None) -> bool:
        """Whether it is the claim of a lease, and comes from its user.

        Without a hash the generation is enough: the program does not keep a secret (it is one of
        an earlier version), or the journal is of an earlier version. Such a journal has no uid.
        """
        return (
            self.generation == generation
            and (not claim_hash or hmac.compare_digest(claim_hash, self.hash))
            and (uid is None or uid == by_uid)
        )


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """One session on one device, as the journal keeps it.

    When a camera moves to another device while its session is open, the session counts on both
    devices. Then each device has an entry.
    """

    device: str
    generation: int
    external: bool
    """Another program has the session, and may claim it from the next process."""
    cooling_until: float | None = None
    """The end of the cool-down of a closed session. None: the session is open.

    The clock depends on the owner: the lease table uses seconds of the event loop's clock, the
    journal uses seconds since 1970.
    """
    camera: str = ""
    observed: bool = False
    """Another program opened the session without a request, and will not claim it."""
    claim_hash: str = ""
    uid: int | None = None
    """The user of the other program, and the hash of the secret by which it claims the session."""

    @property
    def claimable(self) -> bool:
        """Whether another program may still have it."""
        return self.external and self.cooling_until is None

    def shifted(self, by_s: float) -> SessionEntry:
        """A copy with its moment moved by `by_s` seconds, to another clock."""
        if self.cooling_until is None:
            return self
        return replace(self, cooling_until=self.cooling_until + by_s)


@dataclass(eq=False, slots=True)
class Ticket:
    """One request for one session, compared by identity. Only the lease table changes it."""

    device: str
    """The current name of the device. A reload may change it."""
    camera: str
    holder: Holder
    priority: Priority
    sequence: int
    requested_at: float
    ageing_since: float
    """The moment of the first request that got no lease.

    A poll gives up after lease_wait and requests again. Its age must continue to grow, so it is
    counted from the first request.
    """
    state: TicketState = TicketState.WAITING
    generation: int = 0
    held_since: float = 0.0
    preempted: bool = False
    """The holder was asked to end its session. It keeps the lease until its transport is closed."""
    observed: bool = False
    """Another program opened the session without a request."""
    claim: Claim | None = None
    """What the holder in another process may claim the session by."""
    moved_from: list[str] = field(default_factory=list)
    """Earlier devices of the camera, before a reload. The session also counts there."""

    @property
    def held(self) -> bool:
        """Whether the holder may have an open session."""
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
        """The journal's entry of the held session, on one of its devices."""
        return SessionEntry(
            device,
            self.generation,
            external=self.holder.external and device == self.device,
            camera=self.camera,
            observed=self.observed,
            claim_hash="" if self.claim is None else self.claim.hash,
            uid=self.holder.uid,
        )

    def rank(self, now: float) -> tuple[int, float, int]:
        """The sort key of waiters: aged priority, then `ageing_since`, then arrival."""
        return (
            max(0, self.priority - int((now - self.ageing_since) / AGEING_S)),
            self.ageing_since,
            self.sequence,
        )

    @property
    def gives_way(self) -> bool:
        """Whether the ticket can be preempted.

        Only a poll can, and only if its waiting time had not yet raised it to live priority.
        """
        return (
            self.priority is Priority.POLL
            and not self.preempted
            and self.rank(self.held_since)[0] > Priority.LIVE
        )


@dataclass(frozen=True, slots=True)
class Learned:
    """What a device showed about its budget: it gives only `cap` sessions, until `until`."""

    cap: int
    until: float

    def shifted(self, by_s: float) -> Learned:
        """A copy with its moment moved by `by_s` seconds, to another clock."""
        return replace(self, until=self.until + by_s)


@dataclass(frozen=True, slots=True)
class DeviceStatistics:
    """Frozen statistics of one device.

    Counters run since the start. Moments are in seconds of the monotonic clock.
    """

    device: str
    max_sessions: int
    held: tuple[tuple[Holder, float], ...]
    """Each holder, and the moment when it got the session."""
    queue: tuple[tuple[Holder, float], ...]
    """Each waiter, and the moment of its request, in order of arrival."""
    cooling_until: tuple[float, ...]
    learned: Learned | None
    granted: int
    opened: int
    """The number of leases under which a session was opened, judged by how they ended."""
    held_s_total: float
    busy: int
    wait_s_total: float
    wait_s_max: float

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a session."""
        return len(self.queue)

    @property
    def cooling(self) -> int:
        """The number of closed sessions that the device may still count."""
        return len(self.cooling_until)
