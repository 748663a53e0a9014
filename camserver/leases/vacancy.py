"""Waiting until sessions have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable


class Vacancy:
    """Who waits for the end of sessions."""

    def __init__(self) -> None:
        self._devices: dict[str, asyncio.Event] = {}
        self._any = asyncio.Event()

    async def of_device(self, device: str) -> None:
        """Wait until `released` is called, and the device has no session."""
        await self._devices.setdefault(device, asyncio.Event()).wait()

    async def of_any(self) -> None:
        """Wait until `released` is called."""
        await self._any.wait()

    def released(self, devices: Iterable[str], is_held: Callable[[str], bool]) -> None:
        """Note that a session of `devices` has ended."""
        for device in devices:
            if device in self._devices and not is_held(device):
                self._devices.pop(device).set()
        self._any.set()
        self._any = asyncio.Event()
