"""The sources of a camera's picture: go2rtc, the main stream, the sub-stream, a snapshot URL.

A source says whether its session needs a lease, opens the session, and is told whether the picture
could be decoded. To add a source, write a class with the methods of PictureSource, and add it to
`Sources.of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from camserver.capture.engines import RtspEngine
from camserver.capture.http import HttpEngine
from camserver.capture.session import CaptureSession, Engine
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.go2rtc.source import Go2rtcSource
from camserver.go2rtc.watcher import Go2rtc
from camserver.leases import http_device
from camserver.model import CodedKeyframe, Source


class PictureSource(Protocol):
    """One source of one camera, for one attempt."""

    @property
    def kind(self) -> Source:
        """The word for this source in latest.json."""

    @property
    def device(self) -> str | None:
        """The device of which it takes a session. None: none that is not counted already."""

    def session(self, deadline: float) -> CaptureSession:
        """A session that must give its keyframe before `deadline` (event loop's clock)."""

    def decoded(self, unit: CodedKeyframe) -> None:
        """Note that the keyframe could be decoded."""

    def undecodable(self, unit: CodedKeyframe, error: CameraError) -> None:
        """Note that the keyframe could not be decoded."""

    def failed(self, error: CameraError) -> None:
        """Note that the source gave no picture."""


class CameraSource:
    """The camera itself: a stream, or its snapshot URL."""

    def __init__(self, kind: Source, engine: Engine, camera: Camera, url: str) -> None:
        self.kind = kind
        self.device = http_device(camera.device) if kind is Source.HTTP else camera.device
        self._engine = engine
        self._camera = camera
        self._url = url

    def session(self, deadline: float) -> CaptureSession:
        """A session with the camera."""
        return self._engine.session(self._camera, self._url, deadline)

    def decoded(self, unit: CodedKeyframe) -> None:
        """Tell the engine that the client which fetched the keyframe can read the stream."""
        self._engine.decoded(self._camera, self._url, unit)

    def undecodable(self, unit: CodedKeyframe, error: CameraError) -> None:
        """Tell the engine, so that the next session does not use what it remembers."""
        self._engine.undecodable(self._camera, self._url, unit, error)

    def failed(self, error: CameraError) -> None:
        """Do nothing: the attempt reports the error."""


class Sources:
    """The sources of every camera, in the order in which they are tried."""

    def __init__(self, rtsp: RtspEngine, http: HttpEngine, go2rtc: Go2rtc | None = None) -> None:
        self._rtsp = rtsp
        self._http = http
        self._go2rtc = go2rtc

    async def of(self, camera: Camera) -> list[PictureSource]:
        """All sources that this camera has at the moment."""
        restreamed = await self._restreamed(camera)
        return [*([restreamed] if restreamed else []), *self._own(camera)]

    async def live_view(self, camera: Camera) -> PictureSource | None:
        """The go2rtc source if go2rtc shows the camera live. Then no new session is needed."""
        restreamed = await self._restreamed(camera)
        return None if restreamed is None or restreamed.device is not None else restreamed

    async def _restreamed(self, camera: Camera) -> Go2rtcSource | None:
        if self._go2rtc is None:
            return None
        restream = await self._go2rtc.restream(camera)
        if restream is None:
            return None
        return Go2rtcSource(self._go2rtc, self._rtsp, camera, restream)

    def _own(self, camera: Camera) -> Iterator[CameraSource]:
        known: dict[str, tuple[Engine, str | None]] = {
            Source.RTSP: (self._rtsp, camera.url),
            Source.RTSP_SUB: (self._rtsp, camera.sub_url),
            Source.HTTP: (self._http, camera.snapshot_url),
        }
        for name in camera.sources:
            engine, url = known[name]
            if url is not None:
                yield CameraSource(Source(name), engine, camera, url)
