"""HTTP over the unix socket of a daemon that runs on this host."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path


class DaemonConnection(http.client.HTTPConnection):
    """A connection that stays open. `text` raises OSError when the daemon is gone."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))

    def text(self, route: str) -> str:
        """The body of the answer."""
        self.request("GET", route)
        return self.getresponse().read().decode()
