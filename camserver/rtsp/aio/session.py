"""One RTSP session of ours.

Open, first whole key picture, and an honest end. asyncio, TCP or UDP, plain or TLS.

Rule one lives in `close`: TEARDOWN is sent, its answer awaited, the transport closed and *seen*
closed; what is known of the end is its value. Cancelling any await here leaves a session that
`close` can still end.

What fails after anything remembered (a track, a challenge) is forgotten and tried again on a new
connection, which begins cold; the connection before it is seen closed first.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd
from camserver.rtsp.aio.connection import ConnectionClosed
from camserver.rtsp.aio.media import Media
from camserver.rtsp.aio.requests import CONNECTING, Reconnect, RtspRequests
from camserver.rtsp.auth import Challenge
from camserver.rtsp.login import LoginCache
from camserver.rtsp.messages import Response
from camserver.rtsp.no_picture import STEP, no_picture
from camserver.rtsp.reception import Reception
from camserver.rtsp.sdp import Description, Track, control_from_root, control_url, parse_sdp
from camserver.rtsp.session_cache import (
    Keyframe,
    RedirectError,
    SessionCache,
    UnsupportedStreamError,
)

TEARDOWN_S = 1.0
"""How long the answer to TEARDOWN is awaited."""
CLOSE_S = 1.0
"""How long an orderly close may take; then the transport is aborted, which takes no time."""
RELEASE_S = 0.1
"""The same when it is in a hurry."""
MAX_RECONNECTS = 2
"""New connections within one `open`.

One for what was remembered, one for a camera that closes after its 401.
"""
SESSION_NOT_FOUND = 454
NOT_KNOWN = frozenset((400, 404, 405, SESSION_NOT_FOUND, 501, 551))
"""Answers to GET_PARAMETER that mean: ask something else to keep the session alive."""
MEANS_SOMETHING_ELSE = frozenset((401, 403, 404, 453, SESSION_NOT_FOUND, 503))
"""Refusals that say what is wrong.

Any other may be a camera that wants to be asked in another way.
"""
OTHER_TRANSPORT = frozenset((400, 461, 500))
"""Answers to SETUP of cameras that don't speak the transport."""


