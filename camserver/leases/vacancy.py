"""Waiting until sessions have ended: those of one device, or all of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable


class Vacancy:
    """Who waits for the end of sessions."""

    def __init__(self) -> None:
        self._devices: dict[str, asyncio.Event] = {}
        self._all = asyncio.Event()

    async def of_device(self, device: str) -> None:
        """Wait until `released` is called, and the device has no session."""
        await self._devices.setdefault(device, asyncio.Event()).wait()

    async def of_all(self) -> None:
        """Wait until `released` is called, and no session of this process is left."""
        self._all.clear()
        await self._all.wait()

    def released(
        self, devices: Iterable[str], is_held: Callable[[str], bool], any_held: Callable[[], bool]
    ) -> None:
        """Note that a session of `devices` has ended."""
        for device in devices:
            if device in self._devices and not is_held(device):
                self._devices.pop(device).set()
        if not self._all.is_set() and not any_held():
            self._all.set()
