"""The seam between policy and media: one session of a camera, as a context manager.

    async with engine.session(camera, url, deadline) as session:
        unit = await session.keyframe()
        ...                                 # the session is still open
    session.end                             # closed: how it ended

Rule one lives in `__aexit__`: when it is done, also by an exception or a cancellation, the
transport is proven closed, or the process that held it is dead and reaped.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from camserver.config import Camera
from camserver.errors import CameraError
from camserver.model import CodedKeyframe, SessionEnd


class CaptureSession(Protocol):
    """One session of one stream. Nothing is opened before `keyframe` is called."""

    @property
    def end(self) -> SessionEnd:
        """How the session ended; right only after the block. The worst, if there were several."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def keyframe(self) -> CodedKeyframe:
        """Open the session and wait for its first whole keyframe. Call it once.

        Raises CameraError, with the result timeout at the session's deadline.
        """


class Engine(Protocol):
    """Opens sessions, and learns from what became of the pictures."""

    def session(self, camera: Camera, url: str, deadline: float) -> CaptureSession:
        """A session that has to give its keyframe before `deadline` (event loop's clock)."""

    def decoded(self, camera: Camera, url: str, unit: CodedKeyframe) -> None:
        """What `url` gave could be decoded."""

    def undecodable(
        self, camera: Camera, url: str, unit: CodedKeyframe, error: CameraError
    ) -> None:
        """What `url` gave could not be decoded."""


def worst(*ends: SessionEnd) -> SessionEnd:
    """Of several sessions under one lease, the end that counts."""
    return max(ends, key=list(SessionEnd).index, default=SessionEnd.NONE)
