"""The lease table: who may open a session of which device.

The code is pure: it takes `now` and returns values. It owns the states of tickets and the slots of
devices. It must not wait, log, or read a clock.

Invariants, for each device, at every moment:
- held + offered + moved + cooling <= cap. The cap is max_sessions, or less while the device is
  known to give less. There are three exceptions: the cap was lowered below what was already held; a
  session was observed that nobody had requested; a camera moved here together with its session.
- A free slot and a waiting ticket never exist together. The slot is offered at once, in order of
  priority, then arrival.
- An offer is a reservation: no other ticket gets it until its ticket accepts or withdraws.

Only `configure`, `entries`, `learned` and `statistics` look at more than the devices of one ticket.
So a release costs the same with 100 devices and with 20,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from camserver.errors import LeaseStateError
from camserver.leases.device import CoolingSession, Device
from camserver.leases.moves import move_cameras
from camserver.leases.right import HostRight, Inherited, Remaining
from camserver.leases.ticket import (
    Budget,
    Claim,
    DeviceStatistics,
    Holder,
    Learned,
    Priority,
    SessionEntry,
    Ticket,
    TicketEvent,
    TicketState,
)
from camserver.model import SessionEnd

LEARNED_S, GUESSED_S = 600.0, 60.0
"""How long a learned cap is used: LEARNED_S when the device said "full", GUESSED_S when its silence
may have meant "full". Afterwards more sessions are tried again.
"""
CLAIM_S = 10.0
"""How long another program has to claim its lease from the next process."""


class LeaseTable:
    """All devices and their tickets.

    Methods that can free a slot return the tickets that got an offer. The caller wakes their
    waiters.
    """

    def __init__(self, right: HostRight | None = None) -> None:
        self.right = right or HostRight()
        self._devices: dict[str, Device] = {}
        self._cameras: dict[str, str] = {}  # camera id -> its device
        # Sessions of an earlier process on devices that are not known (yet)
        self._unknown: list[SessionEntry] = []
        self._sequence = 0
        self.generation = 0
        """The last generation number that was given."""

    def configure(
        self, budgets: Mapping[str, Budget], now: float, cameras: Mapping[str, str] | None = None
    ) -> list[Ticket]:
        """Make `budgets` the known devices.

        A removed device stays while it has a holder, a waiter or a cooling session.

        `cameras` says which device each camera is on. When a camera changes its device, its tickets
        move with it.
        """
        for name, budget in budgets.items():
            if name in self._devices:
                self._devices[name].budget = budget
            else:
                self._devices[name] = Device(budget)
        for device in self._devices.values():
            device.drop_cooled(now)
        if cameras is not None:
            move_cameras(self._devices, self._cameras, cameras)
            self._cameras = dict(cameras)
        unknown, self._unknown = self._unknown, []
        for entry in unknown:
            self.restore(entry, now)
        for name in set(self._devices) - set(budgets) - set(self.in_use()):
            del self._devices[name]
        return [ticket for name in self.in_use() for ticket in self.offer(name, now)]

    def in_use(self) -> list[str]:
        """The devices that count a session or have a waiter."""
        return [name for name, device in self._devices.items() if not device.unused]

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

        The ticket gets its offer at once when a slot is free and no ticket is before it.

        Also returns all tickets that got an offer: a cool-down may have just passed before its
        timer ran, so other waiters may get a slot, too. Raises LeaseStateError for a device that
        was never configured.
        """
        ticket = self._ticket(device, camera, holder, priority, now, ageing_since)
        self._devices[device].waiting.append(ticket)
        return ticket, self.offer(device, now)

    def restore(self, entry: SessionEntry, now: float) -> None:
        """Count a session of an earlier process.

        A session of another program waits at least CLAIM_S for its claim. Any other session cools
        down, at most as long as after an unclean end, because the wall clock may have been set
        meanwhile. When the device of another program's session is not known, the session is kept
        aside: the next inventory may bring the device back.
        """
        device = self._devices.get(entry.device)
        if device is None:
            if entry.claimable:
                self._unknown.append(entry)
            return
        until = now + device.budget.unclean_cooldown_s
        if entry.claimable:
            until = max(until, now + CLAIM_S)
        elif entry.cooling_until is not None:
            until = min(until, entry.cooling_until)
        if until > now:
            device.cooling.append(
                CoolingSession(
                    entry.generation,
                    entry.camera,
                    until,
                    entry.claimable,
                    entry.observed,
                    entry.claim_hash,
                    entry.uid,
                )
            )

    def continue_after(self, generation: int) -> None:
        """Give only generation numbers greater than those of an earlier process."""
        self.generation = max(self.generation, generation)

    def observe(
        self, device: str, holder: Holder, now: float, camera: str = ""
    ) -> tuple[Ticket, int]:
        """Count a session that another program opened without a request, even above the cap.

        Also returns the generation under which an earlier process had observed it, or 0. Raises
        LeaseStateError for a device that was never configured.
        """
        before = next(
            (
                session
                for session in self._device(device).cooling
                if session.observed and session.camera == camera and session.until > now
            ),
            None,
        )
        if before is not None:
            self._devices[device].cooling.remove(before)
        ticket = self.hold(device, camera, holder, Priority.LIVE, now)
        ticket.observed = True
        return ticket, 0 if before is None else before.generation

    def claim(
        self,
        device: str,
        claim: Claim,
        holder: Holder,
        priority: Priority,
        now: float,
        camera: str = "",
    ) -> Ticket | None:
        """Give the slot of a restored session back to its holder.

        None when it has expired, or when the claim is not the holder's.
        """
        entry = self._devices.get(device)
        for session in entry.cooling if entry is not None else ():
            is_holder = claim.is_of(session.generation, session.claim_hash, session.uid, holder.uid)
            if session.claimable and is_holder and session.until > now:
                self._devices[device].cooling.remove(session)
                return self.hold(device, camera, holder, priority, now)
        return None

    def hold(
        self, device: str, camera: str, holder: Holder, priority: Priority, now: float
    ) -> Ticket:
        """A ticket for a session that is open already, even above the cap.

        Raises LeaseStateError for a device that was never configured.
        """
        ticket = self._ticket(device, camera, holder, priority, now)
        ticket.apply(TicketEvent.OFFER)
        self._devices[device].taken.append(ticket)
        self.accept(ticket, now)
        return ticket

    def accept(self, ticket: Ticket, now: float) -> None:
        """Turn an offer into a held session, with a new generation number."""
        ticket.apply(TicketEvent.ACCEPT)
        self.generation += 1
        ticket.generation = self.generation
        ticket.held_since = now
        device = self._devices[ticket.device]
        waited = now - ticket.requested_at
        device.granted += 1
        device.wait_s_total += waited
        device.wait_s_max = max(device.wait_s_max, waited)

    def withdraw(self, ticket: Ticket, now: float, *, busy: bool) -> list[Ticket]:
        """Remove a ticket that timed out or was cancelled from the queue.

        If it already had an offer, the offer goes to the next waiter. `busy` counts the request as
        not served.
        """
        was_offered = ticket.state is TicketState.OFFERED
        ticket.apply(TicketEvent.WITHDRAW)
        device = self._devices[ticket.device]
        device.busy += busy
        if was_offered:
            return self._end(ticket, SessionEnd.NONE, now)
        device.waiting.remove(ticket)
        return self.offer(ticket.device, now)

    def release(self, ticket: Ticket, end: SessionEnd, now: float) -> list[Ticket]:
        """Give a session back after its transport was closed.

        Its slot cools down as `end` requires, on every device where the session counted.
        """
        ticket.apply(TicketEvent.RELEASE)
        device = self._devices[ticket.device]
        device.opened += end is not SessionEnd.NONE
        device.held_s_total += now - ticket.held_since
        return self._end(ticket, end, now)

    def _end(self, ticket: Ticket, end: SessionEnd, now: float) -> list[Ticket]:
        offered = []
        for name in devices_of(ticket):
            self._devices[name].end(ticket, end, now)
            offered += self.offer(name, now)
        return offered

    def cooldown_until(self, device: str, end: SessionEnd, now: float) -> float:
        """The moment when a device stops counting a session that ended with `end`."""
        return now + self._device(device).budget.cooldown_after(end)

    def offer(self, name: str, now: float) -> list[Ticket]:
        """Offer every free slot of a device to the waiters in order.

        Call it when a cool-down has passed.
        """
        device = self._devices.get(name)
        if device is None or not self.right.covers(name, now):  # None: a reload removed the device
            return []
        return device.offer(now)

    def preempt(self, name: str, now: float) -> list[Ticket]:
        """Mark and return the held tickets to preempt.

        Polls are preempted when live requests wait, or when the cap is exceeded; the newest come
        first. Every ticket is preempted when this host has no right to the device. A ticket that
        was preempted before is not returned again.
        """
        device = self._devices[name]
        has_right = self.right.covers(name, now)
        tickets = device.to_preempt(now) if has_right else device.to_end()
        for ticket in tickets:
            ticket.preempted = True
        return tickets

    # ---- a fleet

    def own(self, name: str, inherited: Inherited, now: float) -> list[Ticket]:
        """Become the owner of a device, with the sessions that it still counts."""
        device = self._device(name)
        self.right.owned.add(name)
        for until in inherited.cooling_until:
            self.cool(name, until)
        if inherited.cap is not None and inherited.cap_until > now:
            device.learned = Learned(inherited.cap, inherited.cap_until)
        return self.offer(name, now)

    def cool(self, name: str, until: float) -> None:
        """Count a session that has ended elsewhere, until a moment."""
        self.generation += 1
        self._device(name).cooling.append(CoolingSession(self.generation, "", until))

    def disown(self, name: str) -> None:
        """Give up a device. The holders of its sessions must be preempted."""
        self.right.owned.discard(name)

    def is_held(self, name: str) -> bool:
        """Whether this process may have a session of a device."""
        device = self._devices.get(name)
        tickets = () if device is None else (*device.taken, *device.moved)
        return any(ticket.held and not ticket.holder.external for ticket in tickets)

    def remaining(self, name: str, now: float) -> Remaining:
        """What a device still counts, for its next owner."""
        device = self._devices.get(name)
        return Remaining() if device is None else device.remaining(now)

    def other_sessions(self, ticket: Ticket, now: float) -> int:
        """The number of other sessions of the ticket's device: held or cooling down."""
        return self._devices[ticket.device].other_sessions(ticket, now)

    def refused(self, ticket: Ticket, now: float, *, certain: bool) -> Learned | None:
        """Note that the device was full for this ticket's session.

        The request counts as busy, and the number of other sessions becomes the device's cap.

        `certain` is true when the device said so. Silence, a wrong password or a closed connection
        may have another reason. Returns the learned cap, or None: when no other session of ours was
        open, the device was full with sessions that we do not know.
        """
        device = self._devices[ticket.device]
        device.busy += 1
        other_sessions = self.other_sessions(ticket, now)
        if not 0 < other_sessions < device.budget.max_sessions:
            return None
        device.learned = Learned(other_sessions, now + (LEARNED_S if certain else GUESSED_S))
        return device.learned

    def learn(self, name: str, learned: Learned) -> None:
        """Take over what an earlier process learned of a device."""
        if name in self._devices:
            self._devices[name].learned = learned

    def next_free_slot_at(self, name: str, now: float) -> float | None:
        """The moment when a slot comes free by itself. None when no ticket waits for a slot."""
        device = self._devices.get(name)
        if device is None or not self.right.covers(name, now):
            return None
        return device.next_free_slot_at(now)

    def entries(self, now: float) -> Iterator[SessionEntry]:
        """The sessions that the next process has to know."""
        for name, device in self._devices.items():
            yield from device.entries(name, now)
        yield from self._unknown

    def learned(self, now: float) -> dict[str, Learned]:
        """The learned caps that are still valid, by device."""
        return {
            name: device.learned
            for name, device in self._devices.items()
            if device.learned is not None and device.learned.until > now
        }

    def device_statistics(self, name: str, now: float) -> DeviceStatistics:
        """Frozen statistics of one device. Raises LeaseStateError when it is not known."""
        return self._device(name).statistics(name, now)

    def statistics(self, now: float) -> tuple[DeviceStatistics, ...]:
        """Frozen statistics of every device."""
        return tuple(device.statistics(name, now) for name, device in self._devices.items())

    def _device(self, name: str) -> Device:
        try:
            return self._devices[name]
        except KeyError:
            raise LeaseStateError(f"device {name} is not in the inventory") from None

    def _ticket(
        self,
        device: str,
        camera: str,
        holder: Holder,
        priority: Priority,
        now: float,
        ageing_since: float | None = None,
    ) -> Ticket:
        self._device(device)
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


def devices_of(ticket: Ticket) -> Iterable[str]:
    """The devices where a ticket counts: its own, and those of its camera before a reload."""
    return (ticket.device, *ticket.moved_from)
