"""One RTSP session on asyncio: TCP or UDP, plain or TLS.

camserver.rtsp.session decides what to send and what the answers mean. This module has the
connection, the clock and the packets.

`close` ensures rule one: it sends TEARDOWN, waits for the answer, closes the transport and *sees*
it closed. It returns how the session ended. If any await here is cancelled, `close` can still end
the session.

If a session fails that used remembered facts (a track, a challenge), the facts are forgotten. Then
it is tried again on a new connection, without remembered facts. The old connection is seen closed
first.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TypeVar

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd, Step
from camserver.rtsp.aio.connection import ConnectionClosed
from camserver.rtsp.aio.ending import SessionEnding
from camserver.rtsp.aio.media import Media
from camserver.rtsp.aio.requests import RtspRequests
from camserver.rtsp.auth import Challenge
from camserver.rtsp.login import LoginCache
from camserver.rtsp.messages import Response
from camserver.rtsp.no_picture import no_picture
from camserver.rtsp.reception import Reception
from camserver.rtsp.sdp import Description
from camserver.rtsp.session import Ask, Conversation, SessionCore, SessionEvent
from camserver.rtsp.session_cache import Keyframe, Reconnect, RedirectError, SessionCache

MAX_RECONNECTS = 2
"""New connections within one `open`.

