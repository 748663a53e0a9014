"""One RTSP session of ours: open, first whole key picture, and an honest end. asyncio, TCP or UDP, plain or TLS.

Rule one lives in `close`: TEARDOWN is sent, its answer awaited, the transport closed and *seen* closed; what is known of
the end is its value. Cancelling any await here leaves a session that `close` can still end.

Rule two lives in camserver.rtsp.login. What fails after anything remembered (a track, a challenge) is forgotten and tried
again on a new connection, which begins cold; the connection before it is seen closed first.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import ssl
import time
from collections.abc import Callable
from typing import NoReturn
from urllib.parse import urlsplit

from camserver.errors import CameraError
from camserver.records import Result, SessionEnd
from camserver.rtsp.auth import Challenge
from camserver.rtsp.login import Login, LoginMemory, Verdict
from camserver.rtsp.memory import Memory, Moved, Shot, Unsupported
from camserver.rtsp.messages import Response
from camserver.rtsp.no_picture import STEP, no_picture
from camserver.rtsp.pictures import CodedPicture
from camserver.rtsp.reception import Reception
from camserver.rtsp.refusals import refusal
from camserver.rtsp.sdp import Description, Track, control_from_root, control_url, parse_sdp
from camserver.rtsp.udp import UdpPair
from camserver.rtsp.wire import Wire, WireClosed

PORTS = {"rtsp": 554, "rtsps": 322}
USER_AGENT = "camserver"
TEARDOWN_S = 1.0
"""How long the answer to TEARDOWN is awaited."""
CLOSE_S = 1.0
"""How long an orderly close may take; then the transport is aborted, which takes no time."""
RELEASE_S = 0.1
"""The same when it is in a hurry."""
MAX_RECONNECTS = 2
"""New connections within one `open`: one for what was remembered, one for a camera that closes after its 401."""
CLOSING_S = 0.3
"""How long a camera is given to close the connection after its 401, until it is known whether it does."""
MAX_TRIES = 3
"""Sendings of one request: without a login, with one, and once more for a nonce that was too old."""
SESSION_NOT_FOUND = 454
NOT_KNOWN = frozenset((400, 404, 405, 454, 501, 551))
"""Answers to GET_PARAMETER that mean: ask something else to keep the session alive."""
MEANS_SOMETHING_ELSE = frozenset((401, 403, 404, 453, 454, 503))
"""Refusals that say what is wrong; any other may be a camera that wants to be asked in another way."""
OTHER_TRANSPORT = frozenset((400, 461, 500))
"""Answers to SETUP of cameras that don't speak the transport."""


class _ReconnectError(Exception):
    """Raised when the session has to begin again on a new connection."""

    def __init__(self, carried: Challenge | None = None) -> None:
        self.carried = carried
        super().__init__()


