"""The interface between policy and media: one session of a camera, as a context manager.

    async with engine.session(camera, url, deadline) as session:
        unit = await session.keyframe()
        ...                                 # the session is still open
    session.end                             # closed: how it ended

`__aexit__` ensures rule one: when it returns, the transport is proven closed, or the process that
held it is dead. This also holds after an exception or a cancellation.
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
        """How the session ended, valid only after the block. The worst end of several sessions."""

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


class CaptureSessionBase:
    """A session of which nothing is open when `keyframe` has returned or raised."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing: `keyframe` has closed all that it opened."""


class Engine(Protocol):
    """Opens sessions, and learns from whether their pictures could be decoded."""

    def session(self, camera: Camera, url: str, deadline: float) -> CaptureSession:
        """A session that must give its keyframe before `deadline` (event loop time)."""

    def decoded(self, camera: Camera, url: str, unit: CodedKeyframe) -> None:
        """Note that the access unit from `url` was decoded."""

    def undecodable(
        self, camera: Camera, url: str, unit: CodedKeyframe, error: CameraError
    ) -> None:
        """Note that the access unit from `url` could not be decoded."""


def worst(*ends: SessionEnd) -> SessionEnd:
    """The worst end of several sessions under one lease. This end counts."""
    return max(ends, key=list(SessionEnd).index, default=SessionEnd.NONE)
