"""A listening socket and its connections: how many, how long they may be idle, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

MAX_BODY_BYTES = 64 * 1024
SILENT_S = 15.0
"""Seconds without a request after which a connection is closed."""
STOP_S = 0.2
"""Seconds that running answers may still take when the daemon stops.

The connections of leases end too; their holders claim them again.
"""
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class HttpListener:
    """The server of `app` on a listening socket, between `open` and `close`.

    It accepts at most `connections` at once; others get 503.
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
        self._server: asyncio.Server | None = None

    async def open(self, sock: socket.socket) -> None:
        """Start to answer on `sock`."""
        loop = asyncio.get_running_loop()
        await self._runner.setup()
        if sock.family == socket.AF_UNIX:
            # The path belongs to systemd, or its creator removes it: asyncio must not.
            keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
            self._server = await loop.create_unix_server(
                self._connection, sock=sock, backlog=self._connections, **keep
            )
        else:
            self._server = await loop.create_server(
                self._connection, sock=sock, backlog=self._connections
            )

    async def close(self) -> None:
        """Close the socket and every connection."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.9):
                await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None  # noqa: S101 - `open` sets it up before it listens
        return server() if len(server.connections) < self._connections else _Refused()


class _Refused(asyncio.Protocol):
    """A connection above the limit: it gets 503 and is closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # For the type checker: a stream server makes no other transport.
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        transport.write(BUSY)
        transport.close()


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
        if error.status >= 400 and error.content_type != "application/json":
            error.text = (
                json.dumps({"error": f"{request.method} {request.path[:200]}: {error.reason}"})
                + "\n"
            )
            error.content_type = "application/json"
        raise
