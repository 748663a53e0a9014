"""One RTSP session of ours: open, first whole key picture, and an honest end. asyncio, TCP or UDP, plain or TLS.

Rule one lives in `close`: TEARDOWN is sent, its answer awaited, the transport closed and *seen* closed; what is known of
the end is its value. Cancelling any await here leaves a session that `close` can still end.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from camserver.errors import CameraError
from camserver.records import Result, SessionEnd
from camserver.rtsp.jpeg import JpegDepacketiser
from camserver.rtsp.memory import Memory, Moved, Shot, Unsupported
from camserver.rtsp.messages import Response
from camserver.rtsp.nal import H264Depacketiser, H265Depacketiser
from camserver.rtsp.pictures import CodedPicture, Depacketiser, PictureAssembler
from camserver.rtsp.receive import ReorderBuffer, RtpPacket, SenderReport
from camserver.rtsp.refusals import refusal
from camserver.rtsp.sdp import Description, control_url, parse_sdp
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
MAX_WARM_REFUSALS = 2
NOT_KNOWN = frozenset((400, 404, 405, 454, 501, 551))
"""Answers to GET_PARAMETER that mean: ask something else to keep the session alive."""


@dataclass(slots=True)
class _Seen:
    pictures: int = 0
    torn_keys: int = 0
    report: SenderReport | None = None
    last_torn: str = field(default="")


class RtspSession:
    """One session: `open`, `key_picture`, `close`, in this order; `close` always, whatever the others did."""

    def __init__(self, url: str, memory: Memory, *, tls: ssl.SSLContext | None = None,
                 on_step: Callable[[str], None] = lambda _: None) -> None:
        self._url = url
        self._on_step = on_step
        self._memory = memory
        self._tls = tls
        self._wire: Wire | None = None
        self._udp: UdpPair | None = None
        self._session = ""          # the Session header's id
        self._set_up = False        # a SETUP went out: the camera may count a session
        self._admitted = False      # it was answered: there is one
        self._seen = _Seen()
        self._channels = (0, 1)
        self._reorder = ReorderBuffer()
        self._assembler: PictureAssembler | None = None
        self._found: asyncio.Future[tuple[CodedPicture, float]] | None = None
        self._keep_alive: asyncio.TimerHandle | None = None
        self._hurried_s: float | None = None
        self._ending: asyncio.Timeout | None = None
        self._step = "connecting"
        self.description: Description | None = None
        """What the camera offers, when it was asked."""
        self.warm = False
        """Whether it was opened without DESCRIBE."""

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
            if self._wire is None:
                await self._connect()
            self.warm = self._memory.track is not None and self._memory.warm_refusals < MAX_WARM_REFUSALS
            if not self.warm:
                await self._describe()
            try:
                await self._setup()
            except CameraError as error:
                if not self.warm or error.result in (Result.FULL, Result.AUTH):
                    raise
                await self._describe()      # what we remembered is no longer so, or it never takes this
                await self._setup()
                self.warm = False
                self._memory.warm_refusals += 1
            await self._play()
        except WireClosed as closed:
            kind = Unsupported if closed.unparsable and not self._set_up else CameraError
            raise kind(Result.UNREACHABLE, f"{closed} at {self.step}") from None
        except (OSError, ValueError) as error:      # the host has no port left, or an answer held what nobody writes
            raise CameraError(Result.ERROR, f"{type(error).__name__} at {self.step}") from None

    async def _connect(self) -> None:
        parts = urlsplit(self._url)
        port = parts.port or PORTS[parts.scheme]
        loop = asyncio.get_running_loop()
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
        response = await self._request("DESCRIBE", self._url, {"Accept": "application/sdp"})
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
        memory.track_url = control_url(memory.base, track.control)
        memory.track = track

    async def methods(self) -> str:
        """What the camera says to OPTIONS, in an open session. Raises CameraError, Moved, WireClosed."""
        return (await self._request("OPTIONS", self._url, {})).headers.get("Public")

    async def _setup(self) -> None:
        memory = self._memory
        try:
            await self._setup_with(memory.transport)
        except CameraError as error:
            if "461" not in str(error):
                raise
            memory.transport = "udp" if memory.transport == "tcp" else "tcp"
            await self._setup_with(memory.transport)

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
        except (CameraError, Moved):
            self._set_up = False        # refused: no session was made
            self._close_udp()
            raise
        self._admitted = True
        self._session, _, more = response.headers.get("Session").partition(";")
        self._session = self._session.strip()
        given = response.headers.get("Transport")
        if match := re.search(r"interleaved\s*=\s*([0-9]{1,3})(?:-([0-9]{1,3}))?", given):
            self._channels = int(match[1]), int(match[2] or int(match[1]) + 1)
        if self._udp is not None and (match := re.search(r"server_port\s*=\s*([0-9]{1,5})(?:-([0-9]{1,5}))?", given)):
            self._udp.punch(int(match[1]), int(match[2] or int(match[1]) + 1))
        timeout = re.search(r"timeout\s*=\s*([0-9]{1,5})", more)
        self._arm_keep_alive(max(1, int(timeout[1]) if timeout else 60) / 2)
        depacketiser: Depacketiser
        match memory.track.codec:
            case "h264":
                depacketiser = H264Depacketiser(memory.track.parameter_sets())
            case "hevc":
                depacketiser = H265Depacketiser(memory.track.parameter_sets())
            case _:
                depacketiser = JpegDepacketiser()
        self._assembler = PictureAssembler(depacketiser, proof=memory.proof)
        self._found = asyncio.get_running_loop().create_future()
        self._wire.on_packet = self._packet

    async def _play(self) -> None:
        await self._request("PLAY", self._memory.base, {"Range": "npt=0.000-"})

    async def _request(self, method: str, uri: str, headers: dict[str, str]) -> Response:
        """An answer of 200. Raises CameraError with the meaning of any other, Moved, WireClosed."""
        response = await self._ask(method, uri, headers)
        if response.status in (301, 302, 303, 307, 308):
            raise Moved(response.headers.get("Location"))
        if response.status == 401 and not self._memory.login.username:
            raise CameraError(Result.AUTH, f"it asks for a login: give username and password (401 to {method})",
                              SessionEnd.NONE)
        if response.status != 200:
            raise refusal(method, response.status)
        return response

    async def _ask(self, method: str, uri: str, headers: dict[str, str]) -> Response:
        """Any answer, after the login. Raises WireClosed."""
        assert self._wire is not None  # noqa: S101 - connected
        self.step = method
        login = self._memory.login
        for attempt in range(3):
            response = await self._wire.request(method, uri, self._fields(method, uri) | headers)
            # What was answered first may have been remembered, and too old. What was answered next was this request's own
            # challenge: a third try would only help an account to lock.
            if response.status != 401 or not login.take(response.headers.get("WWW-Authenticate")) or (
                    attempt > 0 and not login.stale):
                break
        return response

    # ---- pictures

    async def key_picture(self) -> Shot:
        """The first whole key picture; called again, the next one. Waits without a limit of its own.

        Raises CameraError when the camera ends it.
        """
        assert self._found is not None  # noqa: S101 - open
        assert self._memory.track is not None  # noqa: S101 - open
        self.step = "a keyframe"
        picture, captured_s = await self._found
        self._found = asyncio.get_running_loop().create_future()    # for the next one, if anybody asks
        if self.warm:
            self._memory.warm_refusals = 0
        report = self._seen.report
        offset_s = None if report is None else report.wall_at(picture.timestamp, self._memory.track.clock_hz) - captured_s
        return Shot(picture, self._memory.track.codec or "", captured_s, offset_s)

    @property
    def pictures(self) -> int:
        """How many pictures came, of whatever kind."""
        return self._seen.pictures

    def late(self, limit_s: float) -> CameraError:
        """What a time-out of `limit_s` seconds means at the step it struck."""
        seen = self._seen
        if self.step != "a keyframe":
            what = "no connection" if self.step == "connecting" else f"no answer to {self.step}"
            return CameraError(Result.TIMEOUT, f"{what} within {limit_s:.1f} s")
        if seen.torn_keys:
            return CameraError(Result.BAD_PICTURE, f"every keyframe within {limit_s:.1f} s was incomplete")
        if self._assembler is not None and self._assembler.unproved_key:
            return CameraError(Result.NO_KEYFRAME, f"a keyframe came, but within {limit_s:.1f} s nothing after it that "
                               "proves it whole (a camera that sends less than a picture in that time?)")
        if seen.pictures:
            return CameraError(Result.NO_KEYFRAME, f"{seen.pictures} pictures but no keyframe within {limit_s:.1f} s")
        return CameraError(Result.TIMEOUT, f"silent after PLAY, no picture within {limit_s:.1f} s")

    def _packet(self, channel: int, data: bytes) -> None:
        """RTP on the first of the pair, RTCP on the second."""
        if self._udp is None:
            if channel not in self._channels:
                return
            channel = self._channels.index(channel)
        if channel == 1:
            self._seen.report = SenderReport.parse(data) or self._seen.report
            return
        packet = RtpPacket.parse(data)
        if packet is None or self._assembler is None:
            return
        now = asyncio.get_running_loop().time()
        for ordered in self._reorder.feed(packet, now) if self._udp is not None else (packet,):
            for picture in self._assembler.feed(ordered):
                self._picture(picture)

    def _picture(self, picture: CodedPicture) -> None:
        if self._found is None or self._found.done():
            return
        self._seen.pictures += 1
        if picture.key and picture.whole:
            self._found.set_result((picture, time.time()))
        elif picture.key:
            self._seen.torn_keys += 1

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
        if self._assembler is not None:
            self._memory.proof = self._assembler.proof
        wire = self._wire
        if wire is None:
            return SessionEnd.NONE
        wire.on_packet = None
        end = SessionEnd.UNCLEAN if self._set_up else SessionEnd.NONE
        try:
            if self._admitted and wire.end is None and await self._tear_down():
                end = SessionEnd.CLEAN
        finally:
            self._close_udp()
            wire.close()
            try:
                async with asyncio.timeout(CLOSE_S if self._hurried_s is None else RELEASE_S) as self._ending:
                    await asyncio.shield(wire.closed)
            except TimeoutError:
                wire.abort()
                await wire.closed
        return end

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
        if authorization := self._memory.login.header(method, uri, secrets.token_hex(8)):
            fields["Authorization"] = authorization
        return fields