class RtspSession:
    """One session: `open`, `key_picture`, `close`, in this order; `close` always, whatever the others did."""

    def __init__(self, url: str, memory: Memory, login_memory: LoginMemory, *, tls: ssl.SSLContext | None = None,
                 on_step: Callable[[str], None] = lambda _: None) -> None:
        self._url = url
        self._on_step = on_step
        self._memory = memory
        self._login_memory = login_memory
        self._tls = tls
        self._wire: Wire | None = None
        self._udp: UdpPair | None = None
        self._begin()
        self._found: asyncio.Future[tuple[CodedPicture, float]] | None = None
        self._keep_alive: asyncio.TimerHandle | None = None
        self._hurried_s: float | None = None
        self._ending: asyncio.Timeout | None = None
        self._step = "connecting"
        self.description: Description | None = None
        """What the camera offers, when it was asked."""
        self.warm = False
        """Whether it was opened without DESCRIBE."""

    def _begin(self, carried: Challenge | None = None) -> None:
        """State of one connection."""
        self.login = Login(self._login_memory, carried)
        self._session = ""          # the Session header's id
        self._timeout_s = 60
        self._set_up = False        # a SETUP went out: the camera may count a session
        self._admitted = False      # it was answered: there is one
        self._reception: Reception | None = None
        self._channels = (0, 1)

    @property
    def step(self) -> str:
        """What it is waiting for, for the message of a time-out."""
        return self._step

    @step.setter
    def step(self, step: str) -> None:
        self._step = step
        self._on_step(step)

    # ---- open

    async def open(self) -> None:
        """Connect and play. Raises CameraError, Unsupported, Moved."""
        try:
            for _ in range(MAX_RECONNECTS):
                try:
                    await self._negotiate()
                except _ReconnectError as again:
                    await self._close_transport()
                    self._begin(again.carried)
                else:
                    return
            await self._negotiate()
        except _ReconnectError:
            raise CameraError(Result.UNREACHABLE, f"the camera closed the connection again and again at {self.step}") from None
        except WireClosed as closed:
            result = Result.ERROR if closed.unparsable else Result.UNREACHABLE
            raise CameraError(result, f"{closed} at {self.step}{self._stray()}", step=self.step) from None
        except (OSError, ValueError) as error:      # the host has no port left, or an answer held what nobody writes
            raise CameraError(Result.ERROR, f"{type(error).__name__} at {self.step}") from None

    async def _negotiate(self) -> None:
        """One connection's way to PLAY. Raises _ReconnectError when it is worth another."""
        await self._connect()
        memory = self._memory
        self.warm = memory.may_be_warm
        try:
            if self.warm and await self._open_warm():
                return
            await self._describe()
            await self._setup()
            await self._play()
        except WireClosed as closed:
            remembered = self.warm or self.login.remembered
            in_doubt = self._set_up and self._udp is not None      # over UDP a session may live on
            if not remembered or self._admitted or closed.unparsable or in_doubt:
                raise
            if self.login.remembered:
                self._login_memory.forget()
            memory.track = None
            memory.warm_refusals += self.warm
            raise _ReconnectError from None

    async def _open_warm(self) -> bool:
        """Play by what is remembered, without DESCRIBE; False when the camera refuses that, and has no session of ours.

        What was remembered is no longer so then, or the camera never takes this.
        """
        try:
            await self._setup()
            await self._play()
        except CameraError as error:
            gone = not self._admitted or error.status == SESSION_NOT_FOUND
            if not gone or error.login_refused or error.result in (Result.FULL, Result.AUTH):
                raise
        else:
            return True
        self.warm = self._set_up = self._admitted = False
        self._session = ""
        self._memory.warm_refusals += 1
        return False

    async def _connect(self) -> None:
        parts = urlsplit(self._url)
        port = parts.port or PORTS[parts.scheme]
        loop = asyncio.get_running_loop()
        self.step = "connecting"
        try:
            _, self._wire = await loop.create_connection(Wire, parts.hostname or "", port, ssl=self._tls)
        except ssl.SSLCertVerificationError:
            raise CameraError(Result.ERROR, "its certificate is not valid (tls_verify = true)", SessionEnd.NONE) from None
        except ConnectionRefusedError:
            raise CameraError(Result.UNREACHABLE, "connection refused: nothing listens there", SessionEnd.NONE) from None
        except OSError as error:
            raise CameraError(Result.UNREACHABLE, f"connection failed: {error.strerror or type(error).__name__}",
                              SessionEnd.NONE) from None
        self._wire.on_end = self._ended

    async def _describe(self) -> None:
        memory = self._memory
        memory.track = None
        response = await self._ask_description()
        self.description = description = parse_sdp(response.body)
        track = description.video()
        if track is None or track.codec is None:
            offered = ", ".join(sorted({t.encoding or t.kind for t in description.tracks})) or "nothing"
            raise Unsupported(Result.ERROR, f"the camera offers no video that camserver speaks (it has {offered})",
                              SessionEnd.NONE)
        base = response.headers.get("Content-Base") or response.headers.get("Content-Location") or self._url
        if not re.match(r"rtsps?://", base, re.IGNORECASE):
            base = self._url
        memory.base = control_url(base.strip(), description.control)
        self._choose(track)

    async def _ask_description(self) -> Response:
        """Some cameras take no DESCRIBE before an OPTIONS: it is remembered."""
        memory, accept = self._memory, {"Accept": "application/sdp"}
        if memory.options_first:
            await self._ask("OPTIONS", self._url, {})
            return await self._request("DESCRIBE", self._url, accept)
        try:
            return await self._request("DESCRIBE", self._url, accept)
        except CameraError as error:
            if error.status is None or error.status in MEANS_SOMETHING_ELSE:
                raise
            if (await self._ask("OPTIONS", self._url, {})).status != 200:
                raise
            response = await self._request("DESCRIBE", self._url, accept)
        memory.options_first = True
        return response

    def _choose(self, track: Track) -> None:
        """Take this track's pictures from now on."""
        memory = self._memory
        others = [t for t in self.description.tracks if t is not track] if self.description is not None else []
        memory.track = track
        memory.track_url = control_url(memory.base, track.control)
        memory.other_tracks = tuple(control_url(memory.base, t.control) for t in others if t.control)
        memory.other_types = frozenset(t.payload_type for t in others)

    async def methods(self) -> str:
        """What the camera says to OPTIONS, in an open session. Raises CameraError, Moved, WireClosed."""
        return (await self._request("OPTIONS", self._url, {})).headers.get("Public")

    async def _setup(self) -> None:
        """Set up the track; where it is refused, as other cameras want it to be asked."""
        memory = self._memory
        try:
            await self._setup_with(memory.transport)
            return
        except CameraError as error:
            first = error
        if self.description is None:
            raise first     # it was not asked for one: that comes first
        other = "udp" if memory.transport == "tcp" else "tcp"
        if first.status in OTHER_TRANSPORT and await self._set_up_otherwise(other):
            return
        if first.status in (403, 404, *OTHER_TRANSPORT):
            tried, transport = memory.track, memory.transport
            from_root = control_from_root(memory.base, tried.control if tried is not None else "")
            if from_root is not None and from_root != memory.track_url:
                memory.track_url = from_root
                if await self._set_up_otherwise(transport):
                    return
            for track in self.description.spoken():
                if track is not tried:
                    self._choose(track)
                    if await self._set_up_otherwise(transport):
                        return
        raise first

    async def _set_up_otherwise(self, transport: str) -> bool:
        """Whether the camera takes this; then it is remembered."""
        try:
            await self._setup_with(transport)
        except CameraError as error:
            if error.status is None or error.result is Result.AUTH:
                raise
            return False
        self._memory.transport = transport
        return True

    async def _setup_with(self, transport: str) -> None:
        memory = self._memory
        assert memory.track is not None  # noqa: S101 - described or remembered
        assert self._wire is not None  # noqa: S101 - connected
        self._close_udp()
        if transport == "udp":
            self._udp = await UdpPair.bind(self._wire.local_host, self._wire.remote_host, self._packet)
            offer = f"RTP/AVP;unicast;client_port={self._udp.ports[0]}-{self._udp.ports[1]}"
        else:
            offer = "RTP/AVP/TCP;unicast;interleaved=0-1"
        self._set_up = True
        try:
            response = await self._request("SETUP", memory.track_url, {"Transport": offer})
        except (CameraError, Moved, _ReconnectError) as error:
            # Refused: no session was made. An error without a status is a connection that ended.
            self._set_up = isinstance(error, CameraError) and error.status is None
            self._close_udp()
            raise
        self._admitted = True
        self._take_transport(response.headers.get("Transport"))
        self._arm_keep_alive(self._timeout_s / 2)
        self._reception = Reception(memory.track, proof=memory.proof, others=memory.other_types,
                                    unordered=self._udp is not None)
        self._found = asyncio.get_running_loop().create_future()
        self._wire.on_packet = self._packet

    def _take_transport(self, given: str) -> None:
        """What the camera answered to our offer (RFC 2326, 12.39)."""
        if match := re.search(r"interleaved\s*=\s*([0-9]{1,3})(?:-([0-9]{1,3}))?", given):
            self._channels = int(match[1]), int(match[2] or int(match[1]) + 1)
        if self._udp is None:
            return
        if match := re.search(r"source\s*=\s*([^;,\s]{1,64})", given):
            self._udp.accept(match[1])
        if match := re.search(r"server_port\s*=\s*([0-9]{1,5})(?:-([0-9]{1,5}))?", given):
            self._udp.punch(int(match[1]), int(match[2] or int(match[1]) + 1))

    async def _play(self) -> None:
        memory = self._memory
        if memory.all_tracks:
            await self._set_up_other_tracks()
        try:
            await self._request("PLAY", memory.base, {"Range": "npt=0.000-"})
        except CameraError as error:
            if error.status is None or error.status in MEANS_SOMETHING_ELSE or memory.all_tracks:
                raise
            if not await self._set_up_other_tracks():
                raise
            await self._request("PLAY", memory.base, {"Range": "npt=0.000-"})
            memory.all_tracks = True

    async def _set_up_other_tracks(self) -> bool:
        """Some cameras play nothing unless all tracks are set up; what comes of the others is not heard.

        By interleaved channels always: nobody has to listen on a port. False when there is none.
        """
        for number, url in enumerate(self._memory.other_tracks, start=1):
            channels = f"{2 * number}-{2 * number + 1}"
            await self._ask("SETUP", url, {"Transport": f"RTP/AVP/TCP;unicast;interleaved={channels}"})
        return bool(self._memory.other_tracks)

    async def _request(self, method: str, uri: str, headers: dict[str, str]) -> Response:
        """An answer of 200. Raises CameraError with the meaning of any other, Moved, WireClosed."""
        response = await self._ask(method, uri, headers)
        if response.status in (301, 302, 303, 307, 308):
            raise Moved(response.headers.get("Location"))
        if response.status != 200:
            raise refusal(method, response.status)
        return response

    async def _ask(self, method: str, uri: str, headers: dict[str, str]) -> Response:
        """Any answer but 401, after the login. Raises WireClosed, and CameraError when the login fails."""
        assert self._wire is not None  # noqa: S101 - connected
        self.step = method
        for _ in range(MAX_TRIES):
            fields = self._fields(method, uri)
            sent = "Authorization" in fields
            try:
                response = await self._wire.request(method, uri, fields | headers)
            except WireClosed as closed:
                if not sent or self.login.remembered or self.login.was_accepted:
                    raise
                self._login_memory.closes_after_challenge = None
                raise CameraError(Result.UNREACHABLE, f"{closed} at {method}, when it was sent the login", step=method,
                                  login_refused=True) from None
            self._note_session(response)
            if response.status != 401:
                if sent and response.status != 403:
                    self.login.accepted(response.headers.get("Authentication-Info"))
                return response
            verdict = self.login.refused([response.headers.get("WWW-Authenticate")], sent=sent)
            if verdict is not Verdict.ANSWER:
                self._login_failed(verdict, method)
            await self._answer_elsewhere(response)
        raise self._refused(Result.AUTH, "wrong username or password", method, login_refused=True)

    async def _answer_elsewhere(self, response: Response) -> None:
        """Answer over a new connection where the camera closes this one after its 401 (some Dahua do).

        Nothing is sent before that is known: a login on a dying connection could be counted, and be sent twice.
        """
        login, memory, wire = self.login, self._login_memory, self._wire
        if self._admitted or login.carried or login.was_accepted or wire is None:
            return
        if response.headers.get("Connection").lower() != "close":
            if memory.closes_after_challenge is False:
                return
            try:
                async with asyncio.timeout(CLOSING_S):
                    await asyncio.shield(wire.closed)
            except TimeoutError:
                memory.closes_after_challenge = False
                return
            memory.closes_after_challenge = True
        raise _ReconnectError(login.challenge)

    def _login_failed(self, verdict: Verdict, method: str) -> NoReturn:
        match verdict:
            case Verdict.RECONNECT:
                self._memory.track = None
                raise _ReconnectError
            case Verdict.NO_LOGIN:
                raise self._refused(Result.AUTH, "it asks for a login: give username and password", method)
            case Verdict.NOT_SPOKEN:
                raise self._refused(Result.ERROR, self.login.words, method)
            case Verdict.LATER_REFUSED:
                raise self._refused(Result.FULL, "it took the login, then refused it: its sessions are taken, or this user "
                                    "may not watch", method)
            case _:
                challenge = self.login.challenge
                label = f", login {challenge.label}" if challenge is not None else ""
                raise self._refused(Result.AUTH, "wrong username or password", method, login_refused=True, label=label)

    @staticmethod
    def _refused(result: Result, words: str, method: str, *, login_refused: bool = False, label: str = "") -> CameraError:
        return CameraError(result, f"{words} (401 to {method}{label})", SessionEnd.NONE, status=401, step=method,
                           login_refused=login_refused)

    def _note_session(self, response: Response) -> None:
        """The first session id of any answer counts; some cameras name it to DESCRIBE only."""
        name, _, more = response.headers.get("Session").partition(";")
        if name.strip() and (not self._session or self.step == "SETUP"):
            self._session = name.strip()
        if match := re.search(r"timeout\s*=\s*([0-9]{1,5})", more):
            self._timeout_s = max(1, int(match[1]))

    def _stray(self) -> str:
        count = self._wire.stray_bytes if self._wire is not None else 0
        return f" ({count} bytes came that are no RTSP)" if count else ""

    # ---- pictures

    async def key_picture(self) -> Shot:
        """The first whole key picture; called again, the next one. Waits without a limit of its own.

        Raises CameraError when the camera ends it.
        """
        assert self._found is not None  # noqa: S101 - open
        assert self._reception is not None  # noqa: S101 - open
        assert self._memory.track is not None  # noqa: S101 - open
        self.step = STEP
        picture, captured_s = await self._found
        self._found = asyncio.get_running_loop().create_future()    # for the next one, if anybody asks
        if self.warm:
            self._memory.warm_refusals, self._memory.warm_worked = 0, True
        report = self._reception.report
        offset_s = None if report is None else report.wall_at(picture.timestamp, self._memory.track.clock_hz) - captured_s
        return Shot(picture, self._memory.track.codec or "", captured_s, offset_s)

    @property
    def pictures(self) -> int:
        """How many pictures came, of whatever kind."""
        return 0 if self._reception is None else self._reception.pictures

    def late(self, limit_s: float) -> CameraError:
        """What a time-out of `limit_s` seconds means at the step it struck."""
        seen, step = self._reception, self.step
        if step != STEP or seen is None:
            what = "no connection" if step == "connecting" else f"no answer to {step}"
            return CameraError(Result.TIMEOUT, f"{what} within {limit_s:.1f} s{self._stray()}", step=step)
        return no_picture(seen, limit_s)

    def _packet(self, channel: int, data: bytes) -> None:
        """RTP on the first of the pair, RTCP on the second."""
        if self._udp is None:
            if channel not in self._channels:
                return
            channel = self._channels.index(channel)
        if self._reception is None:
            return
        if channel == 1:
            self._reception.control(data)
            return
        for picture in self._reception.packet(data, asyncio.get_running_loop().time()):
            if picture.key and picture.whole and self._found is not None and not self._found.done():
                self._found.set_result((picture, time.time()))

    def _ended(self) -> None:
        if self._found is not None and not self._found.done() and self._wire is not None:
            self._found.set_exception(CameraError(
                Result.UNREACHABLE, f"{self._wire.end} before a whole keyframe came"))
            self._found.exception()     # seen: nobody may be waiting any more

    # ---- end

    async def close(self) -> SessionEnd:
        """End the session and see the transport closed. Takes at most TEARDOWN_S + CLOSE_S; must not be cancelled.

        Clean: TEARDOWN was answered, or the camera closed after it. None: no session was ever opened.
        """
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        if self._reception is not None:
            self._memory.proof = self._reception.proof
        wire = self._wire
        if wire is None:
            return SessionEnd.NONE
        wire.on_packet = None
        end = SessionEnd.UNCLEAN if self._set_up else SessionEnd.NONE
        try:
            if self._admitted and wire.end is None and await self._tear_down():
                end = SessionEnd.CLEAN
        finally:
            await self._close_transport()
        return end

    async def _close_transport(self) -> None:
        """Close the connection and see it closed."""
        self._close_udp()
        wire = self._wire
        if wire is None:
            return
        wire.close()
        try:
            async with asyncio.timeout(CLOSE_S if self._hurried_s is None else RELEASE_S) as self._ending:
                await asyncio.shield(wire.closed)
        except TimeoutError:
            wire.abort()
            await wire.closed

    def hurry(self, teardown_s: float) -> None:
        """From now on TEARDOWN has only so long to be answered, and the close less; also when `close` is already at it."""
        if self._hurried_s is None:
            self._hurried_s = teardown_s
            if self._ending is not None and (when := self._ending.when()) is not None:
                with contextlib.suppress(RuntimeError):     # it has just ended
                    self._ending.reschedule(min(when, asyncio.get_running_loop().time() + teardown_s))

    def _close_udp(self) -> None:
        if self._udp is not None:
            self._udp.close()
            self._udp = None

    async def _tear_down(self) -> bool:
        try:
            async with asyncio.timeout(TEARDOWN_S if self._hurried_s is None else self._hurried_s) as self._ending:
                response = await self._ask("TEARDOWN", self._memory.base, {})
        except TimeoutError:
            return False
        except WireClosed as closed:
            return closed.by_camera
        except (CameraError, _ReconnectError):      # 401: over UDP the session may live on
            return self._udp is None
        # Over TCP the session ends with the connection, whatever it answered; over UDP only a 200 says so, or a 454: there
        # is no such session any more.
        return self._udp is None or response.status in (200, 454)

    def _arm_keep_alive(self, every_s: float) -> None:
        self._keep_alive = asyncio.get_running_loop().call_later(every_s, self._remind, every_s)

    def _remind(self, every_s: float) -> None:
        """Tell the camera that somebody is there; one that doesn't know the method is asked OPTIONS from then on."""
        memory, wire = self._memory, self._wire
        if wire is None or wire.end is not None:
            return

        def answered(response: Response) -> None:
            if response.status not in (401, 403):
                self.login.accepted(response.headers.get("Authentication-Info"))
            if response.status in NOT_KNOWN and memory.keep_alive != "OPTIONS" and wire.end is None:
                memory.keep_alive = "OPTIONS"
                ask()

        def ask() -> None:
            wire.ask(memory.keep_alive, memory.base, self._fields(memory.keep_alive, memory.base), answered)

        ask()
        self._arm_keep_alive(every_s)

    def _fields(self, method: str, uri: str) -> dict[str, str]:
        """The header fields that every request has."""
        fields = {"User-Agent": USER_AGENT}
        if self._session:
            fields["Session"] = self._session
        if authorization := self.login.authorization(method, uri, secrets.token_hex(8)):
            fields["Authorization"] = authorization
        return fields
