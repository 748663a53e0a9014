"""Turns: at most so many at once for each client. Others wait a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from camserver.api.responses import refusal

MOST = 32
"""Pictures that are sent to one address at the same time, at most.

Each picture is in memory until its client has received it.
"""
WAIT_S = 10.0
"""How long a picture waits for its turn. Many clients may ask for the same new picture at once."""


class Turns:
    """The turns of each address; "" is the unix socket."""

    def __init__(self, most: int = MOST, wait_s: float = WAIT_S) -> None:
        self._most = most
        self._wait_s = wait_s
        self._free: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of addresses that have a turn or wait for one."""
        return len(self._users)

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Wait for a turn of an address, for the block. Raises 503."""
        free = self._free.setdefault(address, asyncio.Semaphore(self._most))
        self._users[address] = self._users.get(address, 0) + 1
        try:
            await self._wait(free, address)
            try:
                yield
            finally:
                free.release()
        finally:
            self._users[address] -= 1
            if not self._users[address]:
                del self._users[address], self._free[address]

    async def _wait(self, free: asyncio.Semaphore, address: str) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await free.acquire()
        except TimeoutError:
            raise refusal(
                web.HTTPServiceUnavailable,
                f"{self._most} pictures are on their way to {address or 'you'} already",
            ) from None
