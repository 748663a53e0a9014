"""A camera's snapshot URL: one GET, digest or basic, bounded in time and size. The only door to aiohttp's client."""

from __future__ import annotations

import asyncio
import os
import ssl

import aiohttp

from camserver.config import Camera
from camserver.errors import CameraError
from camserver.records import Result, SessionEnd
from camserver.rtsp.auth import basic

MAX_JPEG_BYTES = 32 * 1024 * 1024


class HttpSource:
    """Fetches JPEGs by HTTP; opens one connection a shot and keeps none, cameras have few to give."""

    async def fetch(self, camera: Camera, url: str, deadline: float) -> bytes:
        """The body of `url`; whether it is a whole JPEG is the decoder's to say. Raises CameraError."""
        started = asyncio.get_running_loop().time()
        limit_s = deadline - started
        try:
            async with asyncio.timeout_at(deadline):
                return await self._fetch(camera, url)
        except TimeoutError:
            raise _error(Result.TIMEOUT, f"the snapshot URL did not answer within {limit_s:.1f} s") from None
        except aiohttp.ClientConnectorCertificateError:
            raise _error(Result.ERROR, "the snapshot URL's certificate is not valid (tls_verify = true)") from None
        except aiohttp.ClientConnectorError as error:
            raise _error(Result.UNREACHABLE, f"the snapshot URL: {reason(error.os_error)}") from None
        except (aiohttp.ClientError, ValueError, OSError) as error:     # their texts may quote the URL
            raise _error(Result.UNREACHABLE, f"the snapshot URL: the answer broke off ({type(error).__name__})") from None

    async def _fetch(self, camera: Camera, url: str) -> bytes:
        tls: ssl.SSLContext | bool = camera.tls_verify
        digest = aiohttp.DigestAuthMiddleware(camera.username, camera.password) if camera.username else None
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, force_close=True), cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(digest,) if digest else (), auto_decompress=False,
        ) as session:
            status, challenge, body = await self._get(session, url, None)
            if status == 401 and camera.username and challenge.lower().startswith("basic"):
                status, _, body = await self._get(session, url, {"Authorization": basic(camera.username, camera.password)})
        if status == 200:
            return body
        if status in (401, 403):
            raise _error(Result.AUTH, f"the snapshot URL: wrong username or password ({status})")
        if 300 <= status < 400:
            raise _error(Result.ERROR, f"the snapshot URL redirects ({status}): give the final URL as snapshot_url")
        result = {404: Result.NOT_FOUND, 503: Result.FULL}.get(status, Result.ERROR)
        raise _error(result, f"the snapshot URL answers {status}")

    @staticmethod
    async def _get(session: aiohttp.ClientSession, url: str, headers: dict[str, str] | None) -> tuple[int, str, bytes]:
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_JPEG_BYTES:
                    raise _error(Result.BAD_PICTURE, f"the snapshot URL sends more than {MAX_JPEG_BYTES} bytes")
            return response.status, response.headers.get("WWW-Authenticate", ""), bytes(body)


def reason(error: OSError) -> str:
    """Why no connection was made, without the address that asyncio quotes; gaierror has negative numbers."""
    number = error.errno or 0
    return os.strerror(number).lower() if number > 0 else "the host name is not known" if number else "connection failed"


def _error(result: Result, message: str) -> CameraError:
    return CameraError(result, message, SessionEnd.NONE)
