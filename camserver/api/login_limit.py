"""Limits how often an address may try a password. Pure: it takes `now` and returns values."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from cachetools import LRUCache

TRIES = 10
"""Wrong logins that an address has at once."""
TRY_EVERY_S = 6.0
"""After them, it gets another one every so many seconds."""
LOG_EVERY_S = 60.0
MAX_ADDRESSES = 4096


@dataclass(slots=True)
class _Address:
    full_at: float  # when it has all its tries again
    wrong: int = 0  # since the last line of the log
    said_at: float = float("-inf")


class LoginLimit:
    """Counts wrong logins of each address. Those of one IPv6 network (/64) count together."""

    def __init__(self) -> None:
        self._addresses: LRUCache[str, _Address] = LRUCache(MAX_ADDRESSES)

    def wait_s(self, address: str, now: float) -> float:
        """How long this address has to wait until a login is looked at. 0: not at all."""
        known = self._addresses.get(_network(address))
        return 0.0 if known is None else max(0.0, known.full_at - now - (TRIES - 1) * TRY_EVERY_S)

    def wrong(self, address: str, now: float) -> int:
        """Count a wrong login. Returns how many there were since the last line, or 0: no line."""
        known = self._addresses.setdefault(_network(address), _Address(now))
        known.full_at = max(known.full_at, now) + TRY_EVERY_S
        known.wrong += 1
        if now - known.said_at < LOG_EVERY_S:
            return 0
        known.said_at, wrong, known.wrong = now, known.wrong, 0
        return wrong


def _network(address: str) -> str:
    """The part of an address that one person has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.exploded[:19]
