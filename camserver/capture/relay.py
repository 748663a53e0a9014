"""The way from libav to one camera, and to nothing else.

libav follows a redirect to any host, and would send it the password. So libav is given an address
on this machine, and no password. The daemon carries on the session with the camera of the inventory
(`relayed_session.py`). The kernel does not let the worker connect to another port
(`workers/landlock.py`).

Any user of this machine can connect to the relay. So libav's URL has a secret in its path. A
connection whose first request does not begin with it reaches no camera.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from camserver.capture.relayed_session import LibavConnection, RelayedSession
from camserver.capture.session import worst
from camserver.errors import CameraError
from camserver.host.tasks import finish
from camserver.model import Result, SessionEnd
from camserver.rtsp.login import LoginCache
from camserver.rtsp.messages import Request

FIRST_REQUEST_S = 5.0
MAX_CONNECTIONS = 8
"""Connections to the relay at once. libav needs one."""


class CameraRelay:
    """Listens on the loopback in the block. Sessions of libav there are sessions of `url`.

    There is one at a time. `rest_s` is the cool-down between two of them.
    """

    def __init__(
        self,
        url: str,
        tls: ssl.SSLContext | None,
        login_cache: LoginCache,
        *,
        host: str,
        port: int,
        rest_s: float = 0.0,
    ) -> None:
        """`host` and `port` are where it listens. `url` has no credentials."""
        self.failure: CameraError | None = None
        """Why the camera could not be reached, that it redirected, or that it refused the login."""
        self.end = SessionEnd.NONE
        """The worst end of its sessions, valid after the block."""
        self._url = url
        self._tls = tls
        self._login_cache = login_cache
        self._listens_on = host, port
        self._rest_s = rest_s
        self._local = f"rtsp://{host}:{port}/{secrets.token_urlsafe(16)}"
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: RelayedSession | None = None
        self._one_at_a_time = asyncio.Lock()
        self._closing = False

    @property
    def url(self) -> str:
        """The URL for libav."""
        parts = urlsplit(self._url)
        return self._local + urlunsplit(("", "", parts.path, parts.query, ""))

    @property
    def _camera(self) -> str:
        """The beginning of the camera's URLs."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc}"

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
        """End the session, and return when the transport to the camera is closed."""
        self._closing = True
        if kind is not None and not issubclass(kind, CameraError):  # cancelled, or preempted
            self._expedite()
        await finish(self._close(), on_cancel=self._expedite)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _expedite(self) -> None:
        if self._session is not None:
            self._session.expedite_close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing or len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(LibavConnection(reader, writer)), name="relay")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, libav: LibavConnection) -> None:
        try:
            async with asyncio.timeout(FIRST_REQUEST_S):
                first = await libav.request()
            if first is not None and first.uri.startswith(self._local):
                async with self._one_at_a_time:
                    if self.end is not SessionEnd.NONE:
                        await asyncio.sleep(self._rest_s)
                    await self._relay(
                        RelayedSession(libav, self._url, self._tls, self._login_cache), first
                    )
        except (TimeoutError, asyncio.CancelledError):
            pass  # not libav, or the block is over
        except CameraError as error:
            self.failure = self.failure or error
        finally:
            await finish(libav.close())

    async def _relay(self, session: RelayedSession, first: Request) -> None:
        self._session = session
        try:
            await session.run(first, self._local, self._camera)
        finally:
            try:
                await finish(session.close())
            finally:
                self.end = worst(self.end, session.end)
                self._session = None
