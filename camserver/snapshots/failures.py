"""Judges failed sources: whether another source may help, and the sentence for a person.

The code is pure, except that it drops the traceback of an error that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from camserver.errors import CameraError, RtspBusy
from camserver.model import Attempt, Result, Source

_NO_OTHER_STREAM = frozenset((Result.BUSY, Result.FULL, Result.UNREACHABLE))
"""After these results the camera may still answer its snapshot URL, but no other RTSP stream."""


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """One source that gave no picture.

    `elapsed_s` is the time since the attempt's deadline began to run. `limit_s` is the camera's
    timeout. Both are 0 when no lease was given.
    """

    source: Source
    error: CameraError | RtspBusy
    elapsed_s: float = 0.0
    limit_s: float = 0.0

    def __post_init__(self) -> None:
        """Drop the tracebacks of the error, and of the one that it was raised for.

        They refer to the frame that keeps the failure, and to all that the session has received.
        """
        self.error.__traceback__ = self.error.__context__ = None

    @classmethod
    def of_busy(cls, busy: RtspBusy, source: Source) -> SourceFailure:
        """The failure when no lease was given. That of go2rtc is a lease of an RTSP session."""
        return cls(Source.HTTP if source is Source.HTTP else Source.RTSP, busy)

    @property
    def result(self) -> Result:
        """The result word for latest.json."""
        return Result.BUSY if isinstance(self.error, RtspBusy) else self.error.result

    @property
    def login_refused(self) -> bool:
        """Whether a login was sent and the camera refused it."""
        return isinstance(self.error, CameraError) and self.error.login_refused

    def text(self) -> str:
        """The sentence for a person."""
        if isinstance(self.error, RtspBusy):
            return self.error.reason
        return (
            f"{self.source}: {self.error} (after {self.elapsed_s:.1f} s, limit {self.limit_s:g} s)"
        )

    def label(self) -> str:
        """The failure in few words."""
        if isinstance(self.error, RtspBusy):
            return _holders(self.error)
        if self.result is Result.OVERLOADED:
            return f"this host is overloaded: {self.error}"
        if self.result is Result.FULL:
            return f"camera full: {self.error}"
        if self.result is Result.AUTH and self.login_refused:
            return "wrong password"
        return str(self.error) if self.source is Source.RTSP else f"{self.source}: {self.error}"


def _holders(busy: RtspBusy) -> str:
    if not busy.holders:
        return busy.reason
    names = " and ".join(holder.name for holder in busy.holders)
    verb = "holds" if len(busy.holders) == 1 else "hold"
    return f"camera full: {names} {verb} {len(busy.holders)} of {busy.max_sessions}"


def may_help(source: Source, failures: Sequence[SourceFailure]) -> bool:
    """Whether another source may give a picture after these failures.

    A wrong password is wrong for every source, and cameras lock accounts. So it is sent only once
    per poll. A host without a free decoder has none for another source, either. A camera that is
    full, busy or unreachable over RTSP may still answer its snapshot URL, but not another RTSP
    stream; and the other way round. Failures of go2rtc are ignored: they do not come from the
    camera.
    """
    of_camera = [failure for failure in failures if failure.source is not Source.GO2RTC]
    if any(failure.login_refused or failure.result is Result.OVERLOADED for failure in of_camera):
        return False
    if source in (Source.HTTP, Source.GO2RTC):
        return True
    by_rtsp = {failure.result for failure in of_camera if failure.source is not Source.HTTP}
    return not by_rtsp & _NO_OTHER_STREAM


def failed_attempt(camera: str, at: datetime, failures: Sequence[SourceFailure]) -> Attempt:
    """The outcome of an attempt when all sources failed. `failures` must not be empty.

    The camera's own failures come before those of go2rtc.
    """
    ordered = sorted(failures, key=lambda failure: failure.source is Source.GO2RTC)
    return Attempt(
        camera,
        at,
        ordered[0].result,
        f"{camera}: " + "; ".join(failure.text() for failure in ordered),
        label="; ".join(failure.label() for failure in ordered),
    )
