"""The API's server: HTTP on a unix socket, whose mode is the gate. Owns sockets and their limits; does nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import socket
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from camserver.api.acting import Acting
from camserver.api.answers import Services
from camserver.api.reading import Reading
from camserver.api.stream import EventStream
from camserver.errors import CamserverError

MODE = 0o660
GROUP = "camserver"
MAX_CONNECTIONS = 512
MAX_BODY_BYTES = 64 * 1024
SILENT_S = 15.0
"""A connection on which no request comes for so long is closed."""
STOP_S = 0.2
"""How long running answers may take when the daemon stops; leases end with it, their holders claim them again."""
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ApiUnavailable(CamserverError):  # noqa: N818 - it says what is the case
    """Raised when the socket cannot be made; the message says why."""


class AlreadyServed(ApiUnavailable):
    """Raised when somebody else answers on the socket."""


class ApiServer:
    """Serves `services` and `events` on a unix socket: `listen`, `serve`, `stop`; at most `connections` at once."""

    def __init__(self, services: Services, events: EventStream, *, connections: int = MAX_CONNECTIONS,
                 silent_s: float = SILENT_S) -> None:
        self._acting = Acting(services)
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_explain])
        app.add_routes([*Reading(services, events).routes(), *self._acting.routes()])
        # A handler is cancelled when its client is gone: so does a lease end.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, keepalive_timeout=silent_s,
                                     shutdown_timeout=STOP_S, lingering_time=0)
        self._connections = connections
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._own: Path | None = None

    async def listen(self, path: Path, inherited: socket.socket | None = None) -> None:
        """Be the one at `path`, or on a socket that systemd made there and keeps; clients wait. Raises ApiUnavailable."""
        self._socket = inherited if inherited is not None else await asyncio.to_thread(_listen, path)
        self._own = path if inherited is None else None

    async def serve(self) -> None:
        """Answer, from now on."""
        if self._socket is not None:
            await self._runner.setup()
            self._server = await asyncio.get_running_loop().create_unix_server(
                self._connection, sock=self._socket, backlog=self._connections)

    async def stop(self) -> None:
        """Close the socket and every connection; leases of others are left to them."""
        self._acting.stopping = True
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.9):
                await self._runner.cleanup()
        if self._own is not None:
            with contextlib.suppress(OSError):
                self._own.unlink()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None  # noqa: S101 - set up before anybody can connect
        return server() if len(server.connections) < self._connections else _Refused()


class _Refused(asyncio.Protocol):
    """One connection more than there may be."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream server makes no other
        transport.write(BUSY)
        transport.close()


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals of the framework (404, 405, 413) say why in JSON, as ours do."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status >= 400 and error.content_type != "application/json":
            error.text = json.dumps({"error": f"{request.method} {request.path[:200]}: {error.reason}"}) + "\n"
            error.content_type = "application/json"
        raise


def _listen(path: Path) -> socket.socket:
    """A socket of our own; one that a killed daemon left is replaced, one that somebody serves is not."""
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
