"""Choose the engine for a stream from earlier results. Pure: `now` is a moment in seconds.

The native client is used first. After FAILURES polls in a row without a picture, libav is asked, in
a separate session. (Only a few streams are tried at once: then the native client goes on.) If libav
works, it is kept for KEPT_S. After that time, or after a reload, the native client is tried once
more. While neither works, libav is tried more and more rarely.
"""

from __future__ import annotations

from dataclasses import dataclass

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd, Step

FAILURES = 2
KEPT_S = 24 * 3600.0
MAX_FAILURES = 32
_REFUSALS = frozenset((Result.AUTH, Result.FULL, Result.BUSY, Result.OVERLOADED))
_MISREADINGS = frozenset((Result.NO_KEYFRAME, Result.BAD_PICTURE, Result.NOT_FOUND, Result.ERROR))


def may_be_misread(error: CameraError) -> bool:
    """Whether another client may get a picture after this error.

    False when the camera cannot be reached, is full, or refuses the login, and when packets were
    lost.
    """
    if error.status in (401, 403) or error.login_refused or error.packets_lost:
        return False
    if error.result is Result.TIMEOUT:
        return error.step not in (None, Step.CONNECTING)
    return error.result in _MISREADINGS


def _gave_no_session(error: CameraError) -> bool:
    """Whether the camera gave no session, so the error says nothing about who can read it."""
    refused = error.login_refused or error.status in (401, 403) or error.result in _REFUSALS
    return refused or error.end is SessionEnd.NONE


@dataclass(slots=True)
class EngineChoice:
    """The results of both engines for one stream."""

    failures: int = 0
    """Failures in a row: of the native client, or of libav while libav is kept."""
    enough: int = FAILURES
    """The number of failures of the native client after which libav is used."""
    kept_until: float | None = None
    """Libav reads the stream. Until this moment the native client is not used."""
    reason: str = ""
    """The newest error text of the native client."""

    def asks_libav(self, now: float) -> bool:
        """Whether the next poll should use libav."""
        if self.kept_until is not None:
            return now < self.kept_until
        return self.failures >= self.enough

    @property
    def is_known(self) -> bool:
        """Whether libav has read this stream."""
        return self.kept_until is not None or self.enough < FAILURES

    @property
    def is_untried(self) -> bool:
        """Whether libav has not failed on this stream, or nothing is known of it any more."""
        return self.enough == FAILURES

    def native_worked(self) -> None:
        """Note that the native client gave a picture."""
        self.failures, self.enough, self.kept_until = 0, FAILURES, None

    def native_failed(self, error: CameraError) -> None:
        """Note that the native client gave no picture."""
        if not may_be_misread(error):
            return
        self.failures += 1
        self.reason = str(error)
        if self.kept_until is not None:  # libav has worked before, so it is used again at once
            self.kept_until, self.enough, self.failures = None, 1, 1

    def libav_worked(self, now: float) -> None:
        """Note that libav gave a picture."""
        self.failures = 0
        if self.kept_until is None or now >= self.kept_until:
            self.kept_until = now + KEPT_S

    def kept_failed(self, error: CameraError) -> None:
        """Note that libav, which read the stream before, gave no picture now.

        After two such failures in a row both engines are tried again.
        """
        if _gave_no_session(error):
            return
        self.failures += 1
        if self.failures >= FAILURES:
            self.kept_until, self.failures, self.enough = None, 0, FAILURES

    def libav_failed(self, error: CameraError) -> None:
        """Note that libav gave no picture.

        The native client is used again. It gets twice as many polls as before, up to MAX_FAILURES,
        unless the camera gave libav no session.
        """
        self.kept_until, self.failures = None, 0
        if not _gave_no_session(error):
            self.enough = min(MAX_FAILURES, self.enough * 2)

    def reloaded(self) -> None:
        """Try the native client once more."""
        if self.kept_until is not None:
            self.kept_until = 0.0
