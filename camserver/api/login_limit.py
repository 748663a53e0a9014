"""Limits how often an address may try a password. Pure: it takes `now` and returns values."""

from __future__ import annotations

from dataclasses import dataclass

from cachetools import LRUCache

from camserver.api.addresses import network_of

TRIES = 10
"""Wrong logins that an address has at once."""
TRY_EVERY_S = 6.0
"""After them, it gets another one every so many seconds."""
LOG_EVERY_S = 60.0
TRIES_OF_ALL, TRY_OF_ALL_EVERY_S = 200, 0.5
"""The same for all clients together: one person may have many addresses."""
MAX_CLIENTS = 4096


@dataclass(slots=True)
class _Client:
    all_tries_at: float
    """When it has all its tries again."""
    unlogged: int = 0
    logged_at: float = float("-inf")


class LoginLimit:
    """Counts wrong logins of each client. Those of one IPv6 network (/64) count together."""

    def __init__(self, tries: int = TRIES, try_every_s: float = TRY_EVERY_S) -> None:
        self._tries = tries
        self._try_every_s = try_every_s
        self._clients: LRUCache[str, _Client] = LRUCache(MAX_CLIENTS)

    def wait_s(self, address: str, now: float) -> float:
        """How long this client has to wait until a login is looked at. 0: not at all."""
        known = self._clients.get(network_of(address))
        if known is None:
            return 0.0
        return max(0.0, known.all_tries_at - now - (self._tries - 1) * self._try_every_s)

    def count_wrong(self, address: str, now: float) -> int | None:
        """Count a wrong login. Returns how many a line of the log should name, or None."""
        known = self._clients.setdefault(network_of(address), _Client(now))
        known.all_tries_at = max(known.all_tries_at, now) + self._try_every_s
        known.unlogged += 1
        if now - known.logged_at < LOG_EVERY_S:
            return None
        known.logged_at, count, known.unlogged = now, known.unlogged, 0
        return count
