"""The way from libav to one camera, and to nothing else.

libav follows a redirect to any host, and sends it the password. So libav is given an address on
this machine. The daemon connects to the camera of the inventory, over TLS if the URL says so, and
passes the bytes on. It ends the connection when the camera redirects.

So the daemon sees itself that the transport to the camera is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from camserver.errors import CameraError
from camserver.host.tasks import finish
from camserver.model import Result, SessionEnd

PORTS = {"rtsp": 554, "rtsps": 322}
PIECE_BYTES = 64 * 1024
CLOSE_S = 1.0
"""How long the rest may take on its way to the camera, after libav has closed its side."""
# libav takes any line that begins so for a status line (libavformat/rtsp.c)
_REDIRECT = re.compile(rb"RTSP/[^\s]{0,64}\s{1,64}\+?0{0,64}3[0-9][0-9](?![0-9])")
_OVERLAP_BYTES = 256


class CameraRelay:
    """Listens on the loopback in the block. Each connection there leads to the camera of `url`."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self.failure: CameraError | None = None
        """Why the camera could not be reached, or that it redirected."""
        self.has_connected = False
        """Whether the camera was reached at least once: it may count a session."""
        self._url = url
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._connects: set[asyncio.Task[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The URL for libav, without credentials."""
        assert self._server is not None  # noqa: S101 - it is used in the block
        port = self._server.sockets[0].getsockname()[1]
        return urlunsplit(urlsplit(self._url)._replace(scheme="rtsp", netloc=f"127.0.0.1:{port}"))

    async def __aenter__(self) -> Self:
        """Listen. Raises CameraError when this machine has no port."""
        try:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
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
        for writer in self._writers:
            writer.transport.abort()
        if self._relays:
            await asyncio.wait(self._relays)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer), name="relay")
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on in both directions, until one side ends."""
        self._writers.add(writer)
        try:
            camera = await self._connect()
            if camera is None:
                return
            camera_reader, camera_writer = camera
            self._writers.add(camera_writer)
            answers = asyncio.create_task(self._answers(camera_reader, writer), name="answers")
            try:
                # libav ends first in good order: what it has sent last is TEARDOWN
                requests = asyncio.create_task(_pass_on(reader, camera_writer), name="requests")
                await asyncio.wait({answers, requests}, return_when=asyncio.FIRST_COMPLETED)
                requests.cancel()
            finally:
                await _closed(camera_writer)
                answers.cancel()
                self._writers.discard(camera_writer)
        finally:
            await _closed(writer)
            self._writers.discard(writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        parts = urlsplit(self._url)
        port = parts.port or PORTS[parts.scheme]
        connect = asyncio.create_task(
            asyncio.open_connection(parts.hostname, port, ssl=self._tls), name="relay connect"
        )
        self._connects.add(connect)
        connect.add_done_callback(self._connects.discard)
        await asyncio.wait({connect})
        if connect.cancelled():  # the relay is being closed
            return None
        try:
            streams = connect.result()
            self.has_connected = True
            return streams
        except ssl.SSLCertVerificationError:
            self._failed(Result.ERROR, "its certificate is not valid (tls_verify = true)")
        except ConnectionRefusedError:
            self._failed(Result.UNREACHABLE, "connection refused: nothing listens there")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self._failed(Result.UNREACHABLE, f"connection failed: {reason}")
        return None

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what the camera sends, until it ends or redirects."""
        seen = b""
        while data := await reader.read(PIECE_BYTES):
            seen = seen[-_OVERLAP_BYTES:] + data
            if _REDIRECT.search(seen):
                self._failed(
                    Result.ERROR, "the camera redirects: put the final URL into the inventory"
                )
                return
            writer.write(data)
            await writer.drain()

    def _failed(self, result: Result, why: str) -> None:
        if self.failure is None:
            self.failure = CameraError(result, why, SessionEnd.NONE)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(PIECE_BYTES):
            writer.write(data)
            await writer.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Close, and wait until the transport is closed. `_close` of the relay aborts it if needed."""
    writer.close()
    with contextlib.suppress(OSError):  # also ssl.SSLError: how it ended does not matter
        await writer.wait_closed()
