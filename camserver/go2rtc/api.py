"""A client for go2rtc's HTTP API: which streams are live, and registering cameras.

It knows no leases and no policy.

`GET /api/streams` gives an object of streams. A connected producer is shown with its connection
(`id`, `format_name`, `remote_addr`, `bytes_recv`), an idle producer only with `url`
(AlexxIT/go2rtc, internal/streams). Newer versions mask the user info in its URLs, so sources are
compared without user info.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from camserver.capture.http import reason
from camserver.errors import CamserverError
from camserver.rtsp.auth import basic

TIMEOUT_S, CONNECT_S = 2.0, 1.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
OWN_LEASE = "camserver lease"
"""The text that marks a producer with its own lease. It is in the source of the producer.

For example `exec:camserver lease gate -- ffmpeg ...`.
"""


class Go2rtcDown(CamserverError):  # noqa: N818 - the name describes the state
    """Raised when go2rtc gives no valid answer.

    `gone`: nothing listens at its address, so its sessions are closed. `alive`: something listens
    there, so its sessions may be open.
    """

    def __init__(self, message: str, *, gone: bool = False, alive: bool = True) -> None:
        self.gone = gone
        self.alive = alive
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class StreamView:
    """One stream of go2rtc."""

    live: bool = False
    sessions: int = 0
    """The number of sessions that the stream has opened without a lease."""
    leased: bool = False
    """Whether the source takes its own lease before it opens a session."""
    sources: tuple[str, ...] = ()
    """URLs without user info."""


class Go2rtcApi:
    """The API at `url`. It opens connections when needed, and `close` closes them.

    All calls raise Go2rtcDown.
    """

    def __init__(self, url: str, rtsp: str, username: str | None, password: str | None) -> None:
        self._url = url.rstrip("/")
        self._rtsp = rtsp
        self._headers = {"Authorization": basic(username, password or "")} if username else {}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def streams(self) -> dict[str, StreamView]:
        """All streams by name."""
        status, body = await self._ask("GET", {})
        try:
            data = await asyncio.to_thread(json.loads, body) if status == 200 else None
            if not isinstance(data, dict):
                raise Go2rtcDown(f"go2rtc's API answers {status} and no list of streams")
            own = urlsplit(self._rtsp)
            return {str(name): _view(stream, own.port or 554) for name, stream in data.items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise Go2rtcDown("go2rtc's API answers something that is no list of streams") from None

    async def register(self, name: str, source: str) -> None:
        """Create a stream, or change its source.

        go2rtc also writes it to its configuration file, if it has one.
        """
        status, _ = await self._ask("PUT", {"name": name, "src": source})
        # go2rtc also answers 400 when it only can't write its file. Then the stream exists.
        if (
            status != 200
            and without_userinfo(source)
            not in (await self.streams()).get(name, StreamView()).sources
        ):
            raise Go2rtcDown(f"go2rtc refuses to register the stream {name} ({status})")

    async def remove(self, name: str) -> None:
        """Remove a stream."""
        await self._ask("DELETE", {"src": name})

    async def close(self) -> None:
        """Close all connections. Later calls raise Go2rtcDown."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, method: str, query: Mapping[str, str]) -> tuple[int, bytes]:
        if self._closed:  # by a reload, while others still use it
            raise Go2rtcDown("go2rtc's API is not used any more")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S, connect=CONNECT_S),
            )
        try:
            async with self._session.request(
                method, f"{self._url}/api/streams", params=query, allow_redirects=False
            ) as answer:
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise Go2rtcDown(f"go2rtc's API sends more than {MAX_ANSWER_BYTES} bytes")
                return answer.status, bytes(body)
        except aiohttp.ConnectionTimeoutError:
            raise Go2rtcDown(
                f"go2rtc's API: no connection within {CONNECT_S:g} s", alive=False
            ) from None
        except TimeoutError:
            raise Go2rtcDown(f"go2rtc's API did not answer within {TIMEOUT_S:g} s") from None
        except aiohttp.ClientConnectorError as error:
            # The error's own text may quote the URL, which may contain a password
            gone = isinstance(error.os_error, ConnectionRefusedError)
            raise Go2rtcDown(
                f"go2rtc's API: {reason(error.os_error)}", gone=gone, alive=False
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Go2rtcDown(
                f"go2rtc's API: the answer broke off ({type(error).__name__})"
            ) from None


def without_userinfo(url: str) -> str:
    """`url` without user name and password. Text that is not a URL stays unchanged."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _view(stream: Any, own_port: int) -> StreamView:
    producers = [p for p in (stream or {}).get("producers") or () if isinstance(p, dict)]
    live = [p for p in producers if {"id", "format_name", "remote_addr", "bytes_recv"} & p.keys()]
    sessions = sum(
        OWN_LEASE not in str(p.get("source", "")) and not _is_own(p, own_port) for p in live
    )
    # A live `exec:` producer has both: `url` is the camera that its command reads, `source` is what
    # it was created from.
    sources = tuple(without_userinfo(str(p.get("source") or p.get("url", ""))) for p in producers)
    return StreamView(bool(live), sessions, any(OWN_LEASE in source for source in sources), sources)


def _is_own(producer: dict[str, Any], own_port: int) -> bool:
    """Whether the producer reads another stream of go2rtc itself (`ffmpeg:gate#video=h264`).

    Such a producer has no session of the camera.
    """
    host, _, port = str(producer.get("remote_addr", "")).split(" ")[0].rpartition(":")
    return host in ("127.0.0.1", "localhost", "[::1]") and port == str(own_port)
