"""A protocol around another one, which gives it received bytes in turns.

A library's parser processes all bytes that it gets at once. When a camera floods, that delays all
other tasks. So it gets a few kilobytes at a time. A connection that has used up its account
(`pace.py`) is closed: no picture costs so much.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from camserver.pace import Pace

SLICE_BYTES = 2048
"""How many bytes are given at a time. A parser needs at most a few milliseconds for them."""
BODY_SLICE_BYTES = 16 * 1024
"""The same for the body: it is passed on, and hardly parsed."""
HEAD_SLICES = 2
"""How many slices are given in one turn, until the answer has begun. A flood of informational
answers costs more where they are waited for than where they are parsed.
"""


class PacedProtocol(asyncio.Protocol):
    """Gives `inner` what comes, in turns."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self.inner = inner
        self._pace = Pace()
        self._transport: asyncio.Transport | None = None
        self._waiting = bytearray()
        self._next_turn: asyncio.Handle | None = None
        self._inner_paused = False
        self._answer_has_begun = False

    def answer_has_begun(self) -> None:
        """Give the rest in larger parts: it is the body."""
        self._answer_has_begun = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give `inner` a transport whose reading both of us may pause."""
        self._transport = cast("asyncio.Transport", transport)
        self.inner.connection_made(
            cast("asyncio.BaseTransport", PacedTransport(self._transport, self))
        )

    def data_received(self, data: bytes) -> None:
        """Give `data` now or later."""
        self._waiting += data
        self._pace.received(len(data))
        if self._next_turn is None:
            self._take()

    def eof_received(self) -> bool | None:
        """Give the rest, and the end."""
        self._take_rest()
        return self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the rest, and the end."""
        self._take_rest()
        self._transport = None
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell `inner`."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Tell `inner`."""
        self.inner.resume_writing()

    def hold(self, *, paused: bool) -> None:
        """Note whether `inner` wants no more bytes now."""
        self._inner_paused = paused
        self._update()

    def _take(self) -> None:
        self._next_turn = None
        self._pace.begin()
        slices = 0
        while self._waiting and not self._pace.turn_is_over:
            if not self._answer_has_begun and slices >= HEAD_SLICES:
                break
            self._give_slice()
            slices += 1
        if self._pace.end() > 0 and self._transport is not None:
            self._waiting.clear()
            self._transport.abort()  # no picture costs so much
            return
        if self._waiting:
            self._next_turn = asyncio.get_running_loop().call_soon(self._take)
        self._update()

    def _take_rest(self) -> None:
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        while self._waiting:
            self._give_slice()

    def _give_slice(self) -> None:
        size = BODY_SLICE_BYTES if self._answer_has_begun else SLICE_BYTES
        data = bytes(self._waiting[:size])
        del self._waiting[:size]
        self.inner.data_received(data)

    def _update(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._inner_paused or self._next_turn is not None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()


class PacedTransport:
    """The transport that `inner` sees."""

    def __init__(self, transport: asyncio.Transport, paced: PacedProtocol) -> None:
        self._transport = transport
        self._paced = paced

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def answer_has_begun(self) -> None:
        """Give the rest in larger parts: it is the body."""
        self._paced.answer_has_begun()

    def pause_reading(self) -> None:
        """Give `inner` nothing for now."""
        self._paced.hold(paused=True)

    def resume_reading(self) -> None:
        """Give `inner` what comes again."""
        self._paced.hold(paused=False)
