"""The doctor's sessions: one after the other, each closed with TEARDOWN, with pauses between them.

Several are open at once only while sessions are counted.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack, suppress
from copy import deepcopy

from camserver.capture.libav import LibavEngine
from camserver.capture.native import NativeEngine
from camserver.capture.session import worst
from camserver.capture.tls import tls_context
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.host.tasks import finish
from camserver.model import CodedKeyframe, SessionEnd
from camserver.rtsp.aio.session import RtspSession
from camserver.rtsp.login import LoginCache
from camserver.rtsp.refusals import reinterpret_as_full
from camserver.rtsp.session_cache import SessionCache

MAX_SESSIONS = 8
GAPS_S = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
"""Seconds between a TEARDOWN and the next session that are tried, the shortest first."""
ONE_SESSION_S = 10.0
REST_S = 5.0
"""The shortest pause, in seconds, after a refusal and before sessions are counted.

The device may still count sessions that are closed.
"""


class Probe:
    """Sessions of one camera, and how they ended.

    `other_sessions` is the number of other sessions of the device that are open at the same time.
    """

    def __init__(self, camera: Camera, other_sessions: int) -> None:
        self._camera = camera
        self._other_sessions = other_sessions
        self._last = SessionEnd.NONE
        self.cache = SessionCache(transport=camera.transport)
        self.login = LoginCache(camera.username, camera.password)
        self.end = SessionEnd.NONE
        """The worst end of all sessions."""

    @property
    def limit_s(self) -> float:
        """Seconds that one session may take until its keyframe."""
        return max(ONE_SESSION_S, self._camera.timeout_s)

    @property
    def required_cooldown_s(self) -> float:
        """The cool-down, in seconds, that the device needs after its newest session."""
        unclean = self._last is SessionEnd.UNCLEAN
        return self._camera.unclean_cooldown_s if unclean else self._camera.cooldown_s

    @property
    def pause_s(self) -> float:
        """The pause, in seconds, after which no earlier session should count any more."""
        return max(REST_S, self.required_cooldown_s)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS context; None for a camera without TLS."""
        if not (self._camera.url or "").startswith("rtsps"):
            return None
        return tls_context(self._camera.tls_verify)

    def meaning(self, error: CameraError, end: SessionEnd) -> CameraError:
        """Return `error`, or "full" instead if other open sessions of the device can explain it."""
        return reinterpret_as_full(error, end, self._other_sessions)

    def cold_session(self, url: str) -> RtspSession:
        """Return a session, not opened yet, that fills the cache. Close it with `close`."""
        return RtspSession(url, self.cache, self.login, tls=self.tls)

    async def warm_session(self, url: str) -> RtspSession:
        """Open a session with a copy of the cache, and return it after its first keyframe.

        A session that is accepted but gets no pictures is a failure. Raises CameraError,
        RedirectError.
        """
        session = RtspSession(url, deepcopy(self.cache), self.login, tls=self.tls)
        try:
            async with asyncio.timeout(self.limit_s):
                await session.open()
                await session.keyframe()
        except TimeoutError:
            failure = session.late(self.limit_s)
            await self.close(session)
            raise failure from None
        except BaseException:
            await self.close(session)
            raise
        return session

    async def fetch(self, engine: NativeEngine | LibavEngine, url: str) -> CodedKeyframe:
        """Fetch a keyframe like a poll does, but without our cache. Raises CameraError."""
        await asyncio.sleep(self.required_cooldown_s)
        deadline = asyncio.get_running_loop().time() + self.limit_s
        session = engine.session(self._camera, url, deadline)
        try:
            async with session:
                return await session.keyframe()
        except CameraError as error:
            raise self.meaning(error, session.end) from None
        finally:
            self._ended(session.end)

    async def close(self, session: RtspSession) -> None:
        """Close the session with TEARDOWN, also when we are cancelled."""
        self._ended(await finish(session.close()))

    async def open_many(self, url: str, stack: AsyncExitStack) -> tuple[list[RtspSession], str]:
        """Open as many sessions as the device gives; return them, and why there are no more."""
        await asyncio.sleep(self.pause_s)  # the device may still count earlier sessions
        opened: list[RtspSession] = []
        while len(opened) < MAX_SESSIONS:
            try:
                opened.append(await self._one_more(url, stack))
            except CameraError as error:
                return opened, f"the next one: {error}"
        return opened, f"no more were tried than {MAX_SESSIONS}"

    async def shortest_gap(
        self, url: str, opened: list[RtspSession], stack: AsyncExitStack
    ) -> float | None:
        """Return the shortest of GAPS_S (seconds) after which a new session works, or None.

        `opened` must be all sessions that the device gives. One of them is closed for each try.
        """
        for gap_s in GAPS_S:
            await self.close(opened.pop())
            unclean = self._last is SessionEnd.UNCLEAN
            await asyncio.sleep(max(gap_s, self.required_cooldown_s if unclean else 0.0))
            try:
                opened.append(await self._one_more(url, stack))
            except CameraError:
                await asyncio.sleep(self.pause_s)  # the device may count the refused session, too
                with suppress(CameraError):
                    opened.append(await self._one_more(url, stack))
                if not opened:
                    return None
            else:
                return gap_s
        return None

    async def _one_more(self, url: str, stack: AsyncExitStack) -> RtspSession:
        session = await self.warm_session(url)
        stack.push_async_callback(self.close, session)
        return session

    def _ended(self, end: SessionEnd) -> None:
        if end is not SessionEnd.NONE:
            self._last = end
        self.end = worst(self.end, end)
