"""A listening socket and its connections: how many, how long they may be idle, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator

from aiohttp import web
from aiohttp.typedefs import Handler

from camserver.api.addresses import network_of

MAX_BODY_BYTES = 64 * 1024
SILENT_S = 15.0
"""Seconds without a request after which a connection is closed."""
STOP_S = 0.2
"""Seconds that running answers may still take when the daemon stops.

The connections of leases end too; their holders claim them again.
"""
RESERVED = 8
"""One of so many connections is only for root and this process's own user."""
ACCEPT_AGAIN_S = 0.1
PEER = struct.Struct("=iII")
"""struct ucred: pid, uid, gid."""
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class HttpListener:
    """The server of `app` on a listening socket, between `open` and `close`.

    It accepts at most `connections` at once; others get 503. One user of a unix socket, or one
    address, may have half of them, so that others still get through. Some are only for root and
    this process's own user: a reload must be possible.
    """

    def __init__(
        self, app: web.Application, *, connections: int, silent_s: float = SILENT_S
    ) -> None:
        # A handler is cancelled when its client disconnects. This is how a lease ends.
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=silent_s,
            shutdown_timeout=STOP_S,
            lingering_time=0,
        )
        self._connections = connections
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._clients: dict[asyncio.BaseProtocol, str] = {}

    async def open(self, sock: socket.socket) -> None:
        """Start to answer on `sock`."""
        await self._runner.setup()
        sock.setblocking(False)
        sock.listen(self._connections)
        self._socket = sock
        self._accepting = asyncio.create_task(self._accept(sock), name="http accept")

    async def close(self) -> None:
        """Close the socket and every connection."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
        if self._socket is not None:
            self._socket.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.9):
                await self._runner.cleanup()

    async def _accept(self, sock: socket.socket) -> None:
        loop, server = asyncio.get_running_loop(), self._runner.server
        assert server is not None  # noqa: S101 - `open` has set it up
        while True:
            try:
                # A queue that one client fills must be emptied fast: others wait in it
                connection = _accepted(sock) or (await loop.sock_accept(sock))[0]
            except OSError:  # no descriptor is left, or the client has gone
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            try:
                client = _client_of(connection)
                if self._has_room(client):
                    _, protocol = await loop.connect_accepted_socket(server, connection)
                    self._clients[protocol] = client
                else:
                    connection.send(BUSY)
                    connection.close()
                    await asyncio.sleep(0)
            except Exception:  # noqa: BLE001 - it costs this connection, and not the others
                connection.close()

    def _has_room(self, client: str) -> bool:
        """Whether this client may have another connection. "" is one without a limit of its own."""
        server = self._runner.server
        open_ = set(server.connections) if server is not None else set()
        # A connection counts until it is closed, also when its client does not read the end
        self._clients = {p: c for p, c in self._clients.items() if p in open_}
        if not client:
            return len(self._clients) < self._connections
        limited = [other for other in self._clients.values() if other]
        return (
            len(limited) < self._connections - self._connections // RESERVED
            and limited.count(client) < self._connections // 2
        )


def _accepted(sock: socket.socket) -> socket.socket | None:
    """A connection that waits, or None. Raises OSError."""
    try:
        connection, _ = sock.accept()
    except BlockingIOError:
        return None
    connection.setblocking(False)
    return connection


def _client_of(connection: socket.socket) -> str:
    """The client behind a connection: its user or address, or "" for one that has no own limit.

    Raises OSError.
    """
    if connection.family != socket.AF_UNIX:
        return network_of(str(connection.getpeername()[0]))
    _, uid, _ = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    return "" if uid in (0, os.getuid()) else f"uid {uid}"


@contextlib.contextmanager
def cut_off(request: web.Request) -> Iterator[None]:
    """Abort the connection when the block raises TimeoutError.

    A regular close would wait for a client that does not read.
    """
    try:
        yield
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the framework's error answers (404, 405, 413) the same JSON body as ours."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status >= 400 and not error.content_type.endswith("json"):
            error.text = (
                json.dumps({"error": f"{request.method} {request.path[:200]}: {error.reason}"})
                + "\n"
            )
            error.content_type = "application/json"
        raise
