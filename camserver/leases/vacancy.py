"""Waiting until sessions have ended: those of one device, or all of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable


class Vacancy:
    """Who waits for the end of sessions. Each device, and all together, has at most one waiter."""

    def __init__(self) -> None:
        self._devices: dict[str, asyncio.Event] = {}
        self._all: asyncio.Event | None = None

    async def of_device(self, device: str) -> None:
        """Wait until `released` is called, and the device has no session."""
        event = self._devices[device] = asyncio.Event()
        try:
            await event.wait()
        finally:
            del self._devices[device]

    async def of_all(self) -> None:
        """Wait until `released` is called, and no session of this process is left."""
        self._all = asyncio.Event()
        try:
            await self._all.wait()
        finally:
            self._all = None

    def released(
        self, devices: Iterable[str], is_held: Callable[[str], bool], any_held: Callable[[], bool]
    ) -> None:
        """Note that a session of `devices` has ended."""
        for device in devices:
            if device in self._devices and not is_held(device):
                self._devices[device].set()
        if self._all is not None and not any_held():
            self._all.set()
