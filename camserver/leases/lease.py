"""RtspLease: the right to hold one session of a device.

Rule one: a lease ends when the transport is proven closed, never when a task is cancelled. So the
code that closed the transport releases it; `cover` ties both together.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Protocol, Self, TypeVar

from camserver.leases.ticket import Learned, Ticket
from camserver.model import SessionEnd


class Preempted(Exception):  # noqa: N818 - not an error: what has happened
    """Raised in a `preemptible` block: a live request wants the session."""


class CoveredSession(Protocol):
    """What a lease can cover: it is open inside of its block, and knows afterwards how it ended."""

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
    """What a lease needs of the manager that gave it."""

    def released(self, ticket: Ticket, end: SessionEnd) -> None:
        """The session is over."""

    def refused(self, ticket: Ticket, *, certain: bool) -> Learned | None:
        """The device was full for this session."""

    def other_sessions(self, ticket: Ticket) -> int:
        """Sessions of the device besides this one."""


class RtspLease:
    """The right to hold one session of a device, until `release()` or the end of the `with` block.

    Say how the session ended with `ended()` before leaving; unsaid counts as unclean. `generation`
    grows with every grant, so that a late message about an older lease can be told from this one.
    """

    def __init__(
        self, keeper: LeaseKeeper, ticket: Ticket, preempted: asyncio.Future[None]
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
    def device(self) -> str:
        """By its name of today: a reload may change it."""
        return self._ticket.device

    @property
    def other_sessions(self) -> int:
        """Other sessions of the device that are open now, or that it may still count."""
        return self._keeper.other_sessions(self._ticket)

    def preempted(self) -> Awaitable[None]:
        """Wait until a live request wants the session. The lease goes on until it is released."""
        return asyncio.shield(self._preempted)

    @asynccontextmanager
    async def preemptible(self) -> AsyncIterator[None]:
        """Cancel the block when a live request wants the session. Raises Preempted then."""
        loop = asyncio.get_running_loop()
        scope = asyncio.timeout(None)

        def preempt(_: asyncio.Future[None]) -> None:
            with suppress(RuntimeError):  # the block is just ending anyway
                scope.reschedule(loop.time())

        try:
            async with scope:
                self._preempted.add_done_callback(preempt)
                yield
        except TimeoutError:
            if scope.expired():
                raise Preempted from None
            raise
        finally:
            self._preempted.remove_done_callback(preempt)

    @asynccontextmanager
    async def cover(self, session: S) -> AsyncIterator[S]:
        """Open `session` under this lease, and learn from it how it ended."""
        try:
            async with session:
                yield session
        finally:
            self.ended(session.end)

    def refused(self, *, certain: bool) -> None:
        """Say that the device was full for this session.

        Fewer are opened for a while, if others were open beside it.
        """
        self._keeper.refused(self._ticket, certain=certain)

    def ended(self, end: SessionEnd) -> None:
        """Say how the transport was closed. The last word before release counts."""
        self._end = end

    def release(self) -> None:
        """Give the session back; call it only when the transport is closed.

        A second call does nothing.
        """
        if not self._released:
            self._released = True
            self._keeper.released(self._ticket, self._end)

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
