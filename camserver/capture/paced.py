"""A protocol around another one, which gives it received bytes in turns.

A parser processes all bytes that it gets at once. When a camera floods, that delays all other
tasks. So it gets a few kilobytes at a time, and more while they cost little. A connection that has
used up its account (`pace.py`) is closed: no picture costs so much.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from camserver.pace import TURN_S, Pace

FIRST_SLICE_BYTES, LEAST_SLICE_BYTES, LARGEST_SLICE_BYTES = 1024, 64, 4096
"""How many bytes are given at a time: at first, and between which limits that is changed.

A camera may send what costs little, and then suddenly what costs most: the largest slice of it,
full of chunks of one byte, takes 5 ms.
"""
CHEAP_S, DEAR_S = TURN_S / 8, TURN_S / 3
"""A slice that costs less is followed by one of twice the size; after one that costs more, by one
of a quarter.
"""


TURNS_AT_ONCE, PAUSE_S = 10, 2 * TURN_S
"""After so many full turns there is a pause before each other one: the answer to a client takes
several turns of the loop, and must not wait for a flood in each of them. A picture of a megabyte
takes five.
"""


class PacedProtocol(asyncio.Protocol):
    """Gives `inner` what comes, in turns."""

    def __init__(
        self, inner: asyncio.Protocol, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.inner = inner
        self._clock = clock
        self._pace = Pace(clock)
        self._transport: asyncio.Transport | None = None
        self._waiting = bytearray()
        self._slice_bytes = FIRST_SLICE_BYTES
        self._next_turn: asyncio.Handle | None = None
        self._turns = 0  # that were too short for what had come
        self._inner_paused = False
        # What `inner` is told when it has got everything: the end of the connection
        self._at_the_end: list[Callable[[], object]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give `inner` a transport whose reading both of us may pause."""
        self._transport = cast("asyncio.Transport", transport)
        gate = PacedTransport(self._transport, self)
        self.inner.connection_made(cast("asyncio.BaseTransport", gate))

    def data_received(self, data: bytes) -> None:
        """Give `data` now or later."""
        self._waiting += data
        self._pace.received(len(data))
        if self._next_turn is None:
            self._take()

    def eof_received(self) -> bool | None:
        """Give the rest, and then the end. The transport closes."""
        self._end(self.inner.eof_received)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the rest, and then the end."""
        self._transport = None
        self._end(partial(self.inner.connection_lost, exc))

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

    def discard(self) -> None:
        """Give nothing of what waits: nobody wants it any more."""
        self._waiting.clear()

    def _end(self, tell: Callable[[], object]) -> None:
        self._at_the_end.append(tell)
        if self._next_turn is None:
            self._take()

    def _take(self) -> None:
        self._next_turn = None
        self._pace.begin()
        while self._waiting and not self._pace.turn_is_over:
            self._give_slice()
        if self._pace.end() > 0:
            self.discard()  # no picture costs so much
            if self._transport is not None:
                self._transport.abort()
        if self._waiting:
            self._turns += 1
            pause_s = PAUSE_S if self._turns > TURNS_AT_ONCE else 0.0
            self._next_turn = asyncio.get_running_loop().call_later(pause_s, self._take)
        else:
            told, self._at_the_end = self._at_the_end, []
            for tell in told:
                tell()
        self._update()

    def _give_slice(self) -> None:
        data = bytes(self._waiting[: self._slice_bytes])
        del self._waiting[: self._slice_bytes]
        began = self._clock()
        self.inner.data_received(data)
        took_s = self._clock() - began
        if took_s > DEAR_S:
            self._slice_bytes = max(LEAST_SLICE_BYTES, len(data) // 4)
        elif took_s < CHEAP_S:
            self._slice_bytes = min(LARGEST_SLICE_BYTES, self._slice_bytes * 2)

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

    def abort(self) -> None:
        """Close at once. What has come and waits is not wanted."""
        self._paced.discard()
        self._transport.abort()

    def pause_reading(self) -> None:
        """Give `inner` nothing for now."""
        self._paced.hold(paused=True)

    def resume_reading(self) -> None:
        """Give `inner` what comes again."""
        self._paced.hold(paused=False)