class RtspSession:
    """One session: `open`, `key_picture`, `close`, in this order.

    `close` always, whatever the others did.
    """

    def __init__(
        self,
        url: str,
        memory: SessionCache,
        login_memory: LoginCache,
        *,
        tls: ssl.SSLContext | None = None,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._url = url
        self._on_step = on_step
        self.cache = self._memory = memory
        """What it leaves for the next session of the stream."""
        self._login_memory = login_memory
        self._tls = tls
        self._connection: RtspRequests | None = None
        self._media: Media | None = None
        # A SETUP went out over this connection: the camera may count a session
        self._set_up = False
        self._keep_alive: asyncio.TimerHandle | None = None
        self._expedited_s: float | None = None
        self._ending: asyncio.Timeout | None = None
        self._step = CONNECTING
        self.description: Description | None = None
        """What the camera offers, when it was asked."""
        self.warm = False
        """Whether it was opened without DESCRIBE."""

    @property
    def step(self) -> str:
        """What it is waiting for, for the message of a time-out."""
        return self._step

    def _begin_step(self, step: str) -> None:
        self._step = step
        self._on_step(step)

    @property
    def connection(self) -> RtspRequests:
        """The connection of an open session."""
        assert self._connection is not None  # noqa: S101 - connected
        return self._connection

    @property
    def _here(self) -> Media:
        assert self._media is not None  # noqa: S101 - connected
        return self._media

    # ---- open

    async def open(self) -> None:
        """Connect and play. Raises CameraError, UnsupportedStreamError, RedirectError."""
        carried: Challenge | None = None
        try:
            for _ in range(MAX_RECONNECTS):
                try:
                    await self._negotiate(carried)
                except Reconnect as again:
                    await self._close_transport()
                    carried, self._set_up = again.carried, False
                    if carried is None:
                        self._memory.track = None
                else:
                    return
            await self._negotiate(carried)
        except Reconnect:
            raise CameraError(
                Result.UNREACHABLE,
                f"the camera closed the connection again and again at {self.step}",
            ) from None
        except ConnectionClosed as closed:
            result = Result.ERROR if closed.unparsable else Result.UNREACHABLE
            raise CameraError(
                result, f"{closed} at {self.step}{self._stray()}", step=self.step
            ) from None
        except (OSError, ValueError) as error:
            # The host has no port left, or an answer held what nobody writes
            raise CameraError(Result.ERROR, f"{type(error).__name__} at {self.step}") from None

    async def _negotiate(self, carried: Challenge | None) -> None:
        """One connection's way to PLAY. Raises Reconnect when it is worth another."""
        self._connection = connection = await RtspRequests.open(
            self._url, self._tls, self._login_memory, carried, self._begin_step
        )
        self._media = media = Media(connection.wire)
        memory = self._memory
        self.warm = memory.may_be_warm
        try:
            if self.warm and await self._open_warm():
                return
            await self._describe()
            await self._setup()
            await self._play()
        except ConnectionClosed as closed:
            remembered = self.warm or connection.login.remembered
            in_doubt = self._set_up and media.over_udp  # over UDP a session may live on
            if not remembered or connection.has_session or closed.unparsable or in_doubt:
                raise
            if connection.login.remembered:
                self._login_memory.forget()
            memory.warm_refusals += self.warm
            raise Reconnect from None

    async def _open_warm(self) -> bool:
        """Play by what is remembered, without DESCRIBE.

        False when the camera refuses that, and has no session of ours.

        What was remembered is no longer so then, or the camera never takes this.
        """
        connection = self.connection
        try:
            await self._setup()
            await self._play()
        except CameraError as error:
            gone = not connection.has_session or error.status == SESSION_NOT_FOUND
            if not gone or error.login_refused or error.result in (Result.FULL, Result.AUTH):
                raise
        else:
            return True
        self.warm = self._set_up = connection.has_session = False
        connection.session_id = ""
        self._memory.warm_refusals += 1
        return False

    async def _describe(self) -> None:
        memory = self._memory
        memory.track = None
        response = await self._ask_description()
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
            or self._url
        )
        if not re.match(r"rtsps?://", base, re.IGNORECASE):
            base = self._url
        memory.base = control_url(base.strip(), description.control)
        self._choose(track)

    async def _ask_description(self) -> Response:
        """Some cameras take no DESCRIBE before an OPTIONS: it is remembered."""
        memory, connection, accept = self._memory, self.connection, {"Accept": "application/sdp"}
        if memory.options_first:
            await connection.ask("OPTIONS", self._url, {})
            return await connection.request("DESCRIBE", self._url, accept)
        try:
            return await connection.request("DESCRIBE", self._url, accept)
        except CameraError as error:
            if error.status is None or error.status in MEANS_SOMETHING_ELSE:
                raise
            if (await connection.ask("OPTIONS", self._url, {})).status != 200:
                raise
            response = await connection.request("DESCRIBE", self._url, accept)
        memory.options_first = True
        return response

    def _choose(self, track: Track) -> None:
        """Take this track's pictures from now on."""
        memory = self._memory
        others = (
            [t for t in self.description.tracks if t is not track]
            if self.description is not None
            else []
        )
        memory.track = track
        memory.track_url = control_url(memory.base, track.control)
        memory.other_tracks = tuple(
            control_url(memory.base, t.control) for t in others if t.control
        )
        memory.other_types = frozenset(t.payload_type for t in others)

    async def methods(self) -> str:
        """What the camera says to OPTIONS, in an open session.

        Raises CameraError, RedirectError, ConnectionClosed.
        """
        return (await self.connection.request("OPTIONS", self._url, {})).headers.get("Public")

    async def _setup(self) -> None:
        """Set up the track; where it is refused, as other cameras want it to be asked."""
        memory = self._memory
        try:
            await self._setup_with(memory.transport)
            return
        except CameraError as error:
            first = error
        if self.description is None:
            raise first  # it was not asked for one: that comes first
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
        memory, connection, media = self._memory, self.connection, self._here
        assert memory.track is not None  # noqa: S101 - described or remembered
        offer = await media.offer(transport)
        self._set_up = True
        try:
            response = await connection.request("SETUP", memory.track_url, {"Transport": offer})
        except (CameraError, RedirectError, Reconnect) as error:
            # Refused: no session was made. An error without a status is a connection that ended.
            self._set_up = isinstance(error, CameraError) and error.status is None
            media.close()
            raise
        connection.has_session = True
        media.begin(
            response.headers.get("Transport"),
            Reception(
                memory.track,
                proof=memory.proof,
                others=memory.other_types,
                unordered=media.over_udp,
            ),
        )
        self._arm_keep_alive(connection.session_timeout_s / 2)

    async def _play(self) -> None:
        memory, connection = self._memory, self.connection
        if memory.all_tracks:
            await self._set_up_other_tracks()
        try:
            await connection.request("PLAY", memory.base, {"Range": "npt=0.000-"})
        except CameraError as error:
            if error.status is None or error.status in MEANS_SOMETHING_ELSE or memory.all_tracks:
                raise
            if not await self._set_up_other_tracks():
                raise
            await connection.request("PLAY", memory.base, {"Range": "npt=0.000-"})
            memory.all_tracks = True

    async def _set_up_other_tracks(self) -> bool:
        """Some cameras play nothing unless all tracks are set up.

        What comes of the others is not heard.

        By interleaved channels always: nobody has to listen on a port. False when there is none.
        """
        for number, url in enumerate(self._memory.other_tracks, start=1):
            channels = f"{2 * number}-{2 * number + 1}"
            await self.connection.ask(
                "SETUP", url, {"Transport": f"RTP/AVP/TCP;unicast;interleaved={channels}"}
            )
        return bool(self._memory.other_tracks)

    def _stray(self) -> str:
        return self._connection.stray() if self._connection is not None else ""

    # ---- pictures

    async def key_picture(self) -> Keyframe:
        """The first whole key picture; called again, the next one.

        Waits without a limit of its own.

        Raises CameraError when the camera ends it.
        """
        memory, media = self._memory, self._here
        assert memory.track is not None  # noqa: S101 - open
        self._begin_step(STEP)
        picture, captured_s = await media.key_picture()
        if self.warm:
            memory.warm_refusals, memory.warm_worked = 0, True
        report = media.reception.report if media.reception is not None else None
        offset_s = (
            None
            if report is None
            else report.wall_at(picture.timestamp, memory.track.clock_hz) - captured_s
        )
        return Keyframe(picture, memory.track.codec or "", captured_s, offset_s)

    @property
    def _reception(self) -> Reception | None:
        return self._media.reception if self._media is not None else None

    @property
    def pictures(self) -> int:
        """How many pictures came, of whatever kind."""
        return 0 if self._reception is None else self._reception.pictures

    def late(self, limit_s: float) -> CameraError:
        """What a time-out of `limit_s` seconds means at the step it struck."""
        seen, step = self._reception, self.step
        if step != STEP or seen is None:
            what = "no connection" if step == CONNECTING else f"no answer to {step}"
            return CameraError(
                Result.TIMEOUT, f"{what} within {limit_s:.1f} s{self._stray()}", step=step
            )
        return no_picture(seen, limit_s)

    # ---- end

    async def close(self) -> SessionEnd:
        """End the session and see the transport closed.

        Takes at most TEARDOWN_S + CLOSE_S; must not be cancelled.

        Clean: TEARDOWN was answered, or the camera closed after it. None: no session was ever
        opened.
        """
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        if self._reception is not None:
            self._memory.proof = self._reception.proof
        connection = self._connection
        if connection is None:
            return SessionEnd.NONE
        connection.wire.on_packet = None
        end = SessionEnd.UNCLEAN if self._set_up else SessionEnd.NONE
        try:
            if connection.has_session and connection.wire.end is None and await self._tear_down():
                end = SessionEnd.CLEAN
        finally:
            await self._close_transport()
        return end

    async def _close_transport(self) -> None:
        """Close the connection and see it closed."""
        if self._connection is None:
            return
        self._here.close()
        wire = self._connection.wire
        wire.close()
        try:
            async with asyncio.timeout(
                CLOSE_S if self._expedited_s is None else RELEASE_S
            ) as self._ending:
                await asyncio.shield(wire.closed)
        except TimeoutError:
            wire.abort()
            await wire.closed

    def expedite_close(self, teardown_s: float) -> None:
        """From now on TEARDOWN has only so long to be answered, and the close less.

        Also when `close` is already at it.
        """
        if self._expedited_s is None:
            self._expedited_s = teardown_s
            if self._ending is not None and (when := self._ending.when()) is not None:
                with contextlib.suppress(RuntimeError):  # it has just ended
                    self._ending.reschedule(
                        min(when, asyncio.get_running_loop().time() + teardown_s)
                    )

    async def _tear_down(self) -> bool:
        over_udp = self._here.over_udp
        try:
            async with asyncio.timeout(
                TEARDOWN_S if self._expedited_s is None else self._expedited_s
            ) as self._ending:
                response = await self.connection.ask("TEARDOWN", self._memory.base, {})
        except TimeoutError:
            return False
        except ConnectionClosed as closed:
            return closed.by_camera
        except (CameraError, Reconnect):  # 401: over UDP the session may live on
            return not over_udp
        # Over TCP the session ends with the connection, whatever it answered; over UDP only a 200
        # says so, or a 454: there is no such session any more.
        return not over_udp or response.status in (200, SESSION_NOT_FOUND)

    def _arm_keep_alive(self, every_s: float) -> None:
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        self._keep_alive = asyncio.get_running_loop().call_later(every_s, self._remind, every_s)

    def _remind(self, every_s: float) -> None:
        """Tell the camera that somebody is there.

        One that doesn't know the method is asked OPTIONS from then on.
        """
        memory, connection = self._memory, self.connection
        if connection.wire.end is not None:
            return

        def answered(response: Response) -> None:
            if (
                response.status in NOT_KNOWN
                and memory.keep_alive != "OPTIONS"
                and connection.wire.end is None
            ):
                memory.keep_alive = "OPTIONS"
                ask()

        def ask() -> None:
            connection.ask_later(memory.keep_alive, memory.base, answered)

        ask()
        self._arm_keep_alive(every_s)
