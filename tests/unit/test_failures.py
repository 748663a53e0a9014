"""What an attempt says whose sources have all failed: the sentence, and the label in few words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from camserver.errors import CameraError, RtspBusy, SessionHolder
from camserver.model import Result, Source
from camserver.snapshots.failures import SourceFailure, failed_attempt

NOW = datetime(2026, 1, 4, tzinfo=UTC)
FULL = CameraError(Result.FULL, "its sessions are taken (453 to SETUP)")
WRONG = CameraError(Result.AUTH, "wrong username or password (401)", login_refused=True)
NO_LOGIN = CameraError(Result.AUTH, "it asks for a login (401)")
DEAD = CameraError(Result.UNREACHABLE, "connection failed: No route to host")


def busy(*names: str, of: int) -> RtspBusy:
    return RtspBusy(
        "no session of box came free in 5 s",
        camera="gate",
        holders=tuple(SessionHolder("live", name, 9.1) for name in names),
        max_sessions=of,
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (busy("film (pid 812)", of=1), "camera full: film (pid 812) holds 1 of 1"),
        (busy("film", "poller", of=3), "camera full: film and poller hold 2 of 3"),
        (busy(of=1), "no session of box came free in 5 s"),
        (FULL, "camera full: its sessions are taken (453 to SETUP)"),
        (WRONG, "wrong password"),
        (NO_LOGIN, "it asks for a login (401)"),
        (DEAD, "connection failed: No route to host"),
    ],
)
def test_labels_are_plain(error: CameraError | RtspBusy, said: str) -> None:
    assert SourceFailure(Source.RTSP, error, 0.1, 10.0).label() == said


def test_the_sentence_names_camera_source_elapsed_and_limit() -> None:
    attempt = failed_attempt(
        "gate",
        NOW,
        [
            SourceFailure(Source.GO2RTC, CameraError(Result.NOT_FOUND, "no such stream"), 0.1, 10),
            SourceFailure.of_busy(busy("film", of=1), Source.GO2RTC),
            SourceFailure(Source.HTTP, DEAD, 3.1, 10),
        ],
    )
    # The camera's own word comes first
    assert attempt.result is Result.BUSY
    assert attempt.error == (
        "gate: no session of box came free in 5 s; "
        "http: connection failed: No route to host (after 3.1 s, limit 10 s); "
        "go2rtc: no such stream (after 0.1 s, limit 10 s)"
    )
    assert attempt.label == (
        "camera full: film holds 1 of 1; "
        "http: connection failed: No route to host; go2rtc: no such stream"
    )
