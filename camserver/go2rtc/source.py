"""go2rtc as a source of pictures, and the session of the camera that a picture needs.

- The stream is live: go2rtc already has a session. A picture needs no other session of the camera.
- The stream is idle (mode = "always"): go2rtc opens a session for our picture. A lease covers that
  session. The lease ends when go2rtc reports that the session is over.
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Self

from camserver.capture.engines import RtspEngine
from camserver.capture.session import CaptureSession
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.go2rtc.watcher import Go2rtc, Restream
from camserver.model import CodedKeyframe, Result, SessionEnd, Source


class Go2rtcSource:
    """The source that takes pictures of one camera from go2rtc."""

    kind = Source.GO2RTC

    def __init__(
        self, go2rtc: Go2rtc, engine: RtspEngine, camera: Camera, restream: Restream
    ) -> None:
        self._go2rtc = go2rtc
        self._engine = engine
        self._camera = camera
        self._url = restream.url
        self.device = camera.device if restream.needs_lease else None
        # The camera as the engine must see it: go2rtc has its own login
        self._viewed = replace(
            camera,
            username=restream.username,
            password=restream.password,
            transport="tcp",
            engine="native",
        )

    def session(self, deadline: float) -> CaptureSession:
        """A session with go2rtc."""
        # No warm session: go2rtc answers SETUP without DESCRIBE, but then sends nothing
        self._engine.forget(self._viewed, self._url)
        session = self._engine.session(self._viewed, self._url, deadline)
        if self.device is None:
            return session
        return Go2rtcDialledSession(self._go2rtc, self._camera, session)

    def decoded(self, unit: CodedKeyframe) -> None:
        """Note that the keyframe could be decoded."""
        self._engine.decoded(self._viewed, self._url, unit)
        self._go2rtc.worked(self._camera)

    def undecodable(self, unit: CodedKeyframe, error: CameraError) -> None:
        """Note that the keyframe could not be decoded."""
        self._engine.undecodable(self._viewed, self._url, unit, error)

    def failed(self, error: CameraError) -> None:
        """Note that go2rtc gave no picture."""
        self._go2rtc.failed(self._camera, str(error))


class Go2rtcDialledSession:
    """A session with go2rtc for which go2rtc opens a session with the camera.

    `end` is the end of the camera's session, as go2rtc reports it.
    """

    def __init__(self, go2rtc: Go2rtc, camera: Camera, session: CaptureSession) -> None:
        self._go2rtc = go2rtc
        self._camera = camera
        self._session = session
        self._idle_means_none = False  # also set when go2rtc reports that it got no session
        self.end = SessionEnd.UNCLEAN

    async def __aenter__(self) -> Self:
        self._go2rtc.opening(self._camera)
        await self._session.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._session.__aexit__(kind, error, traceback)
        finally:
            self.end = await self._go2rtc.settled(self._camera, was_open=self._idle_means_none)

    async def keyframe(self) -> CodedKeyframe:
        """The first complete keyframe. Raises CameraError."""
        try:
            unit = await self._session.keyframe()
        except CameraError as error:
            # Without an answer go2rtc may still be dialling the camera
            silent = error.result in (Result.TIMEOUT, Result.UNREACHABLE)
            self._idle_means_none = not silent
            raise
        self._idle_means_none = True
        return unit
