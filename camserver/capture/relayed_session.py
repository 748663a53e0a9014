"""One session of libav, passed on to its camera with the login.

libav knows no password. Its requests get the login here, by the same rules as those of our own
client (`camserver.rtsp.login`), and the camera's own address instead of the relay's. Until PLAY is
answered, answers are looked at: a challenge is answered here, and libav does not see it. All other
bytes are passed on as they are, because libav is here for streams that our own parser cannot read.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd, Step
from camserver.pace import Pace
from camserver.rtsp.auth import Challenge
from camserver.rtsp.login import Login, LoginCache, Verdict
from camserver.rtsp.messages import MessageParser, Response, RtspProtocolError
from camserver.rtsp.refusals import login_failure, login_unanswered

PIECE_BYTES = 16 * 1024
CLOSING_S = 0.3
"""How long to wait after a 401 to find out whether the camera closes the connection."""
MAX_TRIES = 3
"""How often one request is sent: without a login, with one, and again for a stale nonce."""
_HEAD_END = b"\r\n\r\n"
_REQUEST = re.compile(rb"([A-Z_]{1,32}) (\S{1,4096}) RTSP/1\.0\r\n(.*)", re.DOTALL)
_CSEQ = re.compile(rb"^CSeq: ([0-9]{1,9})", re.MULTILINE | re.IGNORECASE)
# libav takes any line that begins so for a status line (libavformat/rtsp.c)
_REDIRECT = re.compile(rb"RTSP/[^\s]{0,64}\s{1,64}\+?0{0,64}3[0-9][0-9](?![0-9])")
_OVERLAP_BYTES = 256


class Side:
    """One of the two connections, and what has come from it and is not taken yet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.received = bytearray()
        self.has_ended = False
        self._reader = reader
        self._pace = Pace()

    async def more(self) -> bool:
        """Wait for more bytes. False at the end of the connection."""
        data = b""
        with contextlib.suppress(OSError):
            data = await self._reader.read(PIECE_BYTES)
        self.received += data
        self._pace.received(len(data))
        self.has_ended = not data
        return not self.has_ended

    def take(self) -> bytes:
        """All that has come."""
        data = bytes(self.received)
        self.received.clear()
        return data

    async def send(self, data: bytes) -> None:
        """Send `data`. Errors show at the next `more`."""
        with contextlib.suppress(OSError):
            self.writer.write(data)
            await self.writer.drain()

    def begin_turn(self) -> None:
        """Begin to work on what has come."""
        self._pace.begin()

    async def end_turn(self) -> None:
        """Let others run. A connection that floods waits longer."""
        await asyncio.sleep(self._pace.end())

    async def close(self) -> None:
        """Close, and wait until the transport is closed. Somebody else aborts it if needed."""
        self.writer.close()
        with contextlib.suppress(OSError):  # also ssl.SSLError: how it ended does not matter
            await self.writer.wait_closed()


@dataclass(frozen=True, slots=True)
class RelayedRequest:
    """A request of libav. `uri` names the camera, `fields` are its header lines and the rest."""

    method: str
    uri: str
    fields: bytes

    @classmethod
    def parse(cls, head: bytes, local: str, camera: str) -> Self | None:
        """A head with its empty line. `local` is the relay's address in URLs, `camera` its own."""
        match = _REQUEST.fullmatch(head)
        if match is None:
            return None
        uri = match[2].decode("utf-8", "replace")
        if uri.startswith(local):
            uri = camera + uri.removeprefix(local)
        return cls(match[1].decode(), uri, match[3])

    def encode(self, authorization: str | None, resent: int) -> bytes:
        """The bytes for the camera. CSeq grows by `resent`, the number of requests sent again."""
        fields = _CSEQ.sub(lambda m: b"CSeq: %d" % (int(m[1]) + resent), self.fields, count=1)
        login = f"Authorization: {authorization}\r\n" if authorization else ""
        return f"{self.method} {self.uri} RTSP/1.0\r\n{login}".encode() + fields


