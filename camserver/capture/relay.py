"""The way from libav to one camera, and to nothing else.

libav follows a redirect to any host, and would send it the password. So libav is given an address
on this machine, and no password. The daemon connects to the camera of the inventory, over TLS if
the URL says so, and passes the bytes on (`relayed_session.py`). The kernel does not let the worker
connect to another port (`workers/landlock.py`).

So the daemon sees itself that the transport to the camera is closed.
"""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from camserver.capture.relayed_session import RelayedSession, Side
from camserver.config.urls import RTSP_PORTS
from camserver.errors import CameraError
from camserver.host.tasks import finish
from camserver.model import Result, SessionEnd
from camserver.rtsp.login import LoginCache

CLOSE_S = 1.0
"""How long the rest may take on its way to the camera, after libav has closed its side."""


class CameraRelay:
    """Listens on the loopback in the block. Each connection there leads to the camera of `url`."""

    def __init__(
        self,
        url: str,
        tls: ssl.SSLContext | None,
        login_cache: LoginCache,
        *,
        host: str,
        port: int,
    ) -> None:
        """Listen on `host` and `port`. The login is added to libav's requests."""
        self.failure: CameraError | None = None
        """Why the camera could not be reached, that it redirected, or that it refused the login."""
        self.has_connected = False
        """Whether the camera was reached at least once: it may count a session."""
        self._url = url
        self._tls = tls
        self._login_cache = login_cache
        self._listens_on = host, port
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._connects: set[asyncio.Task[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = set()
        self._sides: set[Side] = set()

    @property
    def url(self) -> str:
        """The URL for libav, without credentials."""
        host, port = self._listens_on
        return urlunsplit(urlsplit(self._url)._replace(scheme="rtsp", netloc=f"{host}:{port}"))

    async def __aenter__(self) -> Self:
        """Listen. Raises CameraError when this machine does not give the port."""
        try:
            self._server = await asyncio.start_server(self._connected, *self._listens_on)
        except OSError as error:
            raise CameraError(
                Result.ERROR, f"no port on the loopback: {error.strerror}", SessionEnd.NONE
            ) from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close everything, and return when it is closed."""
        await finish(self._close())

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connect in self._connects:  # a host that does not answer would hold it for minutes
            connect.cancel()
        if self._relays:
            await asyncio.wait(self._relays, timeout=CLOSE_S)
        for side in self._sides:
            side.writer.transport.abort()
        if self._relays:
            await asyncio.wait(self._relays)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._relays:  # libav has one connection at a time, so this is somebody else
            writer.transport.abort()
            return
        task = asyncio.create_task(self._relay(Side(reader, writer)), name="relay")
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)

    async def _relay(self, libav: Side) -> None:
        parts = urlsplit(self._url)
        host, port = self._listens_on
        session = RelayedSession(
            libav,
            self._connect,
            self._login_cache,
            f"rtsp://{host}:{port}",
            f"{parts.scheme}://{parts.netloc}",
        )
        self._sides.add(libav)
        try:
            await session.run()
        except CameraError as error:
            self.failure = self.failure or error
        finally:
            await libav.close()
            self._sides.clear()

    async def _connect(self) -> Side:
        """A connection to the camera. Raises CameraError."""
        parts = urlsplit(self._url)
        port = parts.port or RTSP_PORTS[parts.scheme]
        connect = asyncio.create_task(
            asyncio.open_connection(parts.hostname, port, ssl=self._tls), name="relay connect"
        )
        self._connects.add(connect)
        connect.add_done_callback(self._connects.discard)
        await asyncio.wait({connect})
        if connect.cancelled():  # the relay is being closed
            raise CameraError(Result.TIMEOUT, "the connection was not made in time", _NONE)
        try:
            side = Side(*connect.result())
        except ssl.SSLCertVerificationError:
            raise CameraError(
                Result.ERROR, "its certificate is not valid (tls_verify = true)", _NONE
            ) from None
        except ConnectionRefusedError:
            raise CameraError(
                Result.UNREACHABLE, "connection refused: nothing listens there", _NONE
            ) from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise CameraError(Result.UNREACHABLE, f"connection failed: {reason}", _NONE) from None
        self.has_connected = True
        self._sides.add(side)
        return side


_NONE = SessionEnd.NONE
