"""Which engine speaks RTSP with which camera: `auto` is native, and libav for streams native doesn't speak."""

from __future__ import annotations

from collections.abc import Callable

from camserver.capture.libav import LibavEngine
from camserver.capture.native import NativeEngine
from camserver.config import Camera
from camserver.records import AccessUnit, SessionEnd
from camserver.rtsp.memory import Unsupported


class Engines:
    """Both engines behind one call; remembers which streams need libav."""

    def __init__(self, native: NativeEngine, libav: LibavEngine) -> None:
        self._native = native
        self._libav = libav
        self._needs_libav: set[str] = set()

    async def fetch(self, camera: Camera, url: str, deadline: float, ended: Callable[[SessionEnd], None],
                    seen: Callable[[AccessUnit], None]) -> None:
        """Show the first whole keyframe of `url` to `seen`; `deadline` by the event loop's clock.

        Comes back only when no session is open any more, also when it is cancelled; `ended` is told how the session
        ended. Raises CameraError; without one, `seen` was called once.
        """
        if camera.engine == "libav" or (camera.engine == "auto" and url in self._needs_libav):
            await self._libav.fetch(camera, url, deadline, ended, seen)
            return
        try:
            await self._native.fetch(camera, url, deadline, ended, seen)
        except Unsupported:
            if camera.engine == "native":
                raise
            # It was found before any SETUP, and the connection is closed: no session is open now.
            await self._libav.fetch(camera, url, deadline, ended, seen)
            self._needs_libav.add(url)

    def doubt(self, camera: Camera, url: str) -> None:
        """What `url` gave could not be decoded: ask everything anew next time."""
        self._native.doubt(camera, url)
        self._needs_libav.discard(url)
