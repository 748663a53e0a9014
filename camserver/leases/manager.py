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
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from camserver.errors import RtspBusy
from camserver.events import CapLearned, Event, LeaseAcquired, LeaseReleased
from camserver.leases.journal import CLAIM_S, State
from camserver.leases.table import LEARNED_S, LeaseTable
from camserver.leases.ticket import (
    Budget,
    DeviceStatistics,
    Holder,
    Learned,
    Priority,
    Ticket,
    TicketState,
)
from camserver.model import SessionEnd

LEASE_WAIT_S = 5.0


class RtspLease:
    """The right to hold one session of a device, until `release()` or the end of the `with` block.

    Say how the session ended with `ended()` before leaving; unsaid counts as unclean. `generation`
    grows with every grant, so that a late message about an older lease can be told from this one.
    """

    def __init__(self, manager: RtspManager, ticket: Ticket, camera: str) -> None:
        self._manager = manager
        self._ticket = ticket
        self._end = SessionEnd.UNCLEAN
        self._released = False
        self.camera = camera
        self.holder = ticket.holder
        self.generation = ticket.generation
        self.wait_s = ticket.held_since - ticket.requested_at

    @property
    def device(self) -> str:
        """By its name of today: a reload may change it."""
        return self._ticket.device

    @property
    def other_sessions(self) -> int:
        """Other sessions of the device that are open now, or that it may still count."""
        return self._manager._company(self._ticket)  # noqa: SLF001

    def on_preempt(self, preempt: Callable[[], None]) -> None:
        """Have `give_way` called when a live request wants the session.

        The lease goes on until it is released.
        """
        self._manager._on_preempt[self._ticket] = preempt  # noqa: SLF001
        if self._ticket.withdrawn:
            preempt()

    def refused(self, *, certain: bool) -> None:
        """Say that the device was full for this session.

        Fewer are opened for a while, if others were open beside it.
        """
        self._manager._refused(self, self._ticket, certain=certain)  # noqa: SLF001

    def ended(self, end: SessionEnd) -> None:
        """Say how the transport was closed. The last word before release counts."""
        self._end = end

    def release(self) -> None:
        """Give the session back; call it only when the transport is closed.

        A second call does nothing.
        """
        if not self._released:
            self._released = True
            # Two halves of one thing
            self._manager._release(self, self._ticket, self._end)  # noqa: SLF001

    def abandon(self) -> None:
        """Leave the session to its holder, another program, because this process ends.

        The next one gives it back to it.
        """
        self._released = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: tuple[type[BaseException], BaseException, TracebackType] | None) -> None:
        self.release()

    def __del__(self) -> None:
        # Nobody can prove the transport closed any more; the long cool-down bounds the damage to
        # the device.
        if not getattr(self, "_released", True):
            warnings.warn(
                f"lease of {self.device} for {self.holder} was dropped without release",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
            self.release()


class RtspManager:
    """Gives leases within every device's budget.

    One instance in the process is the truth for all of it.
    """

    def __init__(self, emit: Callable[[Event], None] = lambda _: None) -> None:
        self._table = LeaseTable()
        self._emit = emit
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._on_preempt: dict[Ticket, Callable[[], None]] = {}
        # Camera -> generations of an earlier process
        self._observed_before: dict[str, list[int]] = {}
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
            self._ask_to_give_way(device)
        self._starved_since = {
            key: since for key, since in self._starved_since.items() if key[1] in budgets
        }

    def restore(
        self,
        state: State,
        unclean_cooldown_s: Callable[[str], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take over what an earlier process left.

        Its own sessions cool down as unclean, others' wait to be claimed.
        """
        self._table.continue_after(state.generation)
        for s in state.sessions.values():
            unclean_s = unclean_cooldown_s(s.device)
            # The wall clock may have been set meanwhile: no session cools down longer than after an
            # unclean end.
            left_s = (
                unclean_s if s.cooling_until is None else min(s.cooling_until - wall(), unclean_s)
            )
            if left_s > 0 or s.claimable:
                until = _now() + (max(unclean_s, CLAIM_S) if s.claimable else left_s)
                self._table.restore(s.device, s.generation, until, _now(), claimable=s.claimable)
                if s.opened_on:
                    self._table.restore(s.opened_on, s.generation, until, _now(), claimable=False)
                if s.observed:
                    self._observed_before.setdefault(s.camera, []).append(s.generation)
        for device, (cap, until) in state.learned.items():
            left_s = min(until - wall(), LEARNED_S)
            if left_s > 0 and cap > 0:
                self._table.learn(device, Learned(cap, _now() + left_s))

    def observe(self, camera: str, device: str, holder: Holder) -> RtspLease:
        """A session that another program has opened without asking.

        Counted from now on, until it is released.

        Polls are asked to give way when it is one too many. Raises LeaseStateError for a device
        that is not in the inventory.
        """
        lease = self._seen_before(camera, device, holder)
        if lease is None:
            lease = self._lease(
                self._table.observe(device, holder, _now(), camera), camera, observed=True
            )
        self._ask_to_give_way(device)
        return lease

    def _seen_before(self, camera: str, device: str, holder: Holder) -> RtspLease | None:
        """A session that an earlier process observed, and whose slot is still taken for it."""
        earlier = self._observed_before.get(camera, [])
        while earlier:
            generation = earlier.pop()
            ticket = self._table.claim(device, generation, holder, Priority.LIVE, _now(), camera)
            if ticket is not None:
                return self._lease(ticket, camera, claimed=generation, observed=True)
        return None

    def claim(
        self, camera: str, device: str, holder: Holder, generation: int, *, priority: Priority
    ) -> RtspLease | None:
        """The lease that an earlier process gave as `generation`; None when it is too late."""
        ticket = self._table.claim(device, generation, holder, priority, _now(), camera)
        return None if ticket is None else self._lease(ticket, camera, claimed=generation)

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
            raise RtspBusy(f"{camera}: its device is {ticket.device} by now, not {device}")
        return self._grant(ticket, camera)

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
        return self._grant(ticket, camera)

    def statistics(self) -> tuple[DeviceStatistics, ...]:
        """A frozen picture of every device, for logs, pages and metrics."""
        return self._table.statistics(_now())

    def _company(self, ticket: Ticket) -> int:
        return self._table.other_sessions(ticket, _now())

    def _refused(self, lease: RtspLease, ticket: Ticket, *, certain: bool) -> None:
        learned = self._table.refused(ticket, _now(), certain=certain)
        if learned is not None:
            self._emit(
                CapLearned(
                    camera=lease.camera,
                    device=lease.device,
                    cap=learned.cap,
                    for_s=learned.until - _now(),
                )
            )

    def _ask_to_give_way(self, device: str) -> None:
        for poll in self._table.withdraw_for_live(device, _now()):
            if poll in self._on_preempt:
                self._on_preempt[poll]()

    async def _wait(self, ticket: Ticket, camera: str, lease_wait_s: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[ticket] = waiter
        self._arm(ticket.device)
        try:
            self._ask_to_give_way(ticket.device)
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

    def _grant(self, ticket: Ticket, camera: str) -> RtspLease:
        self._table.accept(ticket, _now())
        lease = self._lease(ticket, camera)
        self._ask_to_give_way(ticket.device)  # live may have asked since the offer
        return lease

    def _lease(
        self, ticket: Ticket, camera: str, claimed: int = 0, *, observed: bool = False
    ) -> RtspLease:
        lease = RtspLease(self, ticket, camera)
        self._emit(
            LeaseAcquired(
                camera=camera,
                claimed=claimed,
                observed=observed,
                device=lease.device,
                holder=str(lease.holder),
                generation=lease.generation,
                wait_ms=lease.wait_s * 1000,
                external=lease.holder.external,
            )
        )
        return lease

    def _release(self, lease: RtspLease, ticket: Ticket, end: SessionEnd) -> None:
        now = _now()
        self._on_preempt.pop(ticket, None)
        self._wake(self._table.release(ticket, end, now))
        for device in self._table.names():  # it may have counted on others, too
            self._arm(device)
        self._emit(
            LeaseReleased(
                camera=lease.camera,
                device=lease.device,
                holder=str(lease.holder),
                generation=lease.generation,
                held_ms=(now - ticket.held_since) * 1000,
                end=end,
                external=lease.holder.external,
            )
        )

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
        device = next(d for d in self._table.statistics(now) if d.device == ticket.device)
        held = ", ".join(f"{holder} for {now - since:.1f} s" for holder, since in device.held)
        taken = [f"held by {held}"] if held else []
        if device.cooling:
            taken.append(f"{device.cooling} cooling down")
        if device.learned is not None:
            taken.append(f"it gave no more than {device.learned.cap} lately")
        return RtspBusy(
            f"{camera}: no session of {ticket.device} came free in {lease_wait_s:.3g} s "
            f"(max_sessions {device.max_sessions}: {'; '.join(taken) or 'others are waiting'})"
        )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _resolution() -> float:
    return 1e-6
