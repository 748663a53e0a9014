"""RtspManager: waiting for a lease, over the pure table.

Owns the waiters and the cool-down timers, nothing else.

Rule one: a lease ends when the transport is proven closed, never when a task is cancelled. So
nothing here releases a held lease on its own; the code that closed the transport does, by leaving
the lease's `with` block.

Races that were thought of: a waiter that is cancelled or timed out in the same loop turn in which
it was offered a slot (cancelled: the offer goes on to the next waiter; timed out: the offer stands,
so it is taken).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from camserver.errors import RtspBusy, SessionHolder
from camserver.events import CapLearned, Event, LeaseAcquired, LeaseReleased
from camserver.leases.journal import JournalState, LeaseJournal, session_entries
from camserver.leases.lease import RtspLease
from camserver.leases.table import LEARNED_S, LeaseTable, devices_of
from camserver.leases.ticket import (
    Budget,
    DeviceStatistics,
    Holder,
    Learned,
    Priority,
    SessionEntry,
    Ticket,
    TicketState,
)
from camserver.model import SessionEnd

LEASE_WAIT_S = 5.0


class RtspManager:
    """Gives leases within every device's budget.

    One instance in the process is the truth for all of it. It writes the journal, before a lease
    is handed out.
    """

    def __init__(
        self,
        emit: Callable[[Event], None] = lambda _: None,
        journal: LeaseJournal | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._table = LeaseTable()
        self._emit = emit
        self._journal = journal
        self._wall = wall
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        # Of every lease; not the leases themselves, so that a dropped one is noticed
        self._preempted: dict[Ticket, asyncio.Future[None]] = {}
        # (camera, device) of polls -> since when they get nothing
        self._starved_since: dict[tuple[str, str], float] = {}

    def configure(
        self, budgets: Mapping[str, Budget], cameras: Mapping[str, str] | None = None
    ) -> None:
        """Make `budgets` the known devices; running leases go on.

        `cameras` says which device each camera is on; who holds or waits for a session of it
        follows it there.
        """
        self._wake(self._table.configure(budgets, _now(), cameras))
        for device in budgets:
            self._arm(device)
            self._preempt(device)
        self._starved_since = {
            key: since for key, since in self._starved_since.items() if key[1] in budgets
        }

    def restore(self, state: JournalState) -> None:
        """Take over what an earlier process left, and begin the journal with it.

        Its own sessions cool down as unclean, others' wait to be claimed.
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
        """A session that another program has opened without asking.

        Counted from now on, until it is released.

        Polls are preempted when it is one too many. Raises LeaseStateError for a device that is not
        in the inventory.
        """
        ticket, claimed = self._table.observe(device, holder, _now(), camera)
        lease = self._lease(ticket, claimed)
        self._preempt(device)
        return lease

    def claim(
        self, camera: str, device: str, holder: Holder, generation: int, *, priority: Priority
    ) -> RtspLease | None:
        """The lease that an earlier process gave as `generation`; None when it is too late."""
        ticket = self._table.claim(device, generation, holder, priority, _now(), camera)
        if ticket is None:
            return None
        lease = self._lease(ticket, generation)
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

        Raises RtspBusy when none came free, LeaseStateError for a device that is not in the
        inventory.
        """
        key = (camera, device)
        poll = priority is Priority.POLL and not holder.external
        ageing_since = self._starved_since.get(key) if poll else None
        ticket, offered = self._table.request(
            device, holder, priority, _now(), camera=camera, ageing_since=ageing_since
        )
        self._wake(offered)
        if ticket.state is TicketState.WAITING:
            try:
                await self._wait(ticket, camera, lease_wait_s)
            except RtspBusy:
                if poll:
                    self._starved_since.setdefault(key, ticket.requested_at)
                raise
        if poll:
            self._starved_since.pop(key, None)
        # We would open what the inventory said before
        if ticket.device != device and not holder.external:
            self._wake(self._table.withdraw(ticket, _now(), busy=False))
            raise RtspBusy(f"its device is {ticket.device} by now, not {device}", camera=camera)
        return self._grant(ticket)

    def try_acquire(
        self,
        camera: str,
        device: str,
        holder: Holder,
        *,
        priority: Priority = Priority.POLL,
    ) -> RtspLease | None:
        """A session of `device` if one is free this instant and nobody waits for it, else None."""
        ticket, offered = self._table.request(device, holder, priority, _now(), camera=camera)
        self._wake(offered)
        if ticket.state is TicketState.WAITING:
            self._wake(self._table.withdraw(ticket, _now(), busy=True))
            return None
        return self._grant(ticket)

    def statistics(self) -> tuple[DeviceStatistics, ...]:
        """A frozen picture of every device, for logs, pages and metrics."""
        return self._table.statistics(_now())

    def device_statistics(self, device: str) -> DeviceStatistics:
        """A frozen picture of one. Raises LeaseStateError when it is not in the inventory."""
        return self._table.device_statistics(device, _now())

    # ---- for the leases

    def other_sessions(self, ticket: Ticket) -> int:
        """Sessions of the device besides the ticket's own."""
        return self._table.other_sessions(ticket, _now())

    def refused(self, ticket: Ticket, *, certain: bool) -> Learned | None:
        """The device was full for the ticket's session. Returns what that says of its budget."""
        learned = self._table.refused(ticket, _now(), certain=certain)
        if learned is not None:
            if self._journal is not None:
                shifted = replace(learned, until=learned.until + self._wall() - _now())
                self._journal.learned(ticket.device, shifted)
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
        """The ticket's session is over, its transport closed."""
        now = _now()
        del self._preempted[ticket]
        self._wake(self._table.release(ticket, end, now))
        for device in devices_of(ticket):
            self._arm(device)
            until = self._table.cooldown_until(device, end, now)
            self._record(replace(ticket.entry(device), cooling_until=until))
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
        for poll in self._table.preempt(device, _now()):
            self._preempted[poll].set_result(None)

    async def _wait(self, ticket: Ticket, camera: str, lease_wait_s: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[ticket] = waiter
        self._arm(ticket.device)
        try:
            self._preempt(ticket.device)
            async with asyncio.timeout(lease_wait_s):
                await waiter
        except TimeoutError:
            # The slot came in the same instant: it is ours, take it
            if ticket.state is TicketState.OFFERED:
                return
            busy = self._busy(ticket, camera, lease_wait_s)
            self._wake(self._table.withdraw(ticket, _now(), busy=True))
            raise busy from None
        except BaseException:
            self._wake(self._table.withdraw(ticket, _now(), busy=False))
            raise
        finally:
            del self._waiters[ticket]

    def _grant(self, ticket: Ticket) -> RtspLease:
        self._table.accept(ticket, _now())
        lease = self._lease(ticket)
        self._preempt(ticket.device)  # live may have asked since the offer
        return lease

    def _lease(self, ticket: Ticket, claimed: int = 0) -> RtspLease:
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
        self._journal.rewrite(
            JournalState(
                self._table.generation,
                session_entries(entry.shifted(shift_s) for entry in self._table.entries(now)),
                {
                    device: replace(learned, until=learned.until + shift_s)
                    for device, learned in self._table.learned(now).items()
                },
            )
        )

    # ---- waiters

    def _wake(self, offered: list[Ticket]) -> None:
        for ticket in offered:
            waiter = self._waiters.get(ticket)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _arm(self, device: str) -> None:
        """Keep one timer for the end of the device's next cool-down, only while somebody waits."""
        timer = self._timers.pop(device, None)
        if timer is not None:
            timer.cancel()
        thaw = self._table.next_thaw(device, _now())
        if thaw is not None:
            self._timers[device] = asyncio.get_running_loop().call_at(thaw, self._thawed, device)

    def _thawed(self, device: str) -> None:
        del self._timers[device]
        # The loop may fire up to its clock's resolution early; the moment asked for is the moment
        # meant.
        self._wake(self._table.offer(device, _now() + _resolution()))
        self._arm(device)

    def _busy(self, ticket: Ticket, camera: str, lease_wait_s: float) -> RtspBusy:
        now = _now()
        device = self._table.device_statistics(ticket.device, now)
        held = ", ".join(f"{holder} for {now - since:.1f} s" for holder, since in device.held)
        taken = [f"held by {held}"] if held else []
        if device.cooling:
            taken.append(f"{device.cooling} cooling down")
        if device.learned is not None:
            taken.append(f"it gave no more than {device.learned.cap} lately")
        return RtspBusy(
            f"no session of {ticket.device} came free in {lease_wait_s:.3g} s "
            f"(max_sessions {device.max_sessions}: {'; '.join(taken) or 'others are waiting'})",
            camera=camera,
            holders=tuple(
                SessionHolder(holder.kind, holder.name, now - since)
                for holder, since in device.held
            ),
            waiting=device.waiting,
            max_sessions=device.max_sessions,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _resolution() -> float:
    return 1e-6
