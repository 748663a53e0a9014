"""The lease table: who may open a session of which device. Pure: takes `now`, returns values.

Owns the states of tickets and the slots of devices. Must not wait, log, or read a clock.

Invariants, for each device, at every moment:
- held + offered + moved + cooling <= cap: max_sessions, or less while the device is known to give
  less (unless the cap was lowered below what was already held, a session was observed that nobody
  had asked for, or a camera brought one along);
- a free slot and a waiting ticket never exist together: the slot is offered at once, in order of
  priority, then arrival;
- an offer is a reservation: nobody passes it until its ticket accepts or withdraws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from camserver.errors import LeaseStateError
from camserver.leases.ticket import (
    Budget,
    DeviceStatistics,
    Holder,
    Learned,
    Priority,
    Ticket,
    TicketEvent,
    TicketState,
)
from camserver.model import SessionEnd

LEARNED_S, GUESSED_S = 600.0, 60.0
"""How long a device that said "full" is believed to give no more than it did then.

And one whose silence may have meant it.

Afterwards it is asked again.
"""


@dataclass(slots=True)
class _Device:
    budget: Budget
    learned: Learned | None = None
    waiting: list[Ticket] = field(default_factory=list)
    taken: list[Ticket] = field(default_factory=list)  # offered or held
    cooling_until: list[float] = field(default_factory=list)
    # Taken here; their cameras have another device by now
    moved: list[Ticket] = field(default_factory=list)
    # Generation -> its moment in cooling_until
    claimable: dict[int, float] = field(default_factory=dict)
    granted: int = 0
    opened: int = 0
    held_s_total: float = 0.0
    busy: int = 0
    wait_s_total: float = 0.0
    wait_s_max: float = 0.0


class LeaseTable:
    """All devices and their tickets.

    Methods that can free a slot return the tickets that were offered one by it; the caller wakes
    their waiters.
    """

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}
        self._cameras: dict[str, str] = {}  # camera id -> its device
        # Sessions of an earlier process on devices not known (yet)
        self._left: list[tuple[str, int, float, bool]] = []
        self._sequence = 0
        self._generation = 0

    def configure(
        self, budgets: Mapping[str, Budget], now: float, cameras: Mapping[str, str] | None = None
    ) -> list[Ticket]:
        """Make `budgets` the known devices.

        One that left stays for as long as somebody holds, waits or it cools.

        `cameras` says which device each camera is on: one that has changed it takes its tickets
        along.
        """
        for name, budget in budgets.items():
            if name in self._devices:
                self._devices[name].budget = budget
            else:
                self._devices[name] = _Device(budget)
        self._move(cameras or {}, now)
        left, self._left = self._left, []
        for name, generation, seconds, claimable in left:
            self.restore(name, generation, now + seconds, now, claimable=claimable)
        for name in set(self._devices) - set(budgets):
            device = self._devices[name]
            self._thaw(device, now)
            if not (device.waiting or device.taken or device.moved or device.cooling_until):
                del self._devices[name]
        return [ticket for name in self._devices for ticket in self.offer(name, now)]

    def _move(self, cameras: Mapping[str, str], now: float) -> None:
        """The sessions of a camera count on its device, whatever that is called by now.

        And on the one where they were opened, until they have ended: it may be the same box, or
        another that goes on. What cools down has no camera any more: it counts under both names,
        too.
        """
        pairs = {
            (old, new)
            for camera, new in cameras.items()
            if (old := self._cameras.get(camera, new)) != new
        }
        for device in self._devices.values():
            self._thaw(device, now)
        cooling = {
            old: (list(d.cooling_until), dict(d.claimable))
            for old, _ in pairs
            if (d := self._devices.get(old))
        }
        for old, new in pairs:
            until, claimable = cooling.get(old, ([], {}))
            # A session that counted on both is one
            known = Counter(self._devices[new].cooling_until)
            self._devices[new].cooling_until += (Counter(until) - known).elements()
            self._devices[new].claimable |= claimable
        for name, device in list(self._devices.items()):
            for ticket in [
                t for t in (*device.waiting, *device.taken) if cameras.get(t.camera, name) != name
            ]:
                waits = ticket in device.waiting
                (device.waiting if waits else device.taken).remove(ticket)
                if not waits:
                    device.moved.append(ticket)
                ticket.device = cameras[ticket.camera]
                new_device = self._devices[ticket.device]
                if ticket in new_device.moved:  # it comes back
                    new_device.moved.remove(ticket)
                (new_device.waiting if waits else new_device.taken).append(ticket)
        self._cameras = dict(cameras)

    def request(
        self,
        device: str,
        holder: Holder,
        priority: Priority,
        now: float,
        *,
        camera: str = "",
        ageing_since: float | None = None,
    ) -> tuple[Ticket, list[Ticket]]:
        """Enter the queue of a device.

        The ticket is already offered when a slot is free and nobody is before it.

        Also returns all tickets that were offered a slot: others may wait for one whose cool-down
        has just passed, before the timer told them. Raises LeaseStateError for a device that was
        never configured.
        """
        ticket = self._ticket(device, camera, holder, priority, now, ageing_since)
        self._devices[device].waiting.append(ticket)
        return ticket, self.offer(device, now)

    def restore(
        self, device: str, generation: int, until: float, now: float, *, claimable: bool
    ) -> None:
        """A session of an earlier process.

        Its slot is taken until then, or until its holder claims it.

        A device that is not known is waited for: its camera may come back with the next inventory.
        """
        if device in self._devices:
            self._devices[device].cooling_until.append(until)
            if claimable:
                self._devices[device].claimable[generation] = until
        elif claimable:
            self._left.append((device, generation, until - now, claimable))

    def continue_after(self, generation: int) -> None:
        """Give only generation numbers greater than those of an earlier process."""
        self._generation = max(self._generation, generation)

    def observe(self, device: str, holder: Holder, now: float, camera: str = "") -> Ticket:
        """A session that somebody has opened without asking: a fact, also when it is one too many.

        Raises LeaseStateError for a device that was never configured.
        """
        return self._hold(device, camera, holder, Priority.LIVE, now)

    def claim(
        self,
        device: str,
        generation: int,
        holder: Holder,
        priority: Priority,
        now: float,
        camera: str = "",
    ) -> Ticket | None:
        """Turn a restored session's slot into its holder's again; None when it has passed."""
        entry = self._devices.get(device)
        until = entry.claimable.pop(generation, 0.0) if entry is not None else 0.0
        if entry is None or until <= now:
            return None
        entry.cooling_until.remove(until)
        return self._hold(device, camera, holder, priority, now)

    def accept(self, ticket: Ticket, now: float) -> None:
        """Turn an offer into a held session, with a new generation number."""
        # The table is the one that changes tickets
        ticket._apply(TicketEvent.ACCEPT)  # noqa: SLF001
        self._generation += 1
        ticket.generation = self._generation
        ticket.held_since = now
        device = self._devices[ticket.device]
        waited = now - ticket.requested_at
        device.granted += 1
        device.wait_s_total += waited
        device.wait_s_max = max(device.wait_s_max, waited)

    def withdraw(self, ticket: Ticket, now: float, *, busy: bool) -> list[Ticket]:
        """Leave the queue (timed out or cancelled).

        An offer that was already made goes to the next waiter.
        """
        was_offered = ticket.state is TicketState.OFFERED
        ticket._apply(TicketEvent.WITHDRAW)  # noqa: SLF001
        device = self._devices[ticket.device]
        (device.taken if was_offered else device.waiting).remove(ticket)
        device.busy += busy
        return self._ended_elsewhere(ticket, SessionEnd.NONE, now) + self.offer(ticket.device, now)

    def release(self, ticket: Ticket, end: SessionEnd, now: float) -> list[Ticket]:
        """Give a session back after its transport was closed.

        Its slot cools down as the end demands.
        """
        ticket._apply(TicketEvent.RELEASE)  # noqa: SLF001
        device = self._devices[ticket.device]
        device.taken.remove(ticket)
        device.opened += end is not SessionEnd.NONE
        device.held_s_total += now - ticket.held_since
        cooldown_s = device.budget.cooldown_after(end)
        if cooldown_s > 0:
            device.cooling_until.append(now + cooldown_s)
        return self._ended_elsewhere(ticket, end, now) + self.offer(ticket.device, now)

    def offer(self, name: str, now: float) -> list[Ticket]:
        """Hand every free slot of a device to the waiters in order.

        Call it when a cool-down has passed.
        """
        device = self._devices.get(name)
        if device is None:  # a reload has removed it
            return []
        self._thaw(device, now)
        offered = []
        while device.waiting and self._free(device, now) > 0:
            ticket = min(device.waiting, key=lambda t: t.rank(now))
            device.waiting.remove(ticket)
            ticket._apply(TicketEvent.OFFER)  # noqa: SLF001
            device.taken.append(ticket)
            offered.append(ticket)
        return offered

    def withdraw_for_live(self, name: str, now: float) -> list[Ticket]:
        """Held polls that should be preempted: live requests wait, or the cap is exceeded.

        Each is named once, the newest first.
        """
        device = self._devices[name]
        held = [t for t in device.taken if t.held]
        wanted = sum(t.priority is Priority.LIVE for t in device.waiting) + max(
            0, len(held) - self._cap(device, now)
        )
        wanted -= sum(t.withdrawn for t in held)
        polls = [t for t in reversed(held) if t.gives_way][: max(0, wanted)]
        for ticket in polls:
            ticket.withdrawn = True
        return polls

    def other_sessions(self, ticket: Ticket, now: float) -> int:
        """Sessions of the ticket's device besides its own: held by others, or cooling down."""
        device = self._devices[ticket.device]
        held = sum(t is not ticket and t.held for t in (*device.taken, *device.moved))
        return held + sum(until > now for until in device.cooling_until)

    def refused(self, ticket: Ticket, now: float, *, certain: bool) -> Learned | None:
        """The device was full for this ticket's session.

        Busy, and it gives no more than it gave to others just now.

        `certain` when it said so; silence, a wrong password or an end of the connection may mean
        something else. Returns what was learned, if anything was: alone, a session was refused for
        somebody we do not know of.
        """
        device = self._devices[ticket.device]
        device.busy += 1
        other_sessions = self.other_sessions(ticket, now)
        if not 0 < other_sessions < device.budget.max_sessions:
            return None
        device.learned = Learned(other_sessions, now + (LEARNED_S if certain else GUESSED_S))
        return device.learned

    def learn(self, name: str, learned: Learned) -> None:
        """What an earlier process learned of a device."""
        if name in self._devices:
            self._devices[name].learned = learned

    def names(self) -> tuple[str, ...]:
        """Of all devices for which somebody waits."""
        return tuple(name for name, device in self._devices.items() if device.waiting)

    def next_thaw(self, name: str, now: float) -> float | None:
        """When a device has another slot by itself, if somebody waits for it; or None."""
        device = self._devices.get(name)
        if device is None:
            return None
        moments = list(device.cooling_until)
        if device.learned is not None and device.learned.until > now:
            moments.append(device.learned.until)
        return min(moments) if device.waiting and moments else None

    def statistics(self, now: float) -> tuple[DeviceStatistics, ...]:
        """A frozen picture of every device."""
        return tuple(
            DeviceStatistics(
                device=name,
                max_sessions=d.budget.max_sessions,
                held=tuple((t.holder, t.held_since) for t in (*d.taken, *d.moved) if t.held),
                queue=tuple(
                    (t.holder, t.requested_at)
                    for t in (*(t for t in d.taken if not t.held), *d.waiting)
                ),
                cooling_until=tuple(until for until in d.cooling_until if until > now),
                learned=d.learned if d.learned is not None and d.learned.until > now else None,
                granted=d.granted,
                opened=d.opened,
                held_s_total=d.held_s_total,
                busy=d.busy,
                wait_s_total=d.wait_s_total,
                wait_s_max=d.wait_s_max,
            )
            for name, d in self._devices.items()
        )

    @staticmethod
    def _thaw(device: _Device, now: float) -> None:
        device.cooling_until = [until for until in device.cooling_until if until > now]

    def _free(self, device: _Device, now: float) -> int:
        return (
            self._cap(device, now)
            - len(device.taken)
            - len(device.moved)
            - len(device.cooling_until)
        )

    def _ended_elsewhere(self, ticket: Ticket, end: SessionEnd, now: float) -> list[Ticket]:
        """A ticket has ended that counted on devices where its camera was before."""
        offered = []
        for name, device in self._devices.items():
            if ticket in device.moved:
                device.moved.remove(ticket)
                if (cooldown_s := device.budget.cooldown_after(end)) > 0:
                    device.cooling_until.append(now + cooldown_s)
                offered += self.offer(name, now)
        return offered

    @staticmethod
    def _cap(device: _Device, now: float) -> int:
        learned = device.learned
        if learned is None or learned.until <= now:
            return device.budget.max_sessions
        return min(learned.cap, device.budget.max_sessions)

    def _ticket(
        self,
        device: str,
        camera: str,
        holder: Holder,
        priority: Priority,
        now: float,
        ageing_since: float | None = None,
    ) -> Ticket:
        if device not in self._devices:
            raise LeaseStateError(f"device {device} is not in the inventory")
        self._sequence += 1
        return Ticket(
            device,
            camera,
            holder,
            priority,
            self._sequence,
            now,
            now if ageing_since is None else ageing_since,
        )

    def _hold(
        self, device: str, camera: str, holder: Holder, priority: Priority, now: float
    ) -> Ticket:
        """A ticket for a session that is open already."""
        ticket = self._ticket(device, camera, holder, priority, now)
        ticket._apply(TicketEvent.OFFER)  # noqa: SLF001 - the table is the one that changes tickets
        self._devices[device].taken.append(ticket)
        self.accept(ticket, now)
        return ticket
