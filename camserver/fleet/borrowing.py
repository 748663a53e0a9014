"""The leases of the programs on this host: they are asked of the devices' owners.

A program has a right to its session only while this host is valid. So it is told the end of that
validity again and again, and can let the kernel end it then (`camserver lease` does).
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from camserver.config import Camera
from camserver.errors import NotOwnerError, RtspBusy
from camserver.fleet.external import LeaseName
from camserver.fleet.host import FleetHost
from camserver.fleet.lending import NOT_OURS, Lent, Wish
from camserver.fleet.orders import Phase
from camserver.fleet.records import ExternalRecord
from camserver.fleet.store import StoreError
from camserver.fleet.terms import CLOSE_S, MARGIN_S
from camserver.leases import Holder, Priority
from camserver.model import SessionEnd

NO_RECORD = "its record in the store is gone, or cannot be read"
NEW_S = 3.0
"""A host whose renewals do not get through for so long asks for no new lease."""
AGAIN_S = 0.2
"""How soon another host is asked when a device is on its way to another owner."""
MAX_HOLDER = 128
SEEN_S = 2.0
"""How long the change of the store that made a lease may take to be seen here."""

AskOwner = Callable[[str, Camera, Wish, Holder], Awaitable[Lent]]
"""Asks the owner of a device (its name) for a lease. Raises as `Lending.give`."""


class BorrowedLease:
    """A lease of a program on this host. It is used as an RtspLease is."""

    def __init__(
        self,
        borrowing: Borrowing,
        host: FleetHost,
        name: LeaseName,
        lent: Lent,
        wait_s: float,
        camera: str,
    ) -> None:
        """`host` is the epoch of this host that asked for it."""
        self.host = host
        self.name = name
        self.camera = camera
        self.device = name.device
        self.generation = lent.generation
        self.claim = ""
        self.wait_s = wait_s
        self.withdrawn: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._borrowing = borrowing
        self._end = SessionEnd.UNCLEAN
        self._released = False

    def preempted(self) -> Awaitable[str]:
        """Wait until the session must end, and say why."""
        return asyncio.shield(self.withdrawn)

    @property
    def may_last_s(self) -> float:
        """How long the session may go on when it must end."""
        return self._borrowing.may_last_s

    @property
    def right(self) -> tuple[float, float]:
        """When the program must begin to end, and when it must have ended (CLOCK_BOOTTIME)."""
        return self._borrowing.right_of(self)

    async def extended(self) -> None:
        """Wait until the right is extended."""
        await self._borrowing.extended.wait()

    def ended(self, end: SessionEnd) -> None:
        """Set how the session ended. The last call before `release` counts."""
        self._end = end

    def release(self) -> None:
        """Give the lease back: the session has ended. A second call does nothing."""
        if not self._released:
            self._released = True
            self._borrowing.released(self, self._end)

    def abandon(self) -> None:
        """Leave the session to the program. The owner counts it until this host is dead."""
        self._released = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class Borrowing:
    """The leases of the programs on this host."""

    def __init__(self, ask: AskOwner, clock: Callable[[], float]) -> None:
        """`clock` is the fleet's: CLOCK_BOOTTIME."""
        self.extended = asyncio.Event()
        """Set for a moment, each time programs should be told their right again."""
        self._ask = ask
        self._clock = clock
        self._host: FleetHost | None = None
        self._wake: Callable[[], None] = lambda: None
        self._leases: dict[LeaseName, BorrowedLease] = {}
        self._changed = asyncio.Event()
        self._ends_within_s = math.inf
        self._told_until = self._tell_at = 0.0

    def begin(self, host: FleetHost, wake: Callable[[], None]) -> None:
        """Begin an epoch. `wake` lets its driver look for what is to be done."""
        self._host, self._wake = host, wake
        self._ends_within_s = math.inf

    # ---- programs

    async def acquire(
        self, camera: Camera, holder: Holder, priority: Priority, wait_s: float
    ) -> BorrowedLease:
        """Ask the owner of a camera's device for a lease. Raises RtspBusy."""
        return await self._ask_until(camera, holder, priority, wait_s, is_open=False)

    async def observe(self, camera: Camera, holder: Holder, wait_s: float) -> BorrowedLease:
        """Let the owner of a camera's device count a session that is open. Raises RtspBusy."""
        return await self._ask_until(camera, holder, Priority.LIVE, wait_s, is_open=True)

    async def _ask_until(
        self, camera: Camera, holder: Holder, priority: Priority, wait_s: float, *, is_open: bool
    ) -> BorrowedLease:
        started = self._clock()
        while True:
            left_s = max(0.0, started + wait_s - self._clock())
            try:
                record = self._record(camera, holder, priority, is_open=is_open)
                return await self._ask_once(camera, holder, record, left_s, started)
            except NotOwnerError as error:
                if left_s < AGAIN_S:
                    raise RtspBusy(str(error), camera=camera.id) from None
            await asyncio.sleep(AGAIN_S)

    def _record(
        self, camera: Camera, holder: Holder, priority: Priority, *, is_open: bool
    ) -> ExternalRecord:
        """The record to ask for. Raises NotOwnerError when this host may not have sessions."""
        host = self._host
        if host is None or not self._is_valid(host):
            raise NotOwnerError("this host may not have sessions at the moment")
        renewed_s = self._clock() - host.validity.renewed_at
        if renewed_s > NEW_S:  # it could not say how the session ends, and would not see the record
            raise NotOwnerError(f"the store of the fleet was not reached for {renewed_s:.0f} s")
        return ExternalRecord(
            host=host.name,
            epoch=host.epoch,
            camera=camera.id,
            holder=holder.name[:MAX_HOLDER],
            kind=holder.kind,
            priority=priority.name.lower(),
            observed=is_open,
        )

    async def _ask_once(
        self, camera: Camera, holder: Holder, record: ExternalRecord, wait_s: float, started: float
    ) -> BorrowedLease:
        host = self._host
        assert host is not None  # noqa: S101 - there is a record
        own = host.mirror.owner(camera.device)
        if own is None or not own.held:
            raise NotOwnerError(NOT_OURS)
        number = secrets.token_hex(8)
        wish = Wish(device=camera.device, number=number, wait_s=wait_s, record=record)
        host.externals.expect(wish.name)
        is_told = False
        try:
            lent = await self._ask(own.host, camera, wish, holder)
            await self._until_seen(host, wish.name, lent.revision)
            wait_s = self._clock() - started
            lease = BorrowedLease(self, host, wish.name, lent, wait_s, camera.id)
            self._leases[wish.name] = lease
            is_told = True
            self.look((wish.name,))  # it may be withdrawn already
        except StoreError as error:
            raise RtspBusy(f"the store of the fleet: {error}", camera=camera.id) from None
        finally:
            if not is_told:
                end = SessionEnd.UNCLEAN if record.observed else SessionEnd.NONE
                host.externals.ended(wish.name, end)
                self._wake()
        return lease

    async def _until_seen(self, host: FleetHost, name: LeaseName, revision: int) -> None:
        """Wait until this host sees the record of a lease. Raises NotOwnerError.

        Who has not seen the record could not end it, and might not know that this host is dead.
        """
        try:
            async with asyncio.timeout(SEEN_S):
                while host.mirror.revision < revision:
                    await self._changed.wait()
        except TimeoutError:
            raise NotOwnerError("this host does not see what the store has") from None
        record = host.externals.record(name)
        if record is None or record.ended is not None or not self._is_valid(host):
            raise NotOwnerError("the lease has ended before it was told")

    def _is_valid(self, host: FleetHost) -> bool:
        is_member = host is self._host and host.phase is Phase.LIVE
        return is_member and host.validity.may_open(self._clock())

    def released(self, lease: BorrowedLease, end: SessionEnd) -> None:
        """Note that the session of a lease has ended."""
        self._leases.pop(lease.name, None)
        lease.host.externals.ended(lease.name, end)
        self._wake()
        self._change()

    # ---- this host

    def right_of(self, lease: BorrowedLease) -> tuple[float, float]:
        """When a program must begin to end, and when it must have ended (CLOCK_BOOTTIME).

        It is never longer than without a hold: what was told to a program that is stopped cannot
        be taken back when the hold ends. A lease of an earlier epoch gives no right.
        """
        until = self._until() if lease.host is self._host else 0.0
        self._told_until = max(self._told_until, until)
        return max(0.0, until - MARGIN_S - CLOSE_S), max(0.0, until - MARGIN_S)

    def _until(self) -> float:
        if self._host is None:
            return 0.0
        validity = self._host.validity
        return min(validity.until, self._clock() + validity.terms.valid_s)

    @property
    def may_last_s(self) -> float:
        """How long the sessions of programs may go on that must end."""
        return max(0.0, min(self._ends_within_s, self._until() - MARGIN_S - self._clock()))

    def tell(self) -> None:
        """Tell programs their right again, from time to time: a hold extends it, too."""
        host, now = self._host, self._clock()
        if host is not None and now >= self._tell_at and self._is_valid(host):
            self._tell_at = now + host.validity.terms.renew_s / 2
            self.extended.set()
            self.extended = asyncio.Event()

    def look(self, names: Iterable[LeaseName]) -> None:
        """Find out what has become of leases whose records have changed."""
        self._change()
        host = self._host
        if host is None:
            return
        for name in names:
            lease, record = self._leases.get(name), host.externals.record(name)
            if lease is None or (record is not None and not record.withdrawn):
                continue
            self._withdraw(lease, NO_RECORD if record is None else record.withdrawn)

    def withdraw_all(self, why: str, within_s: float = math.inf) -> None:
        """Tell all programs to end their sessions."""
        self._ends_within_s = within_s
        for lease in list(self._leases.values()):
            self._withdraw(lease, why)

    async def all_ended(self) -> None:
        """Wait until no program has a session: it has said so, or the kernel has ended it."""
        while self._leases and (left_s := self._told_until - self._clock()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                break
        self._leases.clear()

    def _withdraw(self, lease: BorrowedLease, why: str) -> None:
        if not lease.withdrawn.done():
            lease.withdrawn.set_result(why)

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
