"""What failed sources say together: whether another may help, and the sentence for a person.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from camserver.errors import CameraError, RtspBusy
from camserver.model import Attempt, Result, Source

_NO_OTHER_STREAM = frozenset((Result.BUSY, Result.FULL, Result.UNREACHABLE))
"""The camera may still answer its snapshot URL, but not another RTSP stream."""


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """One source gave no picture, `elapsed_s` after the attempt had begun.

    `limit_s` is the camera's timeout. Both are 0 where no lease was given: no time ran yet.
    """

    source: Source
    error: CameraError | RtspBusy
    elapsed_s: float = 0.0
    limit_s: float = 0.0

    @classmethod
    def of_busy(cls, busy: RtspBusy) -> SourceFailure:
        """No lease was given: that is our own word, whatever source it was for."""
        return cls(Source.RTSP, busy)

    @property
    def result(self) -> Result:
        """Its word for latest.json."""
        return Result.BUSY if isinstance(self.error, RtspBusy) else self.error.result

    @property
    def login_refused(self) -> bool:
        """Whether the camera was sent a login and refused it."""
        return isinstance(self.error, CameraError) and self.error.login_refused

    def text(self) -> str:
        """The sentence."""
        if isinstance(self.error, RtspBusy):
            return self.error.reason
        return (
            f"{self.source}: {self.error} (after {self.elapsed_s:.1f} s, limit {self.limit_s:g} s)"
        )

    def label(self) -> str:
        """The same in few words."""
        if isinstance(self.error, RtspBusy):
            return f"camera full: {_holders(self.error)}"
        if self.result in (Result.BUSY, Result.FULL):
            return f"camera full: {self.error}"
        if self.result is Result.AUTH and self.login_refused:
            return "wrong password"
        return str(self.error) if self.source is Source.RTSP else f"{self.source}: {self.error}"


def _holders(busy: RtspBusy) -> str:
    if not busy.holders:
        return busy.reason
    names = " and ".join(holder.name for holder in busy.holders)
    verb = "holds" if len(busy.holders) == 1 else "hold"
    return f"{names} {verb} {len(busy.holders)} of {busy.max_sessions}"


def may_help(source: Source, failures: Sequence[SourceFailure]) -> bool:
    """Whether another source can do better after these failures.

    A wrong password is wrong everywhere, and cameras lock accounts: it is sent once a poll. A
    camera that is full, busy or dead over RTSP may still answer its snapshot URL, but not another
    RTSP stream. What go2rtc says is not the camera's word.
    """
    of_camera = [failure for failure in failures if failure.source is not Source.GO2RTC]
    results = {failure.result for failure in of_camera}
    if Result.AUTH in results or any(failure.login_refused for failure in of_camera):
        return False
    return source in (Source.HTTP, Source.GO2RTC) or not results & _NO_OTHER_STREAM


def failed_attempt(camera: str, at: datetime, failures: Sequence[SourceFailure]) -> Attempt:
    """The outcome of an attempt whose sources have all failed, at least one.

    What the camera itself said counts more than what go2rtc said.
    """
    ordered = sorted(failures, key=lambda failure: failure.source is Source.GO2RTC)
    return Attempt(
        camera,
        at,
        ordered[0].result,
        f"{camera}: " + "; ".join(failure.text() for failure in ordered),
        label="; ".join(failure.label() for failure in ordered),
    )
