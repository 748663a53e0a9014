"""One RTSP session without I/O: the next request, the meaning of each answer, and the end.

`camserver.rtsp.aio.session` sends the requests. Each conversation here is a generator: it yields an
Ask, and gets the Response, or the exception that came instead.

The state says what the camera may count. It changes only by the table TRANSITIONS. An event that
the table does not allow raises SessionStateError, which names the event and the state.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd, Step
from camserver.rtsp.messages import Response
from camserver.rtsp.sdp import Description, Track, control_from_root, control_url, parse_sdp
from camserver.rtsp.session_cache import (
    Reconnect,
    RedirectError,
    SessionCache,
    UnsupportedStreamError,
)

SESSION_TIMEOUT_S = 60
"""The timeout of a session whose Session header names none (RFC 2326, 12.37)."""
SESSION_NOT_FOUND = 454
NOT_KNOWN = frozenset((400, 404, 405, SESSION_NOT_FOUND, 501, 551))
"""Answers to GET_PARAMETER after which another method must keep the session alive."""
MEANS_SOMETHING_ELSE = frozenset((401, 403, 404, 453, SESSION_NOT_FOUND, 503))
"""Refusals with a clear meaning.

After any other refusal, the camera may accept another form of the request.
"""
OTHER_TRANSPORT = frozenset((400, 461, 500))
"""Answers to SETUP of cameras that do not support the transport."""


class SessionState(StrEnum):
    """The states of a session. They say what the camera may count."""

    NOT_CONNECTED = "not connected"
    CONNECTED = "connected"
    SETTING_UP = "setting up"  # a SETUP was sent and is not answered: it may count a session
    READY = "ready"  # SETUP was accepted: it counts a session
    PLAYING = "playing"
    TEARING_DOWN = "tearing down"
    TORN_DOWN = "torn down"  # it does not count the session any more
    CLOSED = "closed"  # the transport is proven closed


class SessionEvent(StrEnum):
    """The events of a session."""

    CONNECT = "connect"
    RECONNECT = "reconnect"  # the camera has closed the last connection, and counts nothing of it
    SETUP_SENT = "setup sent"
    SETUP_ACCEPTED = "setup accepted"
    SETUP_REFUSED = "setup refused"
    PLAY_ACCEPTED = "play accepted"
    SESSION_LOST = "session lost"
    TEARDOWN_SENT = "teardown sent"
    TEARDOWN_PROVED = "teardown proved"
    CLOSE = "close"


_S, _E = SessionState, SessionEvent
TRANSITIONS: Mapping[tuple[SessionState, SessionEvent], SessionState] = {
    (_S.NOT_CONNECTED, _E.CONNECT): _S.CONNECTED,
    (_S.CONNECTED, _E.SETUP_SENT): _S.SETTING_UP,
    (_S.SETTING_UP, _E.SETUP_REFUSED): _S.CONNECTED,
    (_S.SETTING_UP, _E.SETUP_ACCEPTED): _S.READY,
    (_S.READY, _E.PLAY_ACCEPTED): _S.PLAYING,
    (_S.READY, _E.SESSION_LOST): _S.CONNECTED,
    (_S.READY, _E.TEARDOWN_SENT): _S.TEARING_DOWN,
    (_S.PLAYING, _E.TEARDOWN_SENT): _S.TEARING_DOWN,
    (_S.TEARING_DOWN, _E.TEARDOWN_PROVED): _S.TORN_DOWN,
    **{(state, _E.CLOSE): _S.CLOSED for state in SessionState},
    (_S.CLOSED, _E.RECONNECT): _S.NOT_CONNECTED,
}
END_WHEN_CLOSED: Mapping[SessionState, SessionEnd] = {
    _S.NOT_CONNECTED: SessionEnd.NONE,
    _S.CONNECTED: SessionEnd.NONE,
    _S.SETTING_UP: SessionEnd.UNCLEAN,
    _S.READY: SessionEnd.UNCLEAN,
    _S.PLAYING: SessionEnd.UNCLEAN,
    _S.TEARING_DOWN: SessionEnd.UNCLEAN,
    _S.TORN_DOWN: SessionEnd.CLEAN,
}
"""How a session ended, by its state when the transport was closed."""


class SessionStateError(Exception):
    """Raised when a session gets an event that its state does not allow: a bug of camserver."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send.

    `transport`: the request is a SETUP. The receiver of the packets makes its Transport header.
    `any_answer`: a refusal is returned like other answers. Otherwise it is raised as CameraError.
    """

    method: Step
    uri: str
    headers: dict[str, str] = field(default_factory=dict)
    transport: str | None = None
    any_answer: bool = False


T = TypeVar("T")
Conversation = Generator[Ask, Response, T]


class SessionCore:
    """The client's side of one session. It may use several connections, but never two at once."""

    def __init__(self, url: str, cache: SessionCache) -> None:
        self.url = url
        self.cache = cache
        self.state = SessionState.NOT_CONNECTED
        self.end = SessionEnd.NONE
        """How it ended. Valid when the state is `closed`."""
        self.session_id = ""
        self.timeout_s = SESSION_TIMEOUT_S
        self.description: Description | None = None
        """The camera's description. None when it was not asked."""
        self.warm = False
        """Whether it was opened without DESCRIBE."""

    def happened(self, event: SessionEvent) -> None:
        """Go to the next state. Raises SessionStateError when the event is impossible now."""
        before = self.state
        try:
            self.state = TRANSITIONS[before, event]
        except KeyError:
            raise SessionStateError(f"{event} is impossible when {before}") from None
        if event is SessionEvent.CLOSE and before is not SessionState.CLOSED:
            self.end = END_WHEN_CLOSED[before]
        if event is SessionEvent.RECONNECT:
            self.end = SessionEnd.NONE
        if event in (SessionEvent.CONNECT, SessionEvent.SESSION_LOST):
            self.session_id, self.timeout_s = "", SESSION_TIMEOUT_S

    @property
    def has_session(self) -> bool:
        """Whether a SETUP was accepted and the session is not torn down."""
        return self.state in (
            SessionState.READY,
            SessionState.PLAYING,
            SessionState.TEARING_DOWN,
        )

    @property
    def may_be_counted(self) -> bool:
        """Whether the camera may count a session of ours."""
        return self.has_session or self.state is SessionState.SETTING_UP

    def note_session(self, method: str, header: str) -> None:
        """Store the session id and the timeout of an answer's Session header.

        The first id counts, from any answer, because some cameras send it only with DESCRIBE. A
        later SETUP replaces it.
        """
        name, _, more = header.partition(";")
        if name.strip() and (not self.session_id or method == Step.SETUP):
            self.session_id = name.strip()
        if match := re.search(r"timeout\s*=\s*([0-9]{1,5})", more):
            self.timeout_s = max(1, int(match[1]))

    # ---- the way to PLAY

    def negotiate(self) -> Conversation[None]:
        """Send all requests that one connection needs until the camera plays.

        Raises the errors of the requests, and UnsupportedStreamError.
        """
        self.warm = self.cache.may_be_warm
        if self.warm and (yield from self._open_warm()):
            return
        yield from self._describe()
        yield from self._setup()
        yield from self._play()

    def _open_warm(self) -> Conversation[bool]:
        """Play with the remembered facts, without DESCRIBE.

        False when the camera refuses this and has no session of ours. Then the remembered facts are
        no longer true, or the camera never accepts a session without DESCRIBE.
        """
        try:
            yield from self._setup()
            yield from self._play()
        except CameraError as error:
            gone = not self.has_session or error.status == SESSION_NOT_FOUND
            over = error.status is None  # the connection has ended without an answer
            refused = error.login_refused or error.result in (Result.FULL, Result.AUTH)
            if not gone or over or refused:
                raise
        else:
            return True
        if self.state is SessionState.READY:
            self.happened(SessionEvent.SESSION_LOST)
        self.session_id = ""
        self.warm = False
        self.cache.warm_refusals += 1
        return False

    def _describe(self) -> Conversation[None]:
        cache = self.cache
        cache.track = None
        response = yield from self._ask_description()
        self.description = description = parse_sdp(response.body)
        track = description.video()
        if track is None or track.codec is None:
            offered = (
                ", ".join(sorted({t.encoding or t.kind for t in description.tracks})) or "nothing"
            )
            raise UnsupportedStreamError(
                Result.ERROR,
                f"the camera offers no video that camserver speaks (it has {offered})",
                SessionEnd.NONE,
            )
        base = (
            response.headers.get("Content-Base")
            or response.headers.get("Content-Location")
            or self.url
        )
        if not re.match(r"rtsps?://", base, re.IGNORECASE):
            base = self.url
        cache.base = control_url(base.strip(), description.control)
        self._choose(track)

    def _ask_description(self) -> Conversation[Response]:
        """Send DESCRIBE, after OPTIONS if the camera needs it.

        Some cameras accept no DESCRIBE before an OPTIONS. This is remembered.
        """
        cache = self.cache
        describe = Ask(Step.DESCRIBE, self.url, {"Accept": "application/sdp"})
        options = Ask(Step.OPTIONS, self.url, any_answer=True)
        if cache.options_first:
            yield options
            return (yield describe)
        try:
            return (yield describe)
        except CameraError as error:
            if error.status is None or error.status in MEANS_SOMETHING_ELSE:
                raise
            if (yield options).status != 200:
                raise
            response = yield describe
        cache.options_first = True
        return response

    def _choose(self, track: Track) -> None:
        """Use this track from now on."""
        cache = self.cache
        tracks = self.description.tracks if self.description is not None else ()
        others = [t for t in tracks if t is not track]
        cache.track = track
        cache.track_url = control_url(cache.base, track.control)
        cache.other_tracks = tuple(control_url(cache.base, t.control) for t in others if t.control)
        cache.other_types = frozenset(t.payload_type for t in others)

    def _setup(self) -> Conversation[None]:
        """Set up the track. After a refusal, try the forms of SETUP that other cameras need.

        These are the other transport, the URL from the server's root, and the other video tracks.
        """
        cache = self.cache
        try:
            yield from self._setup_with(cache.transport)
            return
        except CameraError as error:
            first = error
        if self.description is None:
            raise first  # DESCRIBE was not sent yet. It is tried before other forms of SETUP.
        other = "udp" if cache.transport == "tcp" else "tcp"
        if first.status in OTHER_TRANSPORT and (yield from self._set_up_otherwise(other)):
            return
        if first.status in (403, 404, *OTHER_TRANSPORT):
            tried, transport = cache.track, cache.transport
            from_root = control_from_root(cache.base, tried.control if tried is not None else "")
            if from_root is not None and from_root != cache.track_url:
                cache.track_url = from_root
                if (yield from self._set_up_otherwise(transport)):
                    return
            for track in self.description.spoken():
                if track is not tried:
                    self._choose(track)
                    if (yield from self._set_up_otherwise(transport)):
                        return
        raise first

    def _set_up_otherwise(self, transport: str) -> Conversation[bool]:
        """Whether the camera accepts this SETUP. If so, the transport is remembered."""
        try:
            yield from self._setup_with(transport)
        except CameraError as error:
            if error.status is None or error.result is Result.AUTH:
                raise
            return False
        self.cache.transport = transport
        return True

    def _setup_with(self, transport: str) -> Conversation[None]:
        self.happened(SessionEvent.SETUP_SENT)
        try:
            yield Ask(Step.SETUP, self.cache.track_url, transport=transport)
        except CameraError as error:
            # A refusal opens no session. An error without a status means that the connection has
            # ended.
            if error.status is not None:
                self.happened(SessionEvent.SETUP_REFUSED)
            raise
        except (RedirectError, Reconnect, OSError):  # OSError: no port was free, nothing was sent
            self.happened(SessionEvent.SETUP_REFUSED)
            raise
        self.happened(SessionEvent.SETUP_ACCEPTED)

    def _play(self) -> Conversation[None]:
        cache = self.cache
        play = Ask(Step.PLAY, cache.base, {"Range": "npt=0.000-"})
        if cache.all_tracks:
            yield from self._set_up_other_tracks()
        try:
            yield play
        except CameraError as error:
            if error.status is None or error.status in MEANS_SOMETHING_ELSE or cache.all_tracks:
                raise
            if not (yield from self._set_up_other_tracks()):
                raise
            yield play
            cache.all_tracks = True
        self.happened(SessionEvent.PLAY_ACCEPTED)

    def _set_up_other_tracks(self) -> Conversation[bool]:
        """Set up the other tracks. False when there is none.

        Some cameras play nothing unless all tracks are set up. The data of the other tracks is not
        used. They are always sent over interleaved channels, so no UDP port is needed for them.
        """
        for number, url in enumerate(self.cache.other_tracks, start=1):
            channels = f"{2 * number}-{2 * number + 1}"
            headers = {"Transport": f"RTP/AVP/TCP;unicast;interleaved={channels}"}
            yield Ask(Step.SETUP, url, headers, any_answer=True)
        return bool(self.cache.other_tracks)

    # ---- while it plays

    def keep_alive(self) -> Ask:
        """The request that keeps the session alive."""
        return Ask(Step(self.cache.keep_alive), self.cache.base, any_answer=True)

    def keep_alive_answered(self, status: int) -> bool:
        """Whether to send another keep-alive at once, because the camera does not know the method.

        From then on OPTIONS is used.
        """
        if status not in NOT_KNOWN or self.cache.keep_alive == Step.OPTIONS:
            return False
        self.cache.keep_alive = Step.OPTIONS
        return True

    # ---- its end

    def tear_down(self) -> Ask:
        """The request that ends the session. The state becomes `tearing down`."""
        self.happened(SessionEvent.TEARDOWN_SENT)
        return Ask(Step.TEARDOWN, self.cache.base, any_answer=True)

    def tear_down_answered(self, status: int | None, *, over_udp: bool) -> None:
        """Note the answer to TEARDOWN. `status` is None when the login for it was refused.

        Over TCP the session ends with the connection, so any answer proves the end. Over UDP only a
        200 proves it, or a 454, which means that the session does not exist any more.
        """
        if not over_udp or status in (200, SESSION_NOT_FOUND):
            self.happened(SessionEvent.TEARDOWN_PROVED)
