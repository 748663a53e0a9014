"""The engine `native`: RTSP by our own client, in the daemon.

It gives an access unit. It needs no process while it waits.

A session's block ends only when its transport is closed (rule one). This also holds when the block
is cancelled; then TEARDOWN gets less time.
"""

from __future__ import annotations

import asyncio
from copy import copy
from datetime import UTC, datetime
from types import TracebackType
from urllib.parse import urljoin, urlsplit

from cachetools import LRUCache

from camserver.capture.logins import MAX_REMEMBERED, Logins
from camserver.capture.session import CaptureSessionBase, worst
from camserver.capture.tls import tls_context
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.host.tasks import finish
from camserver.model import CodedKeyframe, Result, SessionEnd
from camserver.rtsp.aio.session import RtspSession
from camserver.rtsp.messages import sendable_url
from camserver.rtsp.session_cache import RedirectError, SessionCache

EXPEDITED_TEARDOWN_S = 0.4
"""Seconds for TEARDOWN when the session is cancelled.

When the daemon stops, it has only stop_timeout for everything.
"""
MAX_REDIRECTS = 2


class NativeEngine:
    """Opens sessions of our own client. It remembers facts of each stream that save round trips."""

    def __init__(self, logins: Logins | None = None) -> None:
        self._caches: LRUCache[tuple[str, ...], SessionCache] = LRUCache(MAX_REMEMBERED)
        self._logins = logins or Logins()

    def session(self, camera: Camera, url: str, deadline: float) -> NativeSession:
        """A session of `url`. `deadline` is in event loop time."""
        return NativeSession(self, camera, url, deadline)

    def open(self, camera: Camera, url: str) -> RtspSession:
        """A session with the remembered facts of its stream. It is not connected yet."""
        tls = tls_context(camera.tls_verify) if url.startswith("rtsps") else None
        return RtspSession(url, self._cache(camera, url), self._logins.of(camera, url), tls=tls)

    def succeeded(self, camera: Camera, url: str, session: RtspSession) -> None:
        """Note that a whole keyframe came. The next session begins with this session's cache."""
        self._caches[_key(camera, url)] = session.cache

    def failed(self, camera: Camera, url: str, session: RtspSession) -> None:
        """Note that no keyframe came. The next session asks the camera for everything again."""
        self._forget(camera, url, warm_refusals=session.warm and not session.pictures)

    def invalidate_cache(self, camera: Camera, url: str) -> None:
        """Forget the facts of the stream, because what was fetched could not be decoded.

        The facts may be out of date.
        """
        self._forget(camera, url, warm_refusals=0)

    def _cache(self, camera: Camera, url: str) -> SessionCache:
        """A copy of the stream's cache. Two sessions at the same time each have their own copy."""
        cache = self._caches.get(_key(camera, url))
        return copy(cache) if cache else SessionCache(transport=camera.transport)

    def _forget(self, camera: Camera, url: str, *, warm_refusals: int) -> None:
        """Forget what is remembered of the stream.

        Some servers accept SETUP without DESCRIBE but then send nothing (go2rtc). `warm_refusals`
        counts this.
        """
        old = self._caches.pop(_key(camera, url), None)
        if old is not None:
            cache = self._cache(camera, url)
            cache.warm_refusals, cache.warm_worked = (
                old.warm_refusals + warm_refusals,
                old.warm_worked,
            )
            cache.options_first, cache.all_tracks = old.options_first, old.all_tracks
            self._caches[_key(camera, url)] = cache


class NativeSession(CaptureSessionBase):
    """One session until its first keyframe. It follows the camera's redirects."""

    def __init__(self, engine: NativeEngine, camera: Camera, url: str, deadline: float) -> None:
        self._engine = engine
        self._camera = camera
        self._url = url
        self._deadline = deadline
        self._rtsp: RtspSession | None = None
        self._closing: RtspSession | None = None
        self.end = SessionEnd.NONE

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and not issubclass(kind, CameraError):  # cancelled, or preempted
            self._expedite_close()
        await finish(self._close(), on_cancel=self._expedite_close)

    async def keyframe(self) -> CodedKeyframe:
        """The first whole keyframe. Raises CameraError."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            self._rtsp = self._engine.open(self._camera, url)
            try:
                return await self._keyframe(self._rtsp, url)
            except RedirectError as moved:
                await finish(self._close(), on_cancel=self._expedite_close)
                if self.end is not SessionEnd.NONE:
                    raise CameraError(
                        Result.ERROR, "the camera redirects a session that it had set up", self.end
                    ) from None
                url = same_host(url, moved.url)
        raise CameraError(Result.ERROR, f"more than {MAX_REDIRECTS} redirects", SessionEnd.NONE)

    async def _keyframe(self, session: RtspSession, url: str) -> CodedKeyframe:
        loop = asyncio.get_running_loop()
        started = loop.time()
        limit_s = max(0.0, self._deadline - started)
        try:
            async with asyncio.timeout_at(self._deadline):
                await session.open()
                opened = loop.time()
                keyframe = await session.keyframe()
        except TimeoutError:
            self._engine.failed(self._camera, url, session)
            raise session.late(limit_s) from None
        except CameraError:
            self._engine.failed(self._camera, url, session)
            raise
        self._engine.succeeded(self._camera, url, session)
        return CodedKeyframe(
            keyframe.codec,
            keyframe.picture.data,
            b"",
            datetime.fromtimestamp(keyframe.captured_s, UTC),
            "native",
            keyframe.camera_clock_offset_s,
            opened - started,
            loop.time() - opened,
        )

    async def _close(self) -> None:
        session, self._rtsp = self._rtsp, None
        if session is None:
            return
        self._closing = session
        end = SessionEnd.UNCLEAN
        try:
            end = await session.close()
        finally:
            self.end = worst(self.end, end)

    def _expedite_close(self) -> None:
        for session in (self._rtsp, self._closing):
            if session is not None:
                session.expedite_close(EXPEDITED_TEARDOWN_S)


def _key(camera: Camera, url: str) -> tuple[str, ...]:
    return url, camera.username, camera.password, camera.transport


def same_host(url: str, location: str) -> str:
    """The target URL of a redirect.

    Raises CameraError when it is another host, or when TLS would be lost: credentials are sent only
    to the configured host.
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
