"""The doctor's sessions: opened one after the other, each closed in good order, with rests between.

Several at once only when they are counted.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack, suppress
from copy import deepcopy

from camserver.capture.libav import LibavEngine
from camserver.capture.native import NativeEngine, tls_context
from camserver.capture.session import worst
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
"""Pauses between a TEARDOWN and the next session that are tried, the shortest first."""
ONE_SESSION_S = 10.0
REST_S = 5.0
"""After refusals, and before sessions are counted: what was closed before may still count."""


class Probe:
    """Opens sessions of one camera, and knows how they ended.

    `other_sessions`: so many other sessions of the device are open meanwhile.
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
        """How long one session may take to its keyframe."""
        return max(ONE_SESSION_S, self._camera.timeout_s)

    @property
    def owed_s(self) -> float:
        """The rest that the device is owed after its newest session."""
        unclean = self._last is SessionEnd.UNCLEAN
        return self._camera.unclean_cooldown_s if unclean else self._camera.cooldown_s

    @property
    def rest_s(self) -> float:
        """Until no session before counts any more."""
        return max(REST_S, self.owed_s)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """None for a camera without TLS."""
        if not (self._camera.url or "").startswith("rtsps"):
            return None
        return tls_context(self._camera.tls_verify)

    def meaning(self, error: CameraError, end: SessionEnd) -> CameraError:
        """What an error means beside the other sessions of the device."""
        return reinterpret_as_full(error, end, self._other_sessions)

    def cold_session(self, url: str) -> RtspSession:
        """A session that fills the cache. Close it with `close`."""
        return RtspSession(url, self.cache, self.login, tls=self.tls)

    async def warm_session(self, url: str) -> RtspSession:
        """A session that begins with what is known, and has given a keyframe.

        One that is accepted and gets no pictures is none. Raises CameraError, RedirectError.
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
        """A keyframe as polls fetch it, with nothing remembered. Raises CameraError."""
        await asyncio.sleep(self.owed_s)
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
        """Torn down in good order, also when we are cancelled."""
        self._ended(await finish(session.close()))

    async def open_many(self, url: str, stack: AsyncExitStack) -> tuple[list[RtspSession], str]:
        """As many sessions as the device gives, and why there are no more."""
        await asyncio.sleep(self.rest_s)  # the sessions before may count for a while
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
        """Seconds between a TEARDOWN and a new session that works; None: none of GAPS_S does.

        `opened` are all that the device gives.
        """
        for gap_s in GAPS_S:
            await self.close(opened.pop())
            unclean = self._last is SessionEnd.UNCLEAN
            await asyncio.sleep(max(gap_s, self.owed_s if unclean else 0.0))
            try:
                opened.append(await self._one_more(url, stack))
            except CameraError:
                await asyncio.sleep(self.rest_s)  # what was refused may count, too
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
