"""One session of libav, which our own client carries on with the camera.

libav's requests go over a connection of our own client. So the login, its limits, the order of
answers, the end of the session and its proof are those of our client, and libav knows no password.
libav gets the answers, and the packets. It does what it is here for: it reads streams that our own
depacketisers do not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from camserver.capture.native import EXPEDITED_TEARDOWN_S
from camserver.errors import CameraError
from camserver.model import Result, SessionEnd, Step
from camserver.rtsp.aio.connection import ConnectionClosed
from camserver.rtsp.aio.ending import CLOSE_S, SessionEnding
from camserver.rtsp.aio.requests import RtspRequests
from camserver.rtsp.aio.session import MAX_RECONNECTS
from camserver.rtsp.auth import Challenge
from camserver.rtsp.login import LoginCache
from camserver.rtsp.messages import (
    Headers,
    Interleaved,
    MessageParser,
    Request,
    Response,
    RtspProtocolError,
)
from camserver.rtsp.session import SessionCore, SessionEvent, SessionState
from camserver.rtsp.session_cache import Reconnect, SessionCache

PIECE_BYTES = 16 * 1024
MAX_WAITING_BYTES = 8 * 1024 * 1024
"""How many bytes may wait for libav. Packets above it are dropped, and libav sees a gap."""
NOWHERE = "server_port=9-9"
"""The discard port (RFC 863) of this host, for libav, which must have one."""
OURS = frozenset(("Cseq", "Session", "User-Agent", "Authorization", "Content-Length"))
"""Header fields that our client writes itself."""
_SUPPORTED = frozenset(
    (Step.OPTIONS, Step.DESCRIBE, Step.SETUP, Step.PLAY, Step.GET_PARAMETER, Step.TEARDOWN)
)


class LibavConnection:
    """libav's connection to the relay."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = MessageParser()

    async def request(self) -> Request | None:
        """The next request. None when the connection ends."""
        with contextlib.suppress(OSError, RtspProtocolError):
            while True:
                for message in self._parser.messages():
                    if isinstance(message, Request):
                        return message
                data = await self._reader.read(PIECE_BYTES)
                if not data:
                    return None
                self._parser.add(data)
        return None

    def answer(self, request: Request, response: Response) -> None:
        """Send the answer to a request of libav."""
        headers = Headers()
        headers["CSeq"] = request.headers.get("CSeq", "0")
        for name, value in response.headers.items():
            if name not in ("Cseq", "Content-Length"):
                headers[name] = _without_places(value) if name == "Transport" else value
        self._writer.write(Response(response.status, headers, response.body).encode())

    def packet(self, channel: int, payload: bytes) -> None:
        """Send a packet. It is dropped when too much waits for libav, or libav has gone."""
        transport = self._writer.transport
        if not transport.is_closing() and transport.get_write_buffer_size() < MAX_WAITING_BYTES:
            self._writer.write(Interleaved(channel, payload).encode())

    def end(self) -> None:
        """Send what waits, and then the end of the connection."""
        self._writer.close()

    async def close(self) -> None:
        """Close the connection, and see it closed."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()


class RelayedSession:
    """One session. Call `run`, and `close` in any case."""

    def __init__(
        self,
        libav: LibavConnection,
        url: str,
        tls: ssl.SSLContext | None,
        login_cache: LoginCache,
    ) -> None:
        """`url` is the camera's, without credentials."""
        self._libav = libav
        self._url = url
        self._tls = tls
        self._login_cache = login_cache
        self._core = SessionCore(url, SessionCache())
        self._ending = SessionEnding(self._core)
        self._requests: RtspRequests | None = None
        self._over_udp = False
        # Packets that came before the answer to PLAY was passed on. None: they are passed on now.
        self._early: list[tuple[int, bytes]] | None = []
        self._early_bytes = 0

    @property
    def end(self) -> SessionEnd:
        """How it ended, valid after `close`."""
        return self._core.end

    async def run(self, first: Request, local: str, camera: str) -> None:
        """Carry out libav's requests until it tears down, or one side ends the connection.

        `first` is its first request. URLs of requests that begin with `local` are the relay's;
        `camera` is the beginning of the camera's. Raises CameraError.
        """
        await self._connect(None)
        request: Request | None = first
        while request is not None and request.method != Step.TEARDOWN:
            if request.uri.startswith(local):
                request.uri = camera + request.uri.removeprefix(local)
            if request.method in _SUPPORTED:
                response = await self._carry_out(request)
            else:
                response = Response(501)
            self._libav.answer(request, response)
            if request.method == Step.PLAY and response.status == 200:
                self._pass_packets_on()
            request = await self._libav.request()

    async def _connect(self, carried: Challenge | None) -> None:
        self._requests = requests = await RtspRequests.open(
            self._url, self._tls, self._login_cache, carried, self._core
        )
        requests.connection.on_packet = self._packet

    async def _carry_out(self, request: Request) -> Response:
        """The camera's answer to a request of libav. Raises CameraError."""
        method, core = Step(request.method), self._core
        headers = {name: text for name, text in request.headers.items() if name not in OURS}
        if method is Step.SETUP:
            self._over_udp |= "TCP" not in request.headers.get("Transport").upper()
        if method is Step.PLAY:
            core.cache.base = request.uri  # for TEARDOWN
        for _ in range(MAX_RECONNECTS + 1):
            is_first_setup = method is Step.SETUP and core.state is SessionState.CONNECTED
            if is_first_setup:
                core.happened(SessionEvent.SETUP_SENT)
                core.cache.base = core.cache.base or request.uri
            try:
                response = await self._asked(method, request.uri, headers)
            except Reconnect as again:
                if is_first_setup:
                    core.happened(SessionEvent.SETUP_REFUSED)
                await self._ending.close(self._requests)
                core.happened(SessionEvent.RECONNECT)
                await self._connect(again.carried)
                continue
            except CameraError as error:
                if is_first_setup and error.status is not None:
                    core.happened(SessionEvent.SETUP_REFUSED)
                raise
            accepted = response.status == 200
            if is_first_setup:
                core.happened(
                    SessionEvent.SETUP_ACCEPTED if accepted else SessionEvent.SETUP_REFUSED
                )
            if method is Step.PLAY and accepted and core.state is SessionState.READY:
                core.happened(SessionEvent.PLAY_ACCEPTED)
            if 300 <= response.status < 400:
                raise CameraError(
                    Result.ERROR,
                    "the camera redirects: put the final URL into the inventory",
                    core.end,
                )
            return response
        raise CameraError(
            Result.UNREACHABLE, f"the camera closed the connection again and again at {method}"
        )

    async def _asked(self, method: Step, uri: str, headers: dict[str, str]) -> Response:
        """Send a request. Raises CameraError, and Reconnect."""
        requests, core = self._requests, self._core
        assert requests is not None  # noqa: S101 - connected
        try:
            return await requests.ask(method, uri, headers)
        except ConnectionClosed as closed:
            in_doubt = core.may_be_counted and (self._over_udp or not closed.by_camera)
            if not requests.login.remembered or core.has_session or closed.unparsable or in_doubt:
                result = Result.ERROR if closed.unparsable else Result.UNREACHABLE
                raise CameraError(
                    result, f"{closed} at {method}{requests.stray()}", step=method
                ) from None
            self._login_cache.forget()
            raise Reconnect from None

    def _packet(self, channel: int, payload: bytes) -> None:
        if self._early is None:
            self._libav.packet(channel, payload)
        elif self._core.has_session and self._early_bytes < MAX_WAITING_BYTES:
            self._early.append((channel, payload))
            self._early_bytes += len(payload)

    def _pass_packets_on(self) -> None:
        """Pass on packets from now on, and the end of the camera's connection."""
        early, self._early = self._early or [], None
        for channel, payload in early:
            self._libav.packet(channel, payload)
        if self._requests is not None:
            connection = self._requests.connection
            connection.on_end = self._libav.end
            if connection.end is not None:
                self._libav.end()

    async def close(self) -> None:
        """End the session, and see the transport closed. It must not be cancelled."""
        requests = self._requests
        try:
            if requests is not None:
                requests.connection.on_packet = requests.connection.on_end = None
                if self._core.has_session and requests.connection.end is None:
                    await self._ending.tear_down(requests, over_udp=self._over_udp)
        finally:
            await self._ending.close(requests)

    def expedite_close(self) -> None:
        """Limit the time that `close` takes, also while it is running."""
        self._ending.expedite(EXPEDITED_TEARDOWN_S)


def _without_places(transport: str) -> str:
    """An answer's Transport, without the address and the ports to which libav would send.

    With UDP libav sends a packet there, to open its own ports. A camera could name any host.
    """
    kept = [
        part
        for part in transport.split(";")
        if part.partition("=")[0].strip().lower() not in ("source", "destination", "server_port")
    ]
    over_udp = not any("tcp" in part.lower() or "interleaved" in part.lower() for part in kept)
    return ";".join([*kept, *([NOWHERE] if over_udp and transport else [])])
