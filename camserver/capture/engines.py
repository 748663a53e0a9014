"""Select the engine that speaks RTSP with a camera.

`auto` uses native, and libav for streams that native cannot read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType

from cachetools import LRUCache

from camserver.capture.engine_choice import EngineChoice
from camserver.capture.libav import LibavEngine
from camserver.capture.logins import MAX_REMEMBERED
from camserver.capture.native import NativeEngine
from camserver.capture.session import CaptureSession, CaptureSessionBase, worst
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.events import Event, LibavChosen
from camserver.model import CodedKeyframe, SessionEnd
from camserver.rtsp.session_cache import UnsupportedStreamError

MAX_TRIALS = 8
"""How many streams may be tried with libav at once, after our client could not read them.

Each trial is a process of about 5 MB, and a dead camera keeps it until its time-out.
"""
MAX_LATER_TRIALS = 2
"""A stream on which libav has failed is tried again only while fewer trials than this are running.

So streams that were not tried yet come first.
"""


class RtspEngine:
    """Both engines behind one interface. It learns which of them reads a stream."""

    def __init__(
        self,
        native: NativeEngine,
        libav: LibavEngine,
        emit: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.native = native
        self.libav = libav
        self._emit = emit
        self._choices: LRUCache[tuple[str, str, str], EngineChoice] = LRUCache(MAX_REMEMBERED)
        self._trials = 0

    def session(self, camera: Camera, url: str, deadline: float) -> EngineSession:
        """A session of `url` by the engine that reads it. `deadline` is in event loop time."""
        return EngineSession(self, camera, url, deadline)

    def decoded(self, camera: Camera, url: str, unit: CodedKeyframe) -> None:
        """Note that the access unit from `url` was decoded: its engine reads the stream."""
        if camera.engine != "auto":
            return
        choice = self.choice(camera, url)
        if unit.engine == "native":
            choice.native_worked()
            return
        if choice.kept_until is None:
            self._emit(LibavChosen(camera=camera.id, reason=choice.reason))
        choice.libav_worked(_now())

    def undecodable(
        self, camera: Camera, url: str, unit: CodedKeyframe, error: CameraError
    ) -> None:
        """Note that the access unit from `url` could not be decoded.

        The next session begins without remembered facts.
        """
        self.forget(camera, url)
        choice = self.choice(camera, url)
        if unit.engine == "native":
            choice.native_failed(error)
        elif camera.engine == "auto":
            choice.libav_failed(error)

    def may_use_libav(self, choice: EngineChoice) -> bool:
        """Whether libav may read this stream now, or may be tried on it."""
        most = MAX_TRIALS if choice.is_untried else MAX_LATER_TRIALS
        return choice.is_known or self._trials < most

    @contextmanager
    def trial(self, choice: EngineChoice) -> Iterator[None]:
        """Count a session of libav in the block, if it is a trial."""
        counts = int(not choice.is_known)
        self._trials += counts
        try:
            yield
        finally:
            self._trials -= counts

    def forget(self, camera: Camera, url: str) -> None:
        """Forget the facts about the stream, because they may be out of date."""
        self.native.invalidate_cache(camera, url)

    def reloaded(self) -> None:
        """Try the native client once more after a reload."""
        for choice in self._choices.values():
            choice.reloaded()

    def choice(self, camera: Camera, url: str) -> EngineChoice:
        """The engine choice of one stream. It is created when the stream is new."""
        key = url, camera.username, camera.transport
        if key not in self._choices:
            self._choices[key] = EngineChoice()
        return self._choices[key]


class EngineSession(CaptureSessionBase):
    """One session by one engine, or two sessions one after the other. Never two at once."""

    def __init__(self, engine: RtspEngine, camera: Camera, url: str, deadline: float) -> None:
        self._engine = engine
        self._camera = camera
        self._url = url
        self._deadline = deadline
        self._open = AsyncExitStack()
        self._sessions: list[CaptureSession] = []

    @property
    def end(self) -> SessionEnd:
        """The worst end of its sessions."""
        return worst(*(session.end for session in self._sessions))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.__aexit__(kind, error, traceback)

    async def keyframe(self) -> CodedKeyframe:
        """The first whole keyframe. Raises CameraError."""
        if self._camera.engine == "libav":
            return await self._by(self._engine.libav)
        choice = self._engine.choice(self._camera, self._url)
        asks_libav = self._camera.engine == "auto" and choice.asks_libav(_now())
        if asks_libav and self._engine.may_use_libav(choice):
            with self._engine.trial(choice):
                return await self._by_libav(choice)
        return await self._by_native(choice)

    async def _by(self, engine: NativeEngine | LibavEngine) -> CodedKeyframe:
        session: CaptureSession = engine.session(self._camera, self._url, self._deadline)
        self._sessions.append(session)
        await self._open.enter_async_context(session)
        return await session.keyframe()

    async def _by_native(self, choice: EngineChoice) -> CodedKeyframe:
        try:
            return await self._by(self._engine.native)
        except UnsupportedStreamError as error:
            if self._camera.engine == "native":
                raise
            # This is found before any SETUP. So no session is open after the connection is closed.
            choice.reason = str(error)
            await self._open.aclose()
            return await self._by(self._engine.libav)
        except CameraError as error:
            if self._camera.engine == "auto":
                choice.native_failed(error)
            raise

    async def _by_libav(self, choice: EngineChoice) -> CodedKeyframe:
        try:
            return await self._by(self._engine.libav)
        except CameraError as error:
            if choice.kept_until is not None:
                choice.kept_failed(error)
                raise
            choice.libav_failed(error)
            raise CameraError(
                error.result,
                f"{choice.reason}; libav can't read it either: {error}",
                error.end,
                status=error.status,
                step=error.step,
                login_refused=error.login_refused,
                packets_lost=error.packets_lost,
            ) from None


def _now() -> float:
    return asyncio.get_running_loop().time()
