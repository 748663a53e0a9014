"""RtspManager: lets callers wait for leases of the pure lease table.

It owns only the waiters and the cool-down timers.

First rule: a lease ends when the transport is proven closed, never when a task is cancelled. So
this module never releases a held lease on its own. The code that closed the transport releases it:
it leaves the lease's `with` block.

Races that are handled: a waiter may be cancelled or time out in the same loop turn in which it gets
an offer. When it is cancelled, the offer goes to the next waiter. When it times out, it takes the
offer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from camserver.errors import RtspBusy
from camserver.events import CapLearned, Event, LeaseAcquired, LeaseReleased, LeaseWithdrawn
from camserver.leases.busy import busy_error
from camserver.leases.http_device import http_device
from camserver.leases.journal import JournalState, LeaseJournal, state_of
from camserver.leases.lease import RtspLease
from camserver.leases.right import HostRight, Inherited, Preemption, Remaining
from camserver.leases.table import LEARNED_S, LeaseTable, devices_of
from camserver.leases.ticket import (
    Budget,
    Claim,
    DeviceStatistics,
    Holder,
    Learned,
    Priority,
    SessionEntry,
    Ticket,
    TicketState,
)
from camserver.leases.vacancy import Vacancy
from camserver.leases.waiters import Waiters
from camserver.model import SessionEnd

LEASE_WAIT_S = 5.0


class RtspManager:
    """Gives leases within the budget of each device.

    A process has one instance. It writes a lease to the journal before it hands the lease out.
    """

    def __init__(
        self,
        emit: Callable[[Event], None] = lambda _: None,
        journal: LeaseJournal | None = None,
        wall: Callable[[], float] = time.time,
        *,
        in_fleet: bool = False,
    ) -> None:
        """`in_fleet`: no device is this host's until `own` says so."""
        self._table = LeaseTable(HostRight(in_fleet=in_fleet))
        self._emit = emit
        self._journal = journal
        self._wall = wall
        self._waiters = Waiters(self._table)
        self._vacancy = Vacancy()
        # Not the leases: a reference would hide a lease that was dropped without release
        self._preempted: dict[Ticket, asyncio.Future[Preemption]] = {}
        # (camera, device) of polls -> the moment since when they get no lease
        self._starved_since: dict[tuple[str, str], float] = {}

    def configure(
        self, budgets: Mapping[str, Budget], cameras: Mapping[str, str] | None = None
    ) -> None:
        """Make `budgets` the known devices. Leases that are held stay valid.

        `cameras` says which device each camera is on. When a camera changes its device, its holders
        and waiters move with it.
        """
        self._waiters.wake(self._table.configure(budgets, _now(), cameras))
        for device in self._table.in_use():
            if device in budgets:
                self._waiters.arm(device)
                self._preempt(device)
        self._starved_since = {
            key: since for key, since in self._starved_since.items() if key[1] in budgets
        }

    def restore(self, state: JournalState) -> None:
        """Take over the sessions of an earlier process, and start the journal with them.

        Sessions of that process cool down as unclean. Sessions of other programs wait for a claim.
        """
        now, shift_s = _now(), _now() - self._wall()
        self._table.continue_after(state.generation)
        for entry in state.sessions.values():
            self._table.restore(entry.shifted(shift_s), now)
        for device, learned in state.learned.items():
            until = min(learned.until + shift_s, now + LEARNED_S)
            if until > now and learned.cap > 0:
                self._table.learn(device, replace(learned, until=until))
        self._rewrite_journal()

    def observe(self, camera: str, device: str, holder: Holder) -> RtspLease:
        """Count a session that another program has opened without a request.

        It counts until the returned lease is released. When it is one session too many, polls are
        preempted. Raises LeaseStateError for a device that is not in the inventory.
        """
        ticket, claimed = self._table.observe(device, holder, _now(), camera)
        lease = self._lease(ticket, claimed)
        self._preempt(device)
        return lease

    def claim(
        self, camera: str, device: str, holder: Holder, claim: Claim, *, priority: Priority
    ) -> RtspLease | None:
        """The lease that an earlier process gave. None when it is too late, or not the holder's."""
        ticket = self._table.claim(device, claim, holder, priority, _now(), camera)
        if ticket is None:
            return None
        lease = self._lease(ticket, claim.generation)
        self._preempt(device)  # live may have asked before it was claimed
        return lease

    async def acquire(
        self,
        camera: str,
        device: str,
        holder: Holder,
        *,
        priority: Priority = Priority.POLL,
        lease_wait_s: float = LEASE_WAIT_S,
    ) -> RtspLease:
        """Wait for a session of `device`, at most `lease_wait_s` seconds.

        Raises RtspBusy when no session came free, and LeaseStateError for a device that is not in
        the inventory.
        """
        key = (camera, device)
        poll = priority is Priority.POLL and not holder.external
        ageing_since = self._starved_since.get(key) if poll else None
        ticket, offered = self._table.request(
            device, holder, priority, _now(), camera=camera, ageing_since=ageing_since
        )
        self._waiters.wake(offered)
        if ticket.state is TicketState.WAITING:
            try:
                await self._wait(ticket, camera, lease_wait_s)
            except RtspBusy:
                if poll:
                    self._starved_since.setdefault(key, ticket.requested_at)
                raise
        if poll:
            self._starved_since.pop(key, None)
        if why := self._objection(ticket, device):
            self._waiters.wake(self._table.withdraw(ticket, _now(), busy=False))
            raise RtspBusy(why, camera=camera)
        return self._grant(ticket)

    def _objection(self, ticket: Ticket, device: str) -> str:
        """Why an offer must not be taken any more. Empty when it may."""
        if not self._table.right.covers(ticket.device, _now()):
            return Preemption.NO_RIGHT
        # The caller would open a session on the device of the old inventory
        if ticket.device != device and not ticket.holder.external:
            return f"its device is {ticket.device} by now, not {device}"
        return ""

    def try_acquire(
        self,
        camera: str,
        device: str,
        holder: Holder,
        *,
        priority: Priority = Priority.POLL,
    ) -> RtspLease | None:
        """A lease of `device` if a session is free now and no ticket waits for it, else None."""
        ticket, offered = self._table.request(device, holder, priority, _now(), camera=camera)
        self._waiters.wake(offered)
        if ticket.state is TicketState.WAITING:
            self._waiters.wake(self._table.withdraw(ticket, _now(), busy=True))
            return None
        return self._grant(ticket)

    def statistics(self) -> tuple[DeviceStatistics, ...]:
        """Frozen statistics of every device, for logs, pages and metrics."""
        return self._table.statistics(_now())

    @property
    def sessions(self) -> int:
        """The number of sessions that are held now."""
        return len(self._preempted)

    def device_statistics(self, device: str) -> DeviceStatistics:
        """Frozen statistics of one device. Raises LeaseStateError for an unknown device."""
        return self._table.device_statistics(device, _now())

    # ---- a fleet: what this host may open

    def extend(self, until: float) -> None:
        """Let this host have sessions of its devices until a moment of the loop's clock.

        The last call counts.
        """
        right = self._table.right
        had_lapsed = right.until <= _now()
        right.until = until
        if had_lapsed:
            for device in right.owned:
                self._offer(device)
                self._offer(http_device(device))

    def own(self, device: str, inherited: Inherited) -> None:
        """Become the owner of a device. Raises LeaseStateError for an unknown one."""
        self._waiters.wake(self._table.own(device, inherited, _now()))
        self._waiters.arm(device)
        self._offer(http_device(device))

    def _offer(self, device: str) -> None:
        self._waiters.wake(self._table.offer(device, _now()))
        self._waiters.arm(device)

    def hold(self, camera: str, device: str, holder: Holder, priority: Priority) -> RtspLease:
        """Count a session that a program has by a lease of the device's last owner.

        Raises LeaseStateError for an unknown device.
        """
        return self._lease(self._table.hold(device, camera, holder, priority, _now()))

    def cool(self, device: str, until: float) -> None:
        """Count a session that has ended elsewhere, until a moment of the loop's clock."""
        self._table.cool(device, until)

    async def disown(self, device: str) -> Remaining:
        """Give up a device: no session is opened any more, and those that are open must end.

        Returns when those of this process have ended, with what the device still counts.
        """
        self._table.disown(device)
        for name in (device, http_device(device)):
            self._waiters.refuse(name, Preemption.NO_RIGHT)
            if self._table.is_held(name):
                self._preempt(name)
        for name in (device, http_device(device)):
            if self._table.is_held(name):
                await self._vacancy.of_device(name)
        return self._table.remaining(device, _now())

    async def end_all(self, *, disown: bool = False) -> None:
        """Let this host have no sessions until `extend`; `disown`: and no devices.

        Returns when all sessions of this process have ended that it has now.
        """
        if disown:
            self._table.right.owned.clear()
        self._table.right.until = -math.inf
        for device in {device for ticket in self._preempted for device in devices_of(ticket)}:
            self._preempt(device)
        held = [ticket for ticket in self._preempted if not ticket.holder.external]
        while any(ticket in self._preempted for ticket in held):
            await self._vacancy.of_any()

    # ---- called by the leases

    def other_sessions(self, ticket: Ticket) -> int:
        """The number of sessions of the device besides the ticket's own."""
        return self._table.other_sessions(ticket, _now())

    def refused(self, ticket: Ticket, *, certain: bool) -> Learned | None:
        """Note that the device was full for the ticket's session.

        Returns what this says about its budget, or None.
        """
        learned = self._table.refused(ticket, _now(), certain=certain)
        if learned is not None:
            if self._journal is not None:
                self._journal.learned(ticket.device, learned.shifted(self._wall() - _now()))
            self._emit(
                CapLearned(
                    camera=ticket.camera,
                    device=ticket.device,
                    cap=learned.cap,
                    for_s=learned.until - _now(),
                )
            )
        return learned

    def released(self, ticket: Ticket, end: SessionEnd) -> None:
        """Take back the ticket's session: it is over, and its transport is closed."""
        now = _now()
        del self._preempted[ticket]
        self._waiters.wake(self._table.release(ticket, end, now))
        for device in devices_of(ticket):
            self._waiters.arm(device)
            until = self._table.cooldown_until(device, end, now)
            self._record(replace(ticket.entry(device), cooling_until=until))
        self._vacancy.released(devices_of(ticket), self._table.is_held)
        self._emit(
            LeaseReleased(
                camera=ticket.camera,
                device=ticket.device,
                holder=str(ticket.holder),
                generation=ticket.generation,
                held_ms=(now - ticket.held_since) * 1000,
                end=end,
                external=ticket.holder.external,
            )
        )

    # ----

    def _preempt(self, device: str) -> None:
        now = _now()
        has_right = self._table.right.covers(device, now)
        why = Preemption.LIVE_WAITS if has_right else Preemption.NO_RIGHT
        for ticket in self._table.preempt(device, now):
            self._preempted[ticket].set_result(why)
            self._emit(
                LeaseWithdrawn(
                    camera=ticket.camera,
                    device=ticket.device,
                    holder=str(ticket.holder),
                    generation=ticket.generation,
                    why=why,
                )
            )

    async def _wait(self, ticket: Ticket, camera: str, lease_wait_s: float) -> None:
        waiting = self._waiters.wait(ticket)
        try:
            self._preempt(ticket.device)
            async with asyncio.timeout(lease_wait_s):
                await waiting
        except TimeoutError:
            # The slot was offered in the same loop turn, so this ticket takes it
            if ticket.state is TicketState.OFFERED:
                return
            busy = busy_error(
                self._table.device_statistics(ticket.device, _now()), camera, lease_wait_s, _now()
            )
            self._waiters.wake(self._table.withdraw(ticket, _now(), busy=True))
            raise busy from None
        except BaseException:
            self._waiters.wake(self._table.withdraw(ticket, _now(), busy=False))
            raise
        finally:
            self._waiters.left(ticket)

    def _grant(self, ticket: Ticket) -> RtspLease:
        self._table.accept(ticket, _now())
        lease = self._lease(ticket)
        self._preempt(ticket.device)  # a live request may have come since the offer
        return lease

    def _lease(self, ticket: Ticket, claimed: int = 0) -> RtspLease:
        if ticket.holder.keeps_secret and not ticket.observed:
            ticket.claim = Claim.new(ticket.generation)
        for device in devices_of(ticket):
            self._record(ticket.entry(device), claimed)
        preempted = self._preempted[ticket] = asyncio.get_running_loop().create_future()
        lease = RtspLease(self, ticket, preempted)
        self._emit(
            LeaseAcquired(
                camera=ticket.camera,
                claimed=claimed,
                observed=ticket.observed,
                device=ticket.device,
                holder=str(ticket.holder),
                generation=ticket.generation,
                wait_ms=lease.wait_s * 1000,
                external=ticket.holder.external,
            )
        )
        return lease

    # ---- journal

    def _record(self, entry: SessionEntry, claimed: int = 0) -> None:
        if self._journal is not None:
            shifted = entry.shifted(self._wall() - _now())
            self._journal.session(shifted, claimed=claimed)
            if self._journal.is_due:
                self._rewrite_journal()

    def _rewrite_journal(self) -> None:
        if self._journal is None or self._journal.shared:
            return
        now, shift_s = _now(), self._wall() - _now()
        table = self._table
        state = state_of(table.generation, table.entries(now), table.learned(now), shift_s)
        self._journal.rewrite(state)


def _now() -> float:
    return asyncio.get_running_loop().time()
