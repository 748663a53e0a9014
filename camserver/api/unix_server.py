"""The API's server: HTTP on a unix socket, whose file mode controls access.

It owns the socket; the routes do the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import socket
from pathlib import Path

from aiohttp import web

from camserver.api.captures import CAPTURES, CaptureRule, holder_of
from camserver.api.control_routes import GRACE_S, ControlRoutes
from camserver.api.forward import forwarding
from camserver.api.listener import MAX_BODY_BYTES, SILENT_S, HttpListener, explain
from camserver.api.parameters import known_parameters
from camserver.api.read_routes import ReadRoutes
from camserver.api.responses import Services
from camserver.config import Inventory
from camserver.errors import CamserverError

MODE = 0o660
GROUP = "camserver"
MAX_CONNECTIONS = 512


class ApiUnavailable(CamserverError):  # noqa: N818 - the name states the condition
    """Raised when the socket cannot be made; the message says why."""


class AlreadyServed(ApiUnavailable):
    """Raised when another process answers on the socket."""


class ApiServer:
    """The server of `services` on a unix socket: `listen`, `serve`, `stop`.

    It accepts at most `connections` at once.
    """

    def __init__(
        self,
        services: Services,
        reading: ReadRoutes,
        *,
        connections: int = MAX_CONNECTIONS,
        silent_s: float = SILENT_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._control = ControlRoutes(services, grace_s)
        app = web.Application(
            client_max_size=MAX_BODY_BYTES,
            middlewares=[explain, known_parameters(), forwarding(services)],
        )
        app[CAPTURES] = CaptureRule(asker=lambda request: holder_of(request, "snapshot"))
        app.add_routes([*reading.routes(), *self._control.routes()])
        self._listener = HttpListener(app, connections=connections, silent_s=silent_s)
        self._socket: socket.socket | None = None
        self._own: Path | None = None
        self._path: Path | None = None

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Return the keys that have changed and that only a restart applies."""
        return () if inventory.api.socket == self._path else ("api.socket",)

    async def listen(self, path: Path, inherited: socket.socket | None = None) -> None:
        """Listen at `path`, or on the socket that systemd made there; clients wait for `serve`.

        Raises ApiUnavailable; AlreadyServed when another process answers there.
        """
        self._path = path
        self._socket = (
            inherited if inherited is not None else await asyncio.to_thread(_listen, path)
        )
        self._own = path if inherited is None else None

    async def serve(self) -> None:
        """Start to answer."""
        if self._socket is not None:
            await self._listener.open(self._socket)

    async def stop(self) -> None:
        """Close the socket and every connection; other programs keep their leases."""
        self._control.stopping = True
        await self._listener.close()
        if self._socket is not None:
            self._socket.close()
        if self._own is not None:
            with contextlib.suppress(OSError):
                self._own.unlink()


def _listen(path: Path) -> socket.socket:
    """Return a new listening socket at `path`.

    A socket that a killed daemon left is replaced. A socket that a process serves is not.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                path.unlink(missing_ok=True)
            else:
                raise AlreadyServed(f"{path}: somebody else answers there")
        mask = os.umask(0o777 & ~MODE)
        try:
            sock.bind(str(path))
        finally:
            os.umask(mask)
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
        sock.listen(MAX_CONNECTIONS)
    except OSError as error:
        sock.close()
        raise ApiUnavailable(f"{path}: {error.strerror or error}") from None
    except ApiUnavailable:
        sock.close()
        raise
    return sock
