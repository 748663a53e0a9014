"""Which engine reads a stream: learned from what came of each, forgotten in time."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise

import pytest

from camserver.capture.build import build_capture
from camserver.capture.engine_choice import KEPT_S, EngineChoice, may_be_misread
from camserver.capture.engines import MAX_LATER_TRIALS, MAX_TRIALS
from camserver.errors import CameraError
from camserver.model import Result, SessionEnd

MISREAD = CameraError(
    Result.NO_KEYFRAME, "59 pictures but no keyframe within 6.0 s", step="a keyframe"
)


def failed_twice() -> EngineChoice:
    choice = EngineChoice()
    for _ in range(2):
        assert not choice.asks_libav(0.0)
        choice.native_failed(MISREAD)
    assert choice.asks_libav(0.0)
    return choice


def test_after_two_misreadings_libav_is_asked_and_kept_for_a_day() -> None:
    choice = failed_twice()
    choice.libav_worked(0.0)
    assert choice.asks_libav(KEPT_S - 1)
    assert not choice.asks_libav(KEPT_S), "then the native client gets one more chance"
    choice.native_failed(MISREAD)
    assert choice.asks_libav(KEPT_S), "and one failure is enough"


def test_a_reload_gives_the_native_client_another_chance() -> None:
    choice = failed_twice()
    choice.libav_worked(0.0)
    choice.reloaded()
    assert not choice.asks_libav(1.0)
    choice.native_worked()
    choice.native_failed(MISREAD)
    assert not choice.asks_libav(1.0)


def test_where_neither_works_libav_is_asked_ever_more_rarely() -> None:
    choice, asked = EngineChoice(), []
    for poll in range(200):
        if choice.asks_libav(0.0):
            asked.append(poll)
            choice.libav_failed(MISREAD)
        else:
            choice.native_failed(MISREAD)
    gaps = [b - a for a, b in pairwise(asked)]
    assert gaps[:5] == [5, 9, 17, 33, 33]


def test_libav_that_fails_twice_where_it_worked_is_not_kept() -> None:
    choice = failed_twice()
    choice.libav_worked(0.0)
    choice.kept_failed(MISREAD)
    assert choice.asks_libav(1.0)
    choice.kept_failed(MISREAD)
    assert not choice.asks_libav(1.0)


def test_a_libav_that_hangs_is_not_kept_either() -> None:
    """Its time-outs name no step."""
    choice = failed_twice()
    choice.libav_worked(0.0)
    for _ in range(2):
        choice.kept_failed(CameraError(Result.TIMEOUT, "no answer within 5.7 s"))
    assert not choice.asks_libav(1.0)


def test_after_a_reload_a_stream_that_needs_libav_is_kept_again() -> None:
    """Found before any session: then the native client fails without a failure being counted."""
    choice = failed_twice()
    choice.libav_worked(0.0)
    choice.reloaded()
    choice.libav_worked(5.0)
    assert choice.asks_libav(6.0)


@pytest.mark.parametrize(
    ("error", "misread"),
    [
        (MISREAD, True),
        (CameraError(Result.BAD_PICTURE, "x"), True),
        (CameraError(Result.ERROR, "x", status=455), True),
        (CameraError(Result.NOT_FOUND, "x", status=404), True),
        (CameraError(Result.TIMEOUT, "x", step="SETUP"), True),
        (CameraError(Result.TIMEOUT, "x", step="connecting"), False),
        (CameraError(Result.AUTH, "x", status=401), False),
        (CameraError(Result.ERROR, "not spoken", status=401), False),
        (CameraError(Result.FULL, "x", status=453), False),
        (CameraError(Result.UNREACHABLE, "x"), False),
        (CameraError(Result.BAD_PICTURE, "x", packets_lost=True), False),
    ],
)
def test_what_another_client_could_do_better(error: CameraError, misread: bool) -> None:
    assert may_be_misread(error) is misread


def test_a_camera_that_gave_libav_no_session_is_not_unreadable_for_it() -> None:
    """It was unreachable, or no worker came free. The native client goes on, for two polls."""
    for error in (
        CameraError(Result.OVERLOADED, "no session worker came free", SessionEnd.NONE),
        CameraError(Result.UNREACHABLE, "connection refused", SessionEnd.NONE),
    ):
        choice = failed_twice()
        choice.libav_failed(error)
        for _ in range(2):
            assert not choice.asks_libav(0.0)
            choice.native_failed(MISREAD)
        assert choice.asks_libav(0.0)
        assert choice.is_untried


def test_only_some_streams_that_nobody_reads_are_tried_with_libav_at_once() -> None:
    """Each trial is a process. Those that were tried before leave room for the others."""
    engine = build_capture(90, sessions=100).rtsp
    known, untried, tried = failed_twice(), failed_twice(), failed_twice()
    known.libav_worked(0.0)
    tried.libav_failed(MISREAD)
    running = [failed_twice() for _ in range(MAX_TRIALS)]
    with ExitStack() as trials:
        for number, choice in enumerate(running):
            assert engine.may_use_libav(untried)
            assert engine.may_use_libav(tried) == (number < MAX_LATER_TRIALS)
            trials.enter_context(engine.trial(choice))
            choice.libav_failed(MISREAD)  # how it ends does not change whether it was a trial
        assert not engine.may_use_libav(untried)
        assert engine.may_use_libav(known)
        known.reloaded()
        known.native_failed(MISREAD)  # the native client was tried once more
        assert engine.may_use_libav(known)
    assert engine.may_use_libav(untried)
    assert engine.may_use_libav(tried)
