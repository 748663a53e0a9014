"""HTTP over the unix socket of a daemon that runs on this host."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path


class DaemonConnection(http.client.HTTPConnection):
    """A connection that stays open."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))

    def text(self, route: str) -> str:
        """The body of an answer with the status 200."""
        self.request("GET", route)
        answer = self.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, f"{route}: {answer.status} {body}"
        return body
