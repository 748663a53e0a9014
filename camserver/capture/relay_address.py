"""Where the relays listen: addresses of the loopback, all with one port.

A worker may connect to one port only, for as long as it lives (`workers/landlock.py`). So all
relays have the same port. Each has an address of its own in 127.0.0.0/8.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket

_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


class RelayAddresses:
    """Reserves the port, for this host's life of the daemon. Raises OSError when none is free."""

    def __init__(self) -> None:
        self._reserved = socket.socket()
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]

    def new(self) -> str:
        """An address that nobody can guess: other users of this host could connect to it."""
        return str(_LOOPBACK[2 + secrets.randbelow(_LOOPBACK.num_addresses - 4)])

    def close(self) -> None:
        """Free the port."""
        self._reserved.close()