One is for remembered facts that failed. One is for a camera that closes after its 401.
"""

T = TypeVar("T")


class RtspSession:
    """One session. Call `open`, `keyframe` and `close` in this order.

    Always call `close`, also when the other calls failed.
    """

    def __init__(
        self,
        url: str,
        cache: SessionCache,
        login_cache: LoginCache,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._core = SessionCore(url, cache)
        self._login_cache = login_cache
        self._tls = tls
        self._requests: RtspRequests | None = None
        self._media: Media | None = None
        self._keep_alive: asyncio.TimerHandle | None = None
        self._ending = SessionEnding(self._core)
        self.history: list[tuple[Step, float]] = []
        """Each step with the moment when it began (event loop time)."""

    @property
    def cache(self) -> SessionCache:
        """What this session leaves for the next session of the stream."""
        return self._core.cache

    @property
    def warm(self) -> bool:
        """Whether it was opened without DESCRIBE."""
        return self._core.warm

    @property
    def description(self) -> Description | None:
        """The camera's description. None when it was not asked."""
        return self._core.description

    @property
    def challenge(self) -> Challenge | None:
        """The challenge that the session's requests answer."""
        return None if self._requests is None else self._requests.login.challenge

    @property
    def step(self) -> Step:
        """The current step, for the message of a time-out."""
        return self.history[-1][0] if self.history else Step.CONNECTING

    @property
    def pictures(self) -> int:
        """The number of pictures that came, keyframes or not."""
        return 0 if self._reception is None else self._reception.pictures

    @property
    def _reception(self) -> Reception | None:
        return self._media.reception if self._media is not None else None

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
                    self._core.happened(SessionEvent.RECONNECT)
                    carried = again.carried
                    if carried is None:
                        self.cache.track = None
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
            # The host has no free port, or an answer contained an impossible value
            raise CameraError(Result.ERROR, f"{type(error).__name__} at {self.step}") from None

    async def _negotiate(self, carried: Challenge | None) -> None:
        """Open one connection and negotiate until PLAY.

        Raises Reconnect when another connection may succeed.
        """
        core, cache = self._core, self.cache
        self._begin(Step.CONNECTING)
        self._requests = requests = await RtspRequests.open(
            self._url, self._tls, self._login_cache, carried, core
        )
        self._media = media = Media(requests.connection)
        try:
            await self._carry_out(core.negotiate(), requests, media)
        except ConnectionClosed as closed:
            remembered = core.warm or requests.login.remembered
            # A camera that closed the connection in good order counts nothing that was asked over
            # it. Over UDP a session may live on, and after a break the camera may not know it yet.
            in_doubt = core.may_be_counted and (media.over_udp or not closed.by_camera)
            if not remembered or core.has_session or closed.unparsable or in_doubt:
                raise
            if requests.login.remembered:
                self._login_cache.forget()
            cache.warm_refusals += core.warm
            raise Reconnect from None

    async def _carry_out(
        self, conversation: Conversation[T], requests: RtspRequests, media: Media
    ) -> T:
        """Send the requests of a conversation and give it the answers, until it ends."""
        ask = next(conversation)
        while True:
            try:
                try:
                    response = await self._send(ask, requests, media)
                except Exception as error:  # noqa: BLE001 - the conversation handles it
                    ask = conversation.throw(error)
                else:
                    ask = conversation.send(response)
            except StopIteration as done:
                value: T = done.value
                return value

    async def _send(self, ask: Ask, requests: RtspRequests, media: Media) -> Response:
        self._begin(ask.method)
        if ask.transport is not None:
            return await self._set_up(ask, ask.transport, requests, media)
        if ask.any_answer:
            return await requests.ask(ask.method, ask.uri, ask.headers)
        return await requests.request(ask.method, ask.uri, ask.headers)

    async def _set_up(
        self, ask: Ask, transport: str, requests: RtspRequests, media: Media
    ) -> Response:
        """Send SETUP for the track whose packets are received, and begin to receive."""
        cache = self.cache
        assert cache.track is not None  # noqa: S101 - described or remembered
        headers = {"Transport": await media.offer(transport)}
        try:
            response = await requests.request(ask.method, ask.uri, headers)
        except (CameraError, RedirectError, Reconnect):
            media.close()
            raise
        media.begin(
            response.headers.get("Transport"),
            Reception(
                cache.track,
                proof=cache.proof,
                others=cache.other_types,
                unordered=media.over_udp,
            ),
        )
        self._arm_keep_alive(self._core.timeout_s / 2)
        return response

    async def methods(self) -> str:
        """The methods in the camera's answer to OPTIONS (Public header). The session must be open.

        Raises CameraError, RedirectError, ConnectionClosed.
        """
        assert self._requests is not None  # noqa: S101 - open
        response = await self._requests.request(Step.OPTIONS, self._url, {})
        return response.headers.get("Public")

    def _begin(self, step: Step) -> None:
        self.history.append((step, asyncio.get_running_loop().time()))

    def _stray(self) -> str:
        return self._requests.stray() if self._requests is not None else ""

    # ---- pictures

    async def keyframe(self) -> Keyframe:
        """The first whole keyframe. When called again, the next one.

        It has no time limit of its own. Raises CameraError when the camera ends the connection.
        """
        cache, media = self.cache, self._media
        assert media is not None and cache.track is not None  # noqa: S101, PT018 - open
        self._begin(Step.KEYFRAME)
        picture, captured_s = await media.keyframe()
        if self.warm:
            cache.warm_refusals, cache.warm_worked = 0, True
        report = media.reception.report if media.reception is not None else None
        offset_s = (
            None
            if report is None
            else report.wall_at(picture.timestamp, cache.track.clock_hz) - captured_s
        )
        return Keyframe(picture, cache.track.codec or "", captured_s, offset_s)

    def late(self, limit_s: float) -> CameraError:
        """The error for a time-out of `limit_s` seconds at the current step."""
        seen, step = self._reception, self.step
        if step is Step.KEYFRAME and seen is not None:
            return no_picture(seen, limit_s)
        what = "no connection" if step is Step.CONNECTING else f"no answer to {step}"
        return CameraError(
            Result.TIMEOUT, f"{what} within {limit_s:.1f} s{self._stray()}", step=step
        )

    # ---- keep-alive

    def _arm_keep_alive(self, every_s: float) -> None:
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        self._keep_alive = asyncio.get_running_loop().call_later(
            every_s, self._keep_session_alive, every_s
        )

    def _keep_session_alive(self, every_s: float) -> None:
        requests = self._requests
        if requests is None or requests.connection.end is not None:
            return

        def answered(response: Response) -> None:
            if requests.connection.end is None and self._core.keep_alive_answered(response.status):
                ask()

        def ask() -> None:
            reminder = self._core.keep_alive()
            requests.ask_later(reminder.method, reminder.uri, answered)

        ask()
        self._arm_keep_alive(every_s)

    # ---- end

    async def close(self) -> SessionEnd:
        """End the session and see the transport closed. Return how the session ended.

        This takes at most TEARDOWN_S + CLOSE_S. It must not be cancelled.

        Clean: TEARDOWN was answered, or the camera closed the connection after it. None: no session
        was ever opened.
        """
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        if self._reception is not None:
            self.cache.proof = self._reception.proof
        requests, media = self._requests, self._media
        if requests is not None and media is not None:
            requests.connection.on_packet = None
        try:
            if (
                requests is not None
                and media is not None
                and self._core.has_session
                and requests.connection.end is None
            ):
                self._begin(Step.TEARDOWN)
                await self._ending.tear_down(requests, over_udp=media.over_udp)
        finally:
            await self._close_transport()
        return self._core.end

    async def _close_transport(self) -> None:
        """Close the connection and see it closed."""
        if self._media is not None:
            self._media.close()
        await self._ending.close(self._requests)

    def expedite_close(self, teardown_s: float) -> None:
        """Limit the wait for TEARDOWN to `teardown_s`, also while `close` is running."""
        self._ending.expedite(teardown_s)
