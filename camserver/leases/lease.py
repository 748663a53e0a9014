"""RtspLease: the right to hold one session of a device.

First rule: a lease ends when the transport is proven closed, never when a task is cancelled. So the
code that closed the transport releases the lease. `cover` connects a session and its lease.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Protocol, Self, TypeVar

from camserver.leases.right import Preemption
from camserver.leases.ticket import Learned, Ticket
from camserver.model import SessionEnd


class Preempted(Exception):  # noqa: N818 - it is a signal, not an error
    """Raised in a `preemptible` block: the session must end. `why` is for a person."""

    def __init__(self, why: Preemption) -> None:
        super().__init__(why)
        self.why = why


class CoveredSession(Protocol):
    """A session that a lease can cover.

    It is open inside its `async with` block. Afterwards `end` says how it ended.
    """

    @property
    def end(self) -> SessionEnd:
        """How the transport was closed."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


S = TypeVar("S", bound=CoveredSession)


class LeaseKeeper(Protocol):
    """The methods of the manager that a lease calls."""

    def released(self, ticket: Ticket, end: SessionEnd) -> None:
        """Take back the session: it is over."""

    def refused(self, ticket: Ticket, *, certain: bool) -> Learned | None:
        """Note that the device was full for this session."""

    def other_sessions(self, ticket: Ticket) -> int:
        """The number of sessions of the device besides this one."""


class RtspLease:
    """The right to hold one session of a device, until `release()` or the end of the `with` block.

    Call `ended()` before the block ends to say how the session ended. Without that call the end
    counts as unclean. `generation` grows with every grant, so a late message about an older lease
    is not mistaken for one about this lease.
    """

    def __init__(
        self, keeper: LeaseKeeper, ticket: Ticket, preempted: asyncio.Future[Preemption]
    ) -> None:
        self._keeper = keeper
        self._ticket = ticket
        self._preempted = preempted
        self._end = SessionEnd.UNCLEAN
        self._released = False
        self.camera = ticket.camera
        self.holder = ticket.holder
        self.generation = ticket.generation
        self.wait_s = ticket.held_since - ticket.requested_at

    @property
    def claim(self) -> str:
        """What a holder in another process claims its lease by."""
        return str(self.generation if self._ticket.claim is None else self._ticket.claim)

    @property
    def device(self) -> str:
        """The current name of the device. A reload may change it."""
        return self._ticket.device

    @property
    def other_sessions(self) -> int:
        """The number of other sessions that are open now or that the device may still count."""
        return self._keeper.other_sessions(self._ticket)

    def preempted(self) -> Awaitable[Preemption]:
        """Wait until the session must end, and say why. The lease stays held until `release`."""
        return asyncio.shield(self._preempted)

    @asynccontextmanager
    async def preemptible(self) -> AsyncIterator[None]:
        """Cancel the block when the session must end, and raise Preempted."""
        loop = asyncio.get_running_loop()
        scope = asyncio.timeout(None)

        def preempt(_: asyncio.Future[Preemption]) -> None:
            with suppress(RuntimeError):  # the block is ending at this moment anyway
                scope.reschedule(loop.time())

        try:
            async with scope:
                self._preempted.add_done_callback(preempt)
                yield
        except TimeoutError:
            if scope.expired():
                raise Preempted(self._preempted.result()) from None
            raise
        finally:
            self._preempted.remove_done_callback(preempt)

    @asynccontextmanager
    async def cover(self, session: S) -> AsyncIterator[S]:
        """Open `session` under this lease, and take over how it ended."""
        try:
            async with session:
                yield session
        finally:
            self.ended(session.end)

    def refused(self, *, certain: bool) -> None:
        """Report that the device was full for this session.

        If other sessions were open beside it, fewer are opened for some time.
        """
        self._keeper.refused(self._ticket, certain=certain)

    def ended(self, end: SessionEnd) -> None:
        """Set how the transport was closed. The last call before `release` counts."""
        self._end = end

    def release(self) -> None:
        """Give the session back. Call it only when the transport is closed.

        A second call does nothing.
        """
        if not self._released:
            self._released = True
            self._keeper.released(self._ticket, self._end)

    def abandon(self) -> None:
        """Leave the session to another program, its holder, because this process ends.

        The next process gives the lease back to that program.
        """
        self._released = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: tuple[type[BaseException], BaseException, TracebackType] | None) -> None:
        self.release()

    def __del__(self) -> None:
        # No code can prove any more that the transport is closed. So the session counts as unclean,
        # and the long cool-down protects the device.
        if not getattr(self, "_released", True):
            warnings.warn(
                f"lease of {self.device} for {self.holder} was dropped without release",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
            self.release()
