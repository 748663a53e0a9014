"""go2rtc's HTTP API, as far as leases need it: which streams are live, registering cameras.

Knows no leases, no policy.

`GET /api/streams` gives an object of streams; a producer that is connected is shown as its
connection (`id`, `format_name`, `remote_addr`, `bytes_recv`), one that is idle as `url` alone
(AlexxIT/go2rtc, internal/streams). User info in its URLs is masked by newer versions, so sources
are compared without it.
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
"""In the source of a producer that has a lease of its own.

`exec:camserver lease gate -- ffmpeg ...`.
"""


class Go2rtcDown(CamserverError):  # noqa: N818 - it says what is the case
    """Raised when go2rtc gives no answer that makes sense.

    `gone`: nothing listens there, so its sessions are closed. `alive`: somebody does, so they may
    be open.
    """

    def __init__(self, message: str, *, gone: bool = False, alive: bool = True) -> None:
        self.gone = gone
        self.alive = alive
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class StreamView:
    """One stream of go2rtc.

    Whether it is live, how many sessions it has opened without a lease, its sources.
    """

    live: bool = False
    sessions: int = 0
    leased: bool = False
    """Whether its source takes a lease of its own before it opens a session."""
    sources: tuple[str, ...] = ()
    """URLs without user info."""


class Go2rtcApi:
    """The API at `url`; opens connections when asked, closes with `close`.

    All calls raise Go2rtcDown.
    """

    def __init__(self, url: str, rtsp: str, username: str | None, password: str | None) -> None:
        self._url = url.rstrip("/")
        self._rtsp = rtsp
        self._headers = {"Authorization": basic(username, password or "")} if username else {}
        self._session: aiohttp.ClientSession | None = None

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
        """Make a stream, or give it another source.

        go2rtc also keeps it in its configuration file, if it has one.
        """
        status, _ = await self._ask("PUT", {"name": name, "src": source})
        # 400 also when only its file can't be written: then the stream is there all the same.
        if (
            status != 200
            and without_userinfo(source)
            not in (await self.streams()).get(name, StreamView()).sources
        ):
            raise Go2rtcDown(f"go2rtc refuses to register the stream {name} ({status})")

    async def remove(self, name: str) -> None:
        """Forget a stream."""
        await self._ask("DELETE", {"src": name})

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, method: str, query: Mapping[str, str]) -> tuple[int, bytes]:
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
            # Texts may quote the URL, which may hold a password
            gone = isinstance(error.os_error, ConnectionRefusedError)
            raise Go2rtcDown(
                f"go2rtc's API: {reason(error.os_error)}", gone=gone, alive=False
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Go2rtcDown(
                f"go2rtc's API: the answer broke off ({type(error).__name__})"
            ) from None


def without_userinfo(url: str) -> str:
    """`url` without user name and password; what is no URL stays as it is."""
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
    # A live `exec:` producer also says which camera its command reads, as `url`: what it was made
    # of is `source`.
    sources = tuple(without_userinfo(str(p.get("source") or p.get("url", ""))) for p in producers)
    return StreamView(bool(live), sessions, any(OWN_LEASE in source for source in sources), sources)


def _is_own(producer: dict[str, Any], own_port: int) -> bool:
    """Whether it reads another stream of go2rtc itself (`ffmpeg:gate#video=h264`).

    No session of the camera.
    """
    host, _, port = str(producer.get("remote_addr", "")).split(" ")[0].rpartition(":")
    return host in ("127.0.0.1", "localhost", "[::1]") and port == str(own_port)
