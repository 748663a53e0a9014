"""What this host asks other hosts of the fleet, over mutual TLS: promises, and pictures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from camserver.client.exchange import FACTS_HEADER
from camserver.errors import NotOwnerError, RtspBusy
from camserver.fleet.lending import Lent, Wish
from camserver.model import Result

ASK_S = 0.8
"""How long the answer to a question may take. Validity does not wait."""
LEASE_S = 5.0
"""How long the answer to a request for a lease may take, besides the waiting for a session."""
SILENT_S = 40.0
"""Events that are silent for so long hang: a comment comes every 15 s."""
ROWS_S = 2.0
"""How long a host may take to say what it knows of its cameras or devices."""
LEASE_BYTES = 64 * 1024
ROWS_BYTES = 32 * 1024 * 1024
CONNECT_S = 2.0
RELAY_S = 60.0
"""How long one relayed answer may take in all."""
RELAYED_AT_ONCE = 32
"""Answers of one host that are relayed at the same time; others wait."""
ASKED = ("If-None-Match", "If-Modified-Since", "X-Camserver-Action")
ANSWERED = (
    "Content-Type",
    "Content-Length",
    "ETag",
    "Last-Modified",
    "Cache-Control",
    "Age",
    "X-Captured-At",
    "Retry-After",
    FACTS_HEADER,
)
HOST_HEADER = "X-Camserver-Host"
"""The host that has answered."""


class Peers:
    """The other hosts. `url_of` gives the URL of a host by its name, or "" when it has none."""

    def __init__(self, tls: ssl.SSLContext, url_of: Callable[[str], str]) -> None:
        self._tls = tls
        self._url_of = url_of
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def promise(self, host: str, question: dict[str, object]) -> bool:
        """Ask a host to vouch for this one. False also when it does not answer."""
        if not (url := self._url_of(host)):
            return False
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            async with (
                asyncio.timeout(ASK_S),
                self._connections("promises").post(
                    f"{url}/v1/fleet/promise",
                    json=question,
                    server_hostname=host,
                    allow_redirects=False,
                ) as answer,
            ):
                said = await answer.json()
                agrees = isinstance(said, dict) and said.get("promised") is True
                return answer.status == 200 and agrees
        return False

    async def lease(self, host: str, wish: Wish) -> Lent:
        """Ask the owner of a device for a lease. Raises RtspBusy and NotOwnerError.

        When this is cancelled, the owner stops waiting for a session.
        """
        if not (url := self._url_of(host)):
            raise NotOwnerError(f"host {host} has its sessions, and cannot be asked")
        try:
            async with (
                asyncio.timeout(wish.wait_s + LEASE_S),
                self._connections("leases", at_once=0).post(
                    f"{url}/v1/fleet/lease",
                    data=wish.encode(),
                    server_hostname=host,
                    allow_redirects=False,
                ) as answer,
            ):
                said = json.loads(await _at_most(answer, LEASE_BYTES))
                if answer.status == HTTPStatus.OK:
                    return Lent(int(said["generation"]), int(said["revision"]))
                why = str(said["error"])
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, LookupError, TypeError):
            raise NotOwnerError(f"host {host} has its sessions, and does not answer") from None
        if answer.status == HTTPStatus.CONFLICT:
            raise RtspBusy(why)
        raise NotOwnerError(f"host {host}: {why}")

    async def snapshot(self, host: str, camera: str) -> tuple[str, str | None] | None:
        """Let another host take a picture: (result, error). None when it does not answer."""
        if not (url := self._url_of(host)):
            return None
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            async with (
                asyncio.timeout(RELAY_S),
                self._connections("pictures").post(
                    f"{url}/v1/cameras/{camera}/snapshot",
                    server_hostname=host,
                    allow_redirects=False,
                ) as answer,
            ):
                data = await _at_most(answer, ROWS_BYTES)
                if answer.status == HTTPStatus.OK:
                    return Result.OK, None
                said = json.loads(data)
                if isinstance(said, dict):
                    return str(said.get("result", Result.ERROR)), str(said.get("error", ""))
        return None

    async def rows(self, host: str, route: str) -> list[dict[str, Any]]:
        """What a host says of its cameras or devices. Empty when it does not answer."""
        if not (url := self._url_of(host)):
            return []
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            async with (
                asyncio.timeout(ROWS_S),
                self._connections("rows").get(
                    f"{url}{route}", server_hostname=host, allow_redirects=False
                ) as answer,
            ):
                data = await _at_most(answer, ROWS_BYTES)
                said = await asyncio.to_thread(json.loads, data)
                if answer.status == 200 and isinstance(said, list):
                    return [each for each in said if isinstance(each, dict)]
        return []

    async def events(self, host: str) -> AsyncIterator[dict[str, Any]]:
        """What happens on a host, from now on. It ends when the host does not answer any more."""
        if not (url := self._url_of(host)):
            return
        with contextlib.suppress(
            aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError
        ):
            async with self._connections("events").get(
                f"{url}/v1/events",
                server_hostname=host,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENT_S),
            ) as answer:
                while answer.status == HTTPStatus.OK:
                    async with asyncio.timeout(SILENT_S):
                        line = await answer.content.readline()
                    if not line:
                        return
                    if line.startswith(b"data: ") and isinstance(
                        said := json.loads(line[6:]), dict
                    ):
                        yield said

    async def lines(
        self, host: str, route: str, headers: Mapping[str, str], wait_s: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON lines of an answer. They end when the host does not answer any more.

        It may take `wait_s` seconds longer than an answer that is there.
        """
        if not (url := self._url_of(host)):
            return
        with contextlib.suppress(
            aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError
        ):
            async with (
                asyncio.timeout(RELAY_S + wait_s),
                self._connections("lines", at_once=0).get(
                    URL(f"{url}{route}", encoded=True),
                    headers=headers,
                    server_hostname=host,
                    allow_redirects=False,
                ) as answer,
            ):
                while answer.status == HTTPStatus.OK and (line := await answer.content.readline()):
                    if isinstance(said := json.loads(line), dict):
                        yield said

    async def relay(
        self, host: str, request: web.Request, headers: Mapping[str, str], wait_s: float
    ) -> web.StreamResponse | None:
        """Let another host answer a request. None when it cannot be asked.

        `headers` are sent, too. It may take `wait_s` seconds longer than an answer that is there.
        """
        url = self._url_of(host)
        if not url or ".." in request.path.split("/"):
            return None
        asked = {name: request.headers[name] for name in ASKED if name in request.headers}
        # Who waits for a capture must not keep others from pictures that are there
        pool = ("captures", 0) if wait_s > 0 else ("pictures", RELAYED_AT_ONCE)
        begun: web.StreamResponse | None = None
        try:
            async with (
                asyncio.timeout(RELAY_S + wait_s),
                self._connections(*pool).request(
                    request.method,
                    URL(f"{url}{request.raw_path}", encoded=True),
                    headers={**asked, **headers},
                    server_hostname=host,
                    allow_redirects=False,
                ) as answer,
            ):
                kept = {name: answer.headers[name] for name in ANSWERED if name in answer.headers}
                begun = web.StreamResponse(status=answer.status, headers=kept | {HOST_HEADER: host})
                await begun.prepare(request)
                async for data in answer.content.iter_chunked(65536):
                    await begun.write(data)
                await begun.write_eof()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            if begun is not None and begun.prepared and request.transport is not None:
                request.transport.abort()  # a part of a picture must not look like a whole one
        return begun

    async def close(self) -> None:
        """Close all connections."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def _connections(self, purpose: str, at_once: int = RELAYED_AT_ONCE) -> aiohttp.ClientSession:
        """The connections for one purpose: those that send pictures must not delay a promise.

        `at_once` is the most to one host; 0 is no limit.
        """
        if purpose not in self._sessions:
            self._sessions[purpose] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=0, limit_per_host=at_once),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                # Not `connect`: that would count the time until a connection comes free
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            )
        return self._sessions[purpose]


async def _at_most(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body of an answer. Raises ValueError when it is larger."""
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise ValueError
    return b"".join(pieces)
