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
    """Reserves the port when it is first needed, until `close`."""

    def __init__(self) -> None:
        self._reserved: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port of all relays. Raises OSError when none is free."""
        if self._reserved is None:
            self._reserved = socket.socket()
            self._reserved.bind(("127.0.0.1", 0))
        port: int = self._reserved.getsockname()[1]
        return port

    def new(self) -> str:
        """An address for one relay."""
        return str(_LOOPBACK[2 + secrets.randbelow(_LOOPBACK.num_addresses - 4)])

    def close(self) -> None:
        """Free the port."""
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
