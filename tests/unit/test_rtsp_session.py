"""The RTSP session without I/O: its table, and any camera's answers to what it asks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd, Step
from camserver.rtsp.aio.connection import ConnectionClosed
from camserver.rtsp.messages import Headers, Response
from camserver.rtsp.refusals import refusal
from camserver.rtsp.sdp import Track
from camserver.rtsp.session import (
    END_WHEN_CLOSED,
    TRANSITIONS,
    Ask,
    SessionCore,
    SessionEvent,
    SessionState,
    SessionStateError,
)
from camserver.rtsp.session_cache import Reconnect, RedirectError, SessionCache

URL = "rtsp://camera/live"
SDP = (
    b"v=0\r\n"
    b"m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track1\r\n"
    b"m=video 0 RTP/AVP 97\r\na=rtpmap:97 H265/90000\r\na=control:track2\r\n"
    b"m=audio 0 RTP/AVP 8\r\na=control:track3\r\n"
)
LOST = CameraError(Result.UNREACHABLE, "closed when it was sent the login", login_refused=True)
MOST_ASKS = 24


def core(*, warm: bool = False, **known: bool) -> SessionCore:
    cache = SessionCache(**known)  # type: ignore[arg-type]
    if warm:
        cache.track, cache.track_url, cache.base = Track("video", 96, "H264"), URL + "/1", URL
    session = SessionCore(URL, cache)
    session.happened(SessionEvent.CONNECT)
    return session


@pytest.mark.parametrize(
    ("state", "event"),
    [pair for pair in itertools.product(SessionState, SessionEvent) if pair not in TRANSITIONS],
)
def test_an_impossible_event_names_both(state: SessionState, event: SessionEvent) -> None:
    session = SessionCore(URL, SessionCache())
    session.state = state
    with pytest.raises(SessionStateError, match=f"^{event} is impossible when {state}$"):
        session.happened(event)
    assert session.state is state


@pytest.mark.parametrize("state", [s for s in SessionState if s is not SessionState.CLOSED])
def test_every_state_has_an_end(state: SessionState) -> None:
    """And closing again changes nothing."""
    session = SessionCore(URL, SessionCache())
    session.state = state
    for _ in range(2):
        session.happened(SessionEvent.CLOSE)
        assert session.end is END_WHEN_CLOSED[state]


def answer(status: int, body: bytes = b"") -> Response:
    return Response(status, Headers(), body)


answers = st.one_of(
    st.sampled_from([200, 200, 200, 400, 401, 403, 404, 453, 454, 455, 461, 500, 503, 551]),
    st.sampled_from([LOST, RedirectError(URL), Reconnect(None), OSError("no port")]),
    st.sampled_from([ConnectionClosed("closed")]),
)


def carry_out(
    session: SessionCore, camera: list[int | Exception]
) -> tuple[list[Ask], bool, Exception | None]:
    """Asks, whether the camera may count a session afterwards, and what ended the conversation."""
    asked: list[Ask] = []
    counted = False
    conversation = session.negotiate()
    try:
        ask = next(conversation)
        while True:
            asked.append(ask)
            given_answer = camera.pop(0) if camera else 200
            main = ask.transport is not None
            if ask.method is Step.PLAY:
                assert session.state is SessionState.READY, session.state
                counted &= given_answer != 454
            if main:
                assert session.state is SessionState.SETTING_UP
                assert not counted, "a second session beside the first"
                counted = given_answer == 200 or given_answer is LOST
                counted |= isinstance(given_answer, ConnectionClosed)
            if isinstance(given_answer, Exception):
                ask = conversation.throw(given_answer)
            elif given_answer != 200 and not ask.any_answer:
                ask = conversation.throw(refusal(ask.method, given_answer))
            else:
                body = SDP if ask.method is Step.DESCRIBE else b""
                ask = conversation.send(answer(given_answer, body))
    except StopIteration:
        return asked, counted, None
    except (CameraError, RedirectError, Reconnect, OSError, ConnectionClosed) as error:
        return asked, counted, error


@given(
    camera=st.lists(answers, max_size=16),
    warm=st.booleans(),
    options_first=st.booleans(),
    all_tracks=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_whatever_a_camera_answers_the_end_says_what_it_may_count(
    camera: list[int | Exception], warm: bool, options_first: bool, all_tracks: bool
) -> None:
    """It plays or fails, after few requests, and never sets up a second session."""
    session = core(warm=warm, options_first=options_first, all_tracks=all_tracks)
    asked, counted, error = carry_out(session, list(camera))
    assert len(asked) <= MOST_ASKS
    assert (error is None) == (session.state is SessionState.PLAYING)
    # A 454 to PLAY after DESCRIBE raises: then the session is torn down, or counts as unclean
    lost = asked[-1].method is Step.PLAY and isinstance(error, CameraError) and error.status == 454
    session.happened(SessionEvent.CLOSE)
    assert session.end is (SessionEnd.UNCLEAN if counted or lost else SessionEnd.NONE)


def test_a_cold_and_a_warm_session_ask_in_the_documented_order() -> None:
    asked, _, _ = carry_out(core(), [])
    assert [ask.method for ask in asked] == [Step.DESCRIBE, Step.SETUP, Step.PLAY]
    asked, _, _ = carry_out(core(warm=True), [])
    assert [ask.method for ask in asked] == [Step.SETUP, Step.PLAY]
    asked, _, _ = carry_out(core(warm=True), [404])
    assert [ask.method for ask in asked] == [Step.SETUP, Step.DESCRIBE, Step.SETUP, Step.PLAY]


def test_a_teardown_is_clean_when_it_is_proved() -> None:
    """Over TCP by any answer, the connection ends with it; over UDP by 200 or 454 only."""
    for over_udp, status, end in (
        (False, 200, SessionEnd.CLEAN),
        (False, 500, SessionEnd.CLEAN),
        (False, None, SessionEnd.CLEAN),
        (True, 200, SessionEnd.CLEAN),
        (True, 454, SessionEnd.CLEAN),
        (True, 500, SessionEnd.UNCLEAN),
        (True, None, SessionEnd.UNCLEAN),
    ):
        session = core()
        carry_out(session, [])
        assert session.tear_down().method is Step.TEARDOWN
        session.tear_down_answered(status, over_udp=over_udp)
        session.happened(SessionEvent.CLOSE)
        assert session.end is end, (over_udp, status)


def test_a_session_that_begins_again_owes_nothing_for_the_connection_before() -> None:
    session = core()
    carry_out(session, [200, ConnectionClosed("closed")])
    session.happened(SessionEvent.CLOSE)
    assert session.end is SessionEnd.UNCLEAN
    session.happened(SessionEvent.RECONNECT)
    session.happened(SessionEvent.CLOSE)
    assert session.end is SessionEnd.NONE


def test_a_camera_that_does_not_know_get_parameter_is_asked_options() -> None:
    session = core()
    assert session.keep_alive().method is Step.GET_PARAMETER
    assert not session.keep_alive_answered(200)
    assert session.keep_alive_answered(405)
    assert session.keep_alive().method is Step.OPTIONS
    assert not session.keep_alive_answered(405)


@pytest.mark.parametrize(
    ("method", "header", "session_id", "timeout_s"),
    [
        (Step.SETUP, "12345;timeout=30", "12345", 30),
        (Step.SETUP, "12345", "12345", 60),
        (Step.DESCRIBE, "early", "early", 60),
        (Step.SETUP, " a ; timeout = 0", "a", 1),
        (Step.PLAY, "", "", 60),
    ],
)
def test_the_session_header(method: Step, header: str, session_id: str, timeout_s: int) -> None:
    session = core()
    session.note_session(method, header)
    assert (session.session_id, session.timeout_s) == (session_id, timeout_s)
