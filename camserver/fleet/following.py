"""The events of the other hosts, while somebody listens to events on this host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from camserver.fleet.peers import Peers

LOOK_S = 0.5
"""How often it is looked for listeners and for new hosts."""
AGAIN_S = 2.0
"""How soon a host is asked again whose events have broken off."""


class EventSink(Protocol):
    """Where the events go."""

    listeners: int

    def add(self, host: str, data: dict[str, Any]) -> None:
        """Add an event of another host. Raises ValueError for what is none."""


class Following:
    """Follows every other live host, while `sink` has listeners."""

    def __init__(self, peers: Peers, hosts: Callable[[], Iterable[str]], sink: EventSink) -> None:
        """`hosts` gives the names of the other hosts that are live."""
        self._peers = peers
        self._hosts = hosts
        self._sink = sink
        self._following: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Follow, until cancelled."""
        try:
            while True:
                wanted = set(self._hosts()) if self._sink.listeners else set()
                for host in wanted - self._following.keys():
                    self._following[host] = asyncio.create_task(
                        self._follow(host), name=f"events of host {host}"
                    )
                for host in self._following.keys() - wanted:
                    self._following.pop(host).cancel()
                await asyncio.sleep(LOOK_S)
        finally:
            for task in self._following.values():
                task.cancel()

    async def _follow(self, host: str) -> None:
        while True:
            async for data in self._peers.events(host):
                with contextlib.suppress(ValueError):
                    self._sink.add(host, data)
            await asyncio.sleep(AGAIN_S)
