"""The engine `native`: RTSP by our own client, in the daemon.

Gives an access unit; costs no process while it waits.

`fetch` comes back only when the session's transport is closed (rule one), also when it is
cancelled: then TEARDOWN is given less time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from functools import cache
from urllib.parse import urljoin, urlsplit

from cachetools import LRUCache

from camserver.config import Camera
from camserver.errors import CameraError
from camserver.host.tasks import finish
from camserver.model import AccessUnit, Result, SessionEnd
from camserver.rtsp.aio.session import RtspSession
from camserver.rtsp.login import LoginCache
from camserver.rtsp.messages import sendable_url
from camserver.rtsp.session_cache import RedirectError, SessionCache

HURRIED_TEARDOWN_S = 0.4
"""When it is cancelled: the daemon stops, and has stop_timeout for everything."""
MAX_REMEMBERED = 10_000
MAX_REDIRECTS = 2


class NativeEngine:
    """Fetches access units; remembers of each stream what saves round trips."""

    def __init__(self) -> None:
        self._memories: LRUCache[tuple[str, ...], SessionCache] = LRUCache(MAX_REMEMBERED)
        self._logins: LRUCache[tuple[str, int | None, str, str], LoginCache] = LRUCache(
            MAX_REMEMBERED
        )

    async def fetch(
        self,
        camera: Camera,
        url: str,
        deadline: float,
        ended: Callable[[SessionEnd], None],
        seen: Callable[[AccessUnit], None],
    ) -> None:
        """Show the first whole keyframe of `url` to `seen`, before the session is ended.

        `deadline` by the loop's clock.

        `ended` is told how each session ended, also when this is cancelled. Raises CameraError.
        """
        worst = SessionEnd.NONE

        def tell(end: SessionEnd) -> None:
            nonlocal worst  # of all sessions under one lease the worst end counts
            worst = max(worst, end, key=list(SessionEnd).index)
            ended(worst)

        for _ in range(MAX_REDIRECTS + 1):
            try:
                await self._fetch(camera, url, deadline, tell, seen)
            except RedirectError as moved:
                if worst is not SessionEnd.NONE:
                    raise CameraError(
                        Result.ERROR, "the camera redirects a session that it had set up", worst
                    ) from None
                url = same_host(url, moved.url)
            else:
                return
        raise CameraError(Result.ERROR, f"more than {MAX_REDIRECTS} redirects", SessionEnd.NONE)

    def invalidate_cache(self, camera: Camera, url: str) -> None:
        """What was fetched could not be decoded.

        What is remembered of the stream may be out of date.
        """
        self._forget(camera, url, warm_refusals=0)

    async def _fetch(
        self,
        camera: Camera,
        url: str,
        deadline: float,
        ended: Callable[[SessionEnd], None],
        seen: Callable[[AccessUnit], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        limit_s = max(0.0, deadline - started)
        memory = self._memory(camera, url)
        session = RtspSession(
            url,
            memory,
            self._login(camera, url),
            tls=tls_context(camera.tls_verify) if url.startswith("rtsps") else None,
        )
        failure: CameraError | None = None
        try:
            async with asyncio.timeout_at(deadline):
                await session.open()
                opened = loop.time()
                shot = await session.key_picture()
            seen(
                AccessUnit(
                    shot.codec,
                    shot.picture.data,
                    b"",
                    datetime.fromtimestamp(shot.captured_s, UTC),
                    "native",
                    shot.camera_clock_offset_s,
                    opened - started,
                    loop.time() - opened,
                )
            )
            self._remember(camera, url, memory)
        except TimeoutError:
            failure = session.late(limit_s)
            raise failure from None
        except CameraError as error:
            failure = error
            raise
        except asyncio.CancelledError:
            session.expedite_close(HURRIED_TEARDOWN_S)
            raise
        finally:
            if failure is not None:
                self._forget(camera, url, warm_refusals=session.warm and not session.pictures)
            await finish(
                self._end(session, ended, failure),
                on_cancel=lambda: session.expedite_close(HURRIED_TEARDOWN_S),
            )

    @staticmethod
    async def _end(
        session: RtspSession, ended: Callable[[SessionEnd], None], failure: CameraError | None
    ) -> None:
        end = await session.close()
        ended(end)
        if failure is not None:
            failure.end = end

    def _memory(self, camera: Camera, url: str) -> SessionCache:
        """A copy: two sessions of one stream, at the same time, each have their own."""
        memory = self._memories.get(_key(camera, url))
        return deepcopy(memory) if memory else SessionCache(transport=camera.transport)

    def _login(self, camera: Camera, url: str) -> LoginCache:
        """Of the box and the user, whatever stream.

        Shared, so that no nonce count is used twice.
        """
        parts = urlsplit(url)
        key = parts.hostname or "", parts.port, camera.username, camera.password
        if key not in self._logins:
            self._logins[key] = LoginCache(camera.username, camera.password)
        return self._logins[key]

    def _remember(self, camera: Camera, url: str, memory: SessionCache) -> None:
        """For the next session of this stream."""
        self._memories[_key(camera, url)] = memory

    def _forget(self, camera: Camera, url: str, *, warm_refusals: int) -> None:
        """Ask everything anew.

        Some answer SETUP without DESCRIBE, and then send nothing (go2rtc): that is counted.
        """
        old = self._memories.pop(_key(camera, url), None)
        if old is not None:
            memory = self._memory(camera, url)
            memory.warm_refusals, memory.warm_worked = (
                old.warm_refusals + warm_refusals,
                old.warm_worked,
            )
            memory.options_first, memory.all_tracks = old.options_first, old.all_tracks
            self._remember(camera, url, memory)


def _key(camera: Camera, url: str) -> tuple[str, ...]:
    return url, camera.username, camera.password, camera.transport


def same_host(url: str, location: str) -> str:
    """Where a redirect leads.

    Raises CameraError when it is another host or no TLS: credentials go nowhere else.
    """
    if not location.strip():
        raise CameraError(
            Result.ERROR, "the camera redirects, but does not say where to", SessionEnd.NONE
        )
    try:
        target = sendable_url(urljoin(url, location))
        parts, old = urlsplit(target), urlsplit(url)
        if (
            parts.hostname == old.hostname
            and parts.port != 0
            and parts.scheme in {"rtsps", old.scheme}
        ):
            return target
    except ValueError:
        pass
    raise CameraError(
        Result.ERROR,
        "the camera redirects to another host: put the final URL into the inventory",
        SessionEnd.NONE,
    )


@cache
def tls_context(verify: bool) -> ssl.SSLContext:
    """For rtsps://; without `verify` whatever a camera presents is taken."""
    context = ssl.create_default_context()
    if not verify:  # most cameras sign their own certificates, and many speak old TLS only
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