class RelayedSession:
    """Passes bytes between libav and one camera until one of them ends the connection."""

    def __init__(
        self,
        libav: Side,
        connect: Callable[[], Awaitable[Side]],
        login_cache: LoginCache,
        local: str,
        camera: str,
    ) -> None:
        """`connect` opens a connection to the camera, and raises CameraError.

        `local` is the beginning of the URLs that libav uses, `camera` that of the camera's URLs.
        """
        self._libav = libav
        self._connect = connect
        self._camera: Side | None = None
        self._login_cache = login_cache
        self._urls = local, camera
        self._login = Login(login_cache)
        self._resent = 0
        self._has_session = False
        self._seen = b""  # the last bytes that were passed on to libav

    async def run(self) -> None:
        """Pass on until the end. The camera's connection is closed then.

        Raises CameraError when the camera redirects or refuses the login.
        """
        try:
            self._camera = await self._connect()
            while (request := await self._next_request()) is not None:
                if not await self._ask(request) or request.method == Step.PLAY:
                    break
            await self._stream(self._camera)
        finally:
            if self._camera is not None:
                await self._camera.close()

    async def _next_request(self) -> RelayedRequest | None:
        """Libav's next request. None at the end, or when it sends something else."""
        received = self._libav.received
        while _HEAD_END not in received:
            if not await self._libav.more():
                return None
        end = received.index(_HEAD_END) + len(_HEAD_END)
        request = RelayedRequest.parse(bytes(received[:end]), *self._urls)
        if request is not None:
            del received[:end]
        return request

    async def _ask(self, request: RelayedRequest) -> bool:
        """Send a request, with the login if needed, and pass its answer on to libav.

        Returns whether there was an answer. If not, what came is left in `received`.
        """
        method = Step(request.method)
        for _ in range(MAX_TRIES):
            camera = self._connected()
            sent = await self._send(camera, request)
            answer = await self._answer(camera)
            if answer is None:
                if camera.has_ended and sent and not self._login_is_proved():
                    raise login_unanswered(method)
                return False
            if answer.status != 401:
                if sent and answer.status != 403:
                    self._login.accepted(answer.headers.get("Authentication-Info"))
                self._has_session |= method is Step.SETUP and answer.status == 200
                await self._to_libav(camera.take())
                return True
            verdict = self._login.refused([answer.headers.get("WWW-Authenticate")], sent=sent)
            camera.take()
            if verdict is Verdict.RECONNECT:
                await self._reconnect(None)
            elif verdict is not Verdict.ANSWER:
                raise login_failure(verdict, self._login, method)
            elif await self._closes_after_challenge(camera, answer):
                await self._reconnect(self._login.challenge)
            self._resent += 1
        raise login_failure(Verdict.WRONG, self._login, method)

    def _connected(self) -> Side:
        assert self._camera is not None  # noqa: S101 - run() has connected
        return self._camera

    def _login_is_proved(self) -> bool:
        return self._login.remembered or self._login.was_accepted

    async def _send(self, camera: Side, request: RelayedRequest) -> bool:
        """Send a request. Returns whether it had a login."""
        login = self._login.authorization(request.method, request.uri, secrets.token_hex(8))
        await camera.send(request.encode(login, self._resent))
        return login is not None

    async def _answer(self, camera: Side) -> Response | None:
        """The camera's next response. It stays in `camera.received`, with all that came with it.

        What is not RTSP is passed on before. None when a connection ends, or when libav does not
        wait any more.
        """
        parser, fed = MessageParser(), 0
        gone = asyncio.create_task(self._libav.more(), name="libav")
        try:
            while True:
                read = asyncio.create_task(camera.more(), name="camera")
                await asyncio.wait({read, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    await _cancelled(read)
                    return None
                camera.begin_turn()
                for message in parser.feed(bytes(camera.received[fed:])):
                    if isinstance(message, Response):
                        return message
                fed = len(camera.received)
                if parser.stray_bytes_total:  # libav may understand it
                    await self._to_libav(camera.take())
                    parser, fed = MessageParser(), 0
                await camera.end_turn()
                if camera.has_ended:
                    return None
        except RtspProtocolError:
            return None
        finally:
            await _cancelled(gone)

    async def _closes_after_challenge(self, camera: Side, answer: Response) -> bool:
        """Whether the camera closes the connection after its 401, as some do.

        Nothing is sent before this is known: the camera could count a login on a closing
        connection, and it would be sent twice.
        """
        login, cache = self._login, self._login_cache
        if self._has_session or login.carried or login.was_accepted:
            return False
        if answer.headers.get("Connection").lower() == "close":
            return True
        if cache.closes_after_challenge is not False:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSING_S):
                    await camera.more()
            cache.closes_after_challenge = camera.has_ended
        return cache.closes_after_challenge

    async def _reconnect(self, carried: Challenge | None) -> None:
        """Go on over a new connection, which begins with the answer to `carried`."""
        await self._connected().close()
        self._login = Login(self._login_cache, carried)
        self._camera = await self._connect()

    async def _stream(self, camera: Side) -> None:
        """Pass on everything, until one side ends. libav's requests get the login."""
        answers = asyncio.create_task(self._pass_answers(camera), name="answers")
        # libav ends first in good order: what it has sent last is TEARDOWN
        requests = asyncio.create_task(self._pass_requests(camera), name="requests")
        try:
            await asyncio.wait({answers, requests}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(requests)
            await _cancelled(answers)
        if not answers.cancelled():
            answers.result()

    async def _pass_answers(self, camera: Side) -> None:
        while True:
            camera.begin_turn()
            await self._to_libav(camera.take())
            await camera.end_turn()
            if not await camera.more():
                return

    async def _pass_requests(self, camera: Side) -> None:
        while (request := await self._next_request()) is not None:
            await self._send(camera, request)
        await camera.send(self._libav.take())
        while await self._libav.more():
            await camera.send(self._libav.take())

    async def _to_libav(self, data: bytes) -> None:
        """Pass on what the camera has sent. Raises CameraError when it redirects."""
        self._seen = self._seen[-_OVERLAP_BYTES:] + data
        if _REDIRECT.search(self._seen):
            raise CameraError(
                Result.ERROR,
                "the camera redirects: put the final URL into the inventory",
                SessionEnd.NONE,
            )
        await self._libav.send(data)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    await asyncio.wait({task})
