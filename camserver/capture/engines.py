"""Which engine speaks RTSP with which camera.

`auto` is native, and libav for streams native doesn't read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cachetools import LRUCache

from camserver.capture.engine_choice import EngineChoice
from camserver.capture.libav import LibavEngine
from camserver.capture.native import MAX_REMEMBERED, NativeEngine
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.events import Event, Notice
from camserver.model import AccessUnit, SessionEnd
from camserver.rtsp.session_cache import UnsupportedStreamError


class Engines:
    """Both engines behind one call; learns which of them reads a stream."""

    def __init__(
        self,
        native: NativeEngine,
        libav: LibavEngine,
        emit: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._native = native
        self._libav = libav
        self._emit = emit
        self._choices: LRUCache[tuple[str, str, str], EngineChoice] = LRUCache(MAX_REMEMBERED)

    async def fetch(
        self,
        camera: Camera,
        url: str,
        deadline: float,
        ended: Callable[[SessionEnd], None],
        seen: Callable[[AccessUnit], None],
    ) -> None:
        """Show the first whole keyframe of `url` to `seen`; `deadline` by the event loop's clock.

        Comes back only when no session is open any more, also when it is cancelled; `ended` is told
        how the session ended. Raises CameraError; without one, `seen` was called once.
        """
        if camera.engine == "libav":
            await self._libav.fetch(camera, url, deadline, ended, seen)
        elif camera.engine == "auto" and self._choice(camera, url).asks_libav(_now()):
            await self._through_libav(camera, url, deadline, ended, seen)
        else:
            await self._through_native(camera, url, deadline, ended, seen)

    def decoded(self, camera: Camera, url: str, unit: AccessUnit) -> None:
        """What `url` gave could be decoded: whoever fetched it reads the stream."""
        if camera.engine != "auto":
            return
        choice = self._choice(camera, url)
        if unit.engine == "native":
            choice.native_worked()
            return
        if choice.kept_until is None:
            self._emit(
                Notice(
                    name="engine.libav",
                    camera=camera.id,
                    level="warning",
                    message=(
                        f"{camera.id}: libav reads this stream, camserver's own client does not "
                        f"({choice.reason}); libav is used for a day, or until a reload"
                    ),
                )
            )
        choice.libav_worked(_now())

    def undecodable(self, camera: Camera, url: str, unit: AccessUnit, error: CameraError) -> None:
        """What `url` gave could not be decoded: ask everything anew next time."""
        self.forget(camera, url)
        choice = self._choice(camera, url)
        if unit.engine == "native":
            choice.native_failed(error)
        elif camera.engine == "auto":
            choice.libav_failed()

    def forget(self, camera: Camera, url: str) -> None:
        """What is remembered of the stream may be out of date."""
        self._native.invalidate_cache(camera, url)

    def reloaded(self) -> None:
        """After a reload the native client gets another chance."""
        for choice in self._choices.values():
            choice.reloaded()

    async def _through_native(
        self,
        camera: Camera,
        url: str,
        deadline: float,
        ended: Callable[[SessionEnd], None],
        seen: Callable[[AccessUnit], None],
    ) -> None:
        try:
            await self._native.fetch(camera, url, deadline, ended, seen)
        except UnsupportedStreamError as error:
            if camera.engine == "native":
                raise
            # It was found before any SETUP, and the connection is closed: no session is open now.
            self._choice(camera, url).reason = str(error)
            await self._libav.fetch(camera, url, deadline, ended, seen)
        except CameraError as error:
            if camera.engine == "auto":
                self._choice(camera, url).native_failed(error)
            raise

    async def _through_libav(
        self,
        camera: Camera,
        url: str,
        deadline: float,
        ended: Callable[[SessionEnd], None],
        seen: Callable[[AccessUnit], None],
    ) -> None:
        choice = self._choice(camera, url)
        try:
            await self._libav.fetch(camera, url, deadline, ended, seen)
        except CameraError as error:
            if choice.kept_until is not None:
                choice.kept_failed(error)
                raise
            choice.libav_failed()
            raise CameraError(
                error.result,
                f"{choice.reason}; libav can't read it either: {error}",
                error.end,
                status=error.status,
                step=error.step,
                login_refused=error.login_refused,
            ) from None

    def _choice(self, camera: Camera, url: str) -> EngineChoice:
        key = url, camera.username, camera.transport
        if key not in self._choices:
            self._choices[key] = EngineChoice()
        return self._choices[key]


def _now() -> float:
    return asyncio.get_running_loop().time()
