"""Lets the store forget old changes. Each renewal is one: its quota would be full after days.

One host does it for all: the first one by name that is live.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from camserver.fleet.etcd import EtcdStore
from camserver.fleet.member import FleetMember
from camserver.fleet.orders import Phase
from camserver.fleet.store import StoreError

EVERY_S = 600.0
KEPT_S = 3600.0
"""Changes of this time are kept, so that a watch that was broken can go on."""


class Compaction:
    """Compacts the store from time to time, when it is this host's turn."""

    def __init__(
        self,
        member: FleetMember,
        store: EtcdStore,
        every_s: float = EVERY_S,
        kept_s: float = KEPT_S,
    ) -> None:
        self._member = member
        self._store = store
        self._every_s = every_s
        self._revisions: deque[int] = deque(maxlen=round(kept_s / every_s) + 1)

    async def run(self) -> None:
        """Compact, until cancelled. A store that refuses is asked again: the doctor names it."""
        while True:
            await asyncio.sleep(self._every_s)
            host = self._member.host
            if host is None or host.phase is not Phase.LIVE:
                continue
            self._revisions.append(host.mirror.revision)
            first = min((name for name, _ in host.mirror.live()), default="")
            if first == host.name and len(self._revisions) == self._revisions.maxlen:
                with contextlib.suppress(StoreError):
                    await self._store.compact(self._revisions[0])
