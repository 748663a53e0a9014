"""The requests that wait for a lease, and the timers that wake them when a cool-down has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

from camserver.errors import RtspBusy
from camserver.leases.table import LeaseTable
from camserver.leases.ticket import Ticket

CLOCK_RESOLUTION_S = 1e-6


class Waiters:
    """Who waits for a lease of a table."""

    def __init__(self, table: LeaseTable) -> None:
        self._table = table
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def wait(self, ticket: Ticket) -> Awaitable[None]:
        """Let a ticket wait until it gets an offer. The caller must call `left` afterwards."""
        waiter = self._waiters[ticket] = asyncio.get_running_loop().create_future()
        self.arm(ticket.device)
        return waiter

    def left(self, ticket: Ticket) -> None:
        """Note that a ticket does not wait any more."""
        del self._waiters[ticket]

    def wake(self, offered: Iterable[Ticket]) -> None:
        """Wake the tickets that got an offer."""
        for ticket in offered:
            waiter = self._waiters.get(ticket)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def refuse(self, device: str, why: str) -> None:
        """Let all tickets of a device that wait for an offer wait no longer. They get RtspBusy."""
        for ticket, waiter in self._waiters.items():
            if ticket.device == device and not waiter.done():
                waiter.set_exception(RtspBusy(why, camera=ticket.camera))

    def arm(self, device: str) -> None:
        """Keep one timer for the device's next cool-down end, only while a ticket waits."""
        timer = self._timers.pop(device, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        thaw = self._table.next_free_slot_at(device, loop.time())
        if thaw is not None:
            self._timers[device] = loop.call_at(thaw, self._slot_freed, device)

    def _slot_freed(self, device: str) -> None:
        del self._timers[device]
        # The loop may call a timer early, by up to the resolution of its clock. So this adds the
        # resolution: the cool-down must count as passed.
        now = asyncio.get_running_loop().time() + CLOCK_RESOLUTION_S
        self.wake(self._table.offer(device, now))
        self.arm(device)
