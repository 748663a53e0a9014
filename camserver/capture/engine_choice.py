"""Which engine reads a stream, learned from what came of each. Pure: `now` is a moment in seconds.

The native client is asked first. After FAILURES polls in a row that it ended without a picture, the
next poll asks libav, in a session of its own. If that works it is kept for KEPT_S; then, or after a
reload, the native client gets one more chance. While neither works libav is asked ever more rarely.
"""

from __future__ import annotations

from dataclasses import dataclass

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd, Step

FAILURES = 2
KEPT_S = 24 * 3600.0
MAX_FAILURES = 32
_REFUSALS = frozenset((Result.AUTH, Result.FULL, Result.BUSY))
_MISREADINGS = frozenset((Result.NO_KEYFRAME, Result.BAD_PICTURE, Result.NOT_FOUND, Result.ERROR))


def may_be_misread(error: CameraError) -> bool:
    """Whether another client could do better.

    Not where the camera can't be reached, is full, refuses the login, or its packets are lost.
    """
    if error.status in (401, 403) or error.login_refused or error.packets_lost:
        return False
    if error.result is Result.TIMEOUT:
        return error.step not in (None, Step.CONNECTING)
    return error.result in _MISREADINGS


@dataclass(slots=True)
class EngineChoice:
    """What is known of one stream."""

    failures: int = 0
    """Of the native client, in a row."""
    enough: int = FAILURES
    """After so many libav is asked."""
    kept_until: float | None = None
    """Libav reads the stream; so long the native client is not asked."""
    reason: str = ""
    """What the native client said last."""

    def asks_libav(self, now: float) -> bool:
        """Whether the next poll asks libav."""
        if self.kept_until is not None:
            return now < self.kept_until
        return self.failures >= self.enough

    def native_worked(self) -> None:
        """It gave a picture."""
        self.failures, self.enough, self.kept_until = 0, FAILURES, None

    def native_failed(self, error: CameraError) -> None:
        """It gave none."""
        if not may_be_misread(error):
            return
        self.failures += 1
        self.reason = str(error)
        if self.kept_until is not None:  # libav has worked before: it is asked again at once
            self.kept_until, self.enough, self.failures = None, 1, 1

    def libav_worked(self, now: float) -> None:
        """It gave a picture."""
        self.failures = 0
        if self.kept_until is None or now >= self.kept_until:
            self.kept_until = now + KEPT_S

    def kept_failed(self, error: CameraError) -> None:
        """Libav read the stream before and gave no picture now.

        Twice in a row, and both are asked again.
        """
        refused = error.login_refused or error.status in (401, 403) or error.result in _REFUSALS
        if refused or error.end is SessionEnd.NONE:  # the camera gave it no session to read
            return
        self.failures += 1
        if self.failures >= FAILURES:
            self.kept_until, self.failures, self.enough = None, 0, FAILURES

    def libav_failed(self) -> None:
        """It gave none: the native client is asked again, for longer each time."""
        self.kept_until = None
        self.failures, self.enough = 0, min(MAX_FAILURES, self.enough * 2)

    def reloaded(self) -> None:
        """The native client gets another chance."""
        if self.kept_until is not None:
            self.kept_until = 0.0
