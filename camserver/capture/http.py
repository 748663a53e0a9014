"""Fetch a camera's snapshot URL: one GET, digest or basic login, limited time and size.

Only this module uses aiohttp's client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import aiohttp
from aiohttp.connector import Connection
from cachetools import LRUCache
from yarl import URL

from camserver.capture.paced import PacedProtocol
from camserver.capture.session import CaptureSessionBase
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.host.clock import utc_now
from camserver.model import CodedKeyframe, Result, SessionEnd
from camserver.rtsp.auth import Challenge, authorization, not_spoken, parse_challenges, strongest

MAX_JPEG_BYTES = 32 * 1024 * 1024
MANY_CHUNKS, MIN_CHUNK_BYTES = 1000, 32
"""A body of more chunks than this must have larger chunks than this: each one costs time."""
CLOSING_S = 0.3
"""How long a camera is given to close the connection after its 401, until it is known whether it
does. The login then goes over a new connection, and is not lost.
"""
MAX_REMEMBERED = 10_000


class _Connector(aiohttp.TCPConnector):
    """A connector that allows one connection for each request.

    aiohttp sends a GET again when the server closes the connection. If the GET contains a login,
    the camera would get two logins for one picture.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._allowed = 0
        self.paced: PacedProtocol | None = None
        """The protocol of the newest connection."""

    async def _wrap_create_connection(self, *arguments: Any, **options: Any) -> Any:
        """Connect, with a protocol that gets its bytes in turns.

        aiohttp has no public place for this. A test fails when it does not call this any more.
        """
        factory, *others = arguments
        transport, paced = await super()._wrap_create_connection(
            lambda: PacedProtocol(factory()), *others, **options
        )
        self.paced = cast("PacedProtocol", paced)
        return transport, self.paced.inner

    def allow_one(self) -> None:
        """Allow one connection, for the next request."""
        self._allowed = 1

    async def connect(self, *arguments: Any, **options: Any) -> Connection:
        """Connect. Raises _ClosedError when the request was already sent."""
        if not self._allowed:
            raise _ClosedError
        self._allowed = 0
        return await super().connect(*arguments, **options)


class _ClosedError(aiohttp.ClientError):
    """Raised when the server closed the connection instead of answering."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    challenges: list[Challenge]
    body: bytes


class HttpEngine:
    """Fetches JPEGs by HTTP.

    Each fetch opens its own connection and closes it, because cameras allow few connections.

    A login answers the strongest challenge that the camera offers, over the connection on which the
    challenge came. The login is sent once. It is sent a second time only if the camera says that
    the nonce was too old.
    """

    def __init__(self) -> None:
        # Whether a host closes the connection after its 401
        self._closes: LRUCache[str, bool] = LRUCache(MAX_REMEMBERED)
        # Nonce counts of a host's challenge
        self._counts: LRUCache[tuple[str, str], Iterator[int]] = LRUCache(MAX_REMEMBERED)

    def session(self, camera: Camera, url: str, deadline: float) -> HttpSession:
        """One GET of `url`. It does not count in the device's budget, so its end is none."""
        return HttpSession(self, camera, url, deadline)

    def decoded(self, camera: Camera, url: str, unit: CodedKeyframe) -> None:
        """Do nothing: this engine does not learn."""

    def undecodable(
        self, camera: Camera, url: str, unit: CodedKeyframe, error: CameraError
    ) -> None:
        """Do nothing: this engine does not learn."""

    async def fetch(self, camera: Camera, url: str, deadline: float) -> bytes:
        """The body of `url`. The decoder checks later whether it is a whole JPEG.

        Raises CameraError.
        """
        started = asyncio.get_running_loop().time()
        limit_s = deadline - started
        try:
            async with asyncio.timeout_at(deadline):
                return await self._fetch(camera, url)
        except TimeoutError:
            raise _error(
                Result.TIMEOUT, f"the snapshot URL did not answer within {limit_s:.1f} s"
            ) from None
        except _ClosedError:
            raise _error(
                Result.UNREACHABLE,
                "the snapshot URL: the camera closed the connection without an answer",
            ) from None
        except aiohttp.ClientConnectorCertificateError:
            raise _error(
                Result.ERROR, "the snapshot URL's certificate is not valid (tls_verify = true)"
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise _error(
                Result.UNREACHABLE, f"the snapshot URL: {reason(error.os_error)}"
            ) from None
        except (aiohttp.ClientError, ValueError, OSError) as error:
            # The texts of these errors may contain the URL
            raise _error(
                Result.UNREACHABLE,
                f"the snapshot URL: the answer broke off ({type(error).__name__})",
            ) from None

    async def _fetch(self, camera: Camera, url: str) -> bytes:
        connector = _Connector(ssl=camera.tls_verify, limit=1)
        trace, reused = aiohttp.TraceConfig(), list[bool]()

        async def on_reuse(*_: object) -> None:
            reused.append(True)

        trace.on_connection_reuseconn.append(on_reuse)
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[trace],
        ) as session:
            answer = await self._get(session, connector, url, None)
            tried: Challenge | None = None
            while answer.status == 401 and camera.username:
                challenge = strongest(answer.challenges)
                if tried is None and challenge is None:
                    raise _error(
                        Result.ERROR,
                        f"the snapshot URL: {not_spoken(answer.challenges)} (401)",
                        status=401,
                    )
                if challenge is None or not _worth_a_try(challenge, tried):
                    break
                login = self._login(camera, url, challenge)
                stale, tried = tried is not None, challenge
                reused.clear()
                answer = await self._get_logged_in(session, connector, url, login)
                self._closes[_host(url)] = not reused
                if stale:
                    break
        if answer.status == 200:
            return answer.body
        raise _refused(answer, camera, tried)

    def _login(self, camera: Camera, url: str, challenge: Challenge) -> str:
        """The Authorization header. A nonce that a camera gives again is counted on."""
        key = _host(url), challenge.nonce
        if key not in self._counts:
            self._counts[key] = count(1)
        return authorization(
            challenge,
            camera.username,
            camera.password,
            "GET",
            request_target(url),
            count=next(self._counts[key]),
            cnonce=secrets.token_hex(8),
        )

    async def _get_logged_in(
        self, session: aiohttp.ClientSession, connector: _Connector, url: str, login: str
    ) -> _Answer:
        """Raises CameraError when the camera closes the connection instead of answering."""
        if self._closes.get(_host(url), True):
            await asyncio.sleep(CLOSING_S)
        try:
            return await self._get(session, connector, url, {"Authorization": login})
        except _ClosedError:
            self._closes.pop(_host(url), None)
            raise _error(
                Result.UNREACHABLE,
                "the snapshot URL: the camera closed the connection when it was sent the login",
                login_refused=True,
            ) from None

    @staticmethod
    async def _get(
        session: aiohttp.ClientSession,
        connector: _Connector,
        url: str,
        headers: dict[str, str] | None,
    ) -> _Answer:
        connector.allow_one()
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if connector.paced is not None:
                connector.paced.answer_has_begun()
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", ()))
            if response.status == 401:
                # The body is read so that the next request can use the same connection. The body
                # itself is not used, so errors in it do not matter.
                with contextlib.suppress(aiohttp.ClientError):
                    await _read(response)
                return _Answer(401, challenges, b"")
            return _Answer(response.status, challenges, await _read(response))


