"""What the driver of an epoch uses: the devices of this host, the kernel's timer, other hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from camserver.fleet.host import FleetHost
from camserver.fleet.orders import Remains
from camserver.fleet.ownership import Take

Ask = Callable[[str, int], Awaitable[bool]]
"""Asks a host, in the epoch in which we know it, to promise to wait for us."""


class DevicesOfHost(Protocol):
    """What the host does with its devices; `LocalDevices` is the real one."""

    version: int

    @property
    def reach(self) -> Mapping[str, tuple[str, ...]]:
        """The hosts that reach each device, as patterns."""

    def begin(self, host: FleetHost, wake: Callable[[], None]) -> None:
        """Begin an epoch. `wake` lets this driver look for what is to be done."""

    def look(self) -> None:
        """Find out what has become of the leases of programs."""

    def extend(self, for_s: float) -> None:
        """Let this host have sessions for some time."""

    def take_over(self, take: Take, elapsed_s: float) -> None:
        """Begin with a device."""

    async def hand_over(self, device: str) -> Remains:
        """End with a device, and return when all its sessions have ended."""

    async def end_all(self) -> None:
        """End every session, and return when all have ended."""


class Timer(Protocol):
    """The kernel's timer."""

    def arm(self, at: float) -> None:
        """Kill this process at a moment."""

    def disarm(self) -> None:
        """Let it live."""