class HttpSession(CaptureSessionBase):
    """One GET, as a session that gives one picture."""

    end = SessionEnd.NONE

    def __init__(self, engine: HttpEngine, camera: Camera, url: str, deadline: float) -> None:
        self._engine = engine
        self._camera = camera
        self._url = url
        self._deadline = deadline

    async def keyframe(self) -> CodedKeyframe:
        """The camera's JPEG. Raises CameraError."""
        jpeg = await self._engine.fetch(self._camera, self._url, self._deadline)
        return CodedKeyframe("mjpeg", jpeg, b"", utc_now(), "")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises CameraError when it is too large, or comes byte by byte."""
    body, chunks = bytearray(), 0
    async for data, _ in response.content.iter_chunks():
        body += data
        chunks += 1
        if len(body) > MAX_JPEG_BYTES:
            raise _error(
                Result.BAD_PICTURE, f"the snapshot URL sends more than {MAX_JPEG_BYTES} bytes"
            )
        if chunks > MANY_CHUNKS and len(body) < MIN_CHUNK_BYTES * chunks:
            raise _error(Result.BAD_PICTURE, "the snapshot URL sends its picture byte by byte")
    return bytes(body)


def _worth_a_try(challenge: Challenge, tried: Challenge | None) -> bool:
    """Whether to send a login.

    The first one is always sent. A second one is sent only in the same scheme, when the camera says
    that the nonce was too old and gives another nonce.
    """
    if tried is None:
        return True
    return challenge.scheme == tried.scheme and challenge.stale and challenge.nonce != tried.nonce


def _host(url: str) -> str:
    parts = URL(url)
    return f"{parts.host}:{parts.port}"


def request_target(url: str) -> str:
    """The target that aiohttp writes into the request line.

    The digest must contain the same target (RFC 7616, 3.4.6).
    """
    return URL(url).raw_path_qs


def _refused(answer: _Answer, camera: Camera, tried: Challenge | None) -> CameraError:
    status = answer.status
    if status == 401 and not camera.username:
        return _error(
            Result.AUTH,
            "the snapshot URL asks for a login: give username and password (401)",
            status=401,
        )
    if status == 401 or (status == 403 and answer.challenges):
        label = f", login {tried.label}" if tried is not None else ""
        return _error(
            Result.AUTH,
            f"the snapshot URL: wrong username or password ({status}{label})",
            status=status,
            login_refused=tried is not None,
        )
    if status == 403:
        return _error(
            Result.FULL,
            "the snapshot URL: forbidden: the camera is busy, or this user may not have it (403)",
            status=status,
        )
    if 300 <= status < 400:
        return _error(
            Result.ERROR,
            f"the snapshot URL redirects ({status}): give the final URL as snapshot_url",
            status=status,
        )
    result = {404: Result.NOT_FOUND, 503: Result.FULL}.get(status, Result.ERROR)
    return _error(result, f"the snapshot URL answers {status}", status=status)


def reason(error: OSError) -> str:
    """Why no connection was made, without the address that is in asyncio's text.

    The error numbers of gaierror are negative.
    """
    number = error.errno or 0
    return (
        os.strerror(number).lower()
        if number > 0
        else "the host name is not known"
        if number
        else "connection failed"
    )


def _error(
    result: Result, message: str, *, status: int | None = None, login_refused: bool = False
) -> CameraError:
    return CameraError(result, message, SessionEnd.NONE, status=status, login_refused=login_refused)
