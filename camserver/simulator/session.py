"""One connection to a simulated camera.

It answers RTSP requests, plays pictures, and has the camera's faults and quirks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
import zlib
from collections.abc import Coroutine
from typing import Any, cast

from camserver.rtsp.messages import (
    Headers,
    Interleaved,
    MessageParser,
    Request,
    Response,
    RtspProtocolError,
)
from camserver.rtsp.rtp import CLOCK_HZ, RtpSender
from camserver.simulator.camera import STREAMS, Fault, SimulatedCamera
from camserver.simulator.description import PAYLOAD_TYPES, describe
from camserver.simulator.login import SimulatedLogin
from camserver.simulator.packets import packets_that_arrive, picture_packets, reset, udp_endpoint
from camserver.simulator.pictures import Pictures
from camserver.simulator.quirks import (
    MOVED,
    TIMEOUT_S,
    base_header,
    encode,
    is_track,
)

REPORT_S = 5.0
SLOW_TICK_S = 0.02
MAX_BACKLOG_BYTES = 4 << 20
"""With more unsent bytes pictures are dropped, as in a real camera with a slow client."""
PUBLIC = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"


class SimulatedConnection(asyncio.Protocol):
    """The server's side of one RTSP connection, TCP interleaved or UDP."""

    def __init__(
        self, camera: SimulatedCamera, streams: dict[str, Pictures], peers: set[SimulatedConnection]
    ) -> None:
        self._peers = peers  # all connections of the camera
        self._camera = camera
        self._streams = streams
        self._stream = STREAMS[0]
        self._parser = MessageParser()
        self._login = SimulatedLogin(camera)
        self._session = secrets.token_hex(8)
        self._torn_down = False
        self._one_too_many = False
        self._described = False
        self._options_seen = False
        self._tracks_set_up = 0
        self._channels = (0, 1)
        self._play_request: Request | None = None  # not answered yet
        self._timeout: asyncio.TimerHandle | None = None
        self._udp: tuple[asyncio.DatagramTransport, asyncio.DatagramTransport] | None = None
        self._player: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._slow = bytearray()

    # ---- connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Record the new connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._peers.add(self)
        self._camera.opened(_now())

    def data_received(self, data: bytes) -> None:
        """Answer requests. RTCP from the client is ignored."""
        try:
            for message in self._parser.feed(data):
                if isinstance(message, Request):
                    self._answer(message)
                elif isinstance(message, Response) and self._has("server-requests"):
                    self._start_playing()
        except RtspProtocolError:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        """Record the end of the connection.

        The last data of the client may still be unread, because writing failed first. So it is read
        here.
        """
        if self._transport.get_extra_info("sslcontext") is None:
            with contextlib.suppress(OSError, ValueError):
                self.data_received(
                    os.read(self._transport.get_extra_info("socket").fileno(), 65536)
                )
        self._stop_playing()
        if self._timeout is not None:
            self._timeout.cancel()
        self._peers.discard(self)
        self._camera.closed(self, torn_down=self._torn_down, now=_now())

    def abort(self) -> None:
        """End at once, as a camera that loses power."""
        self._transport.abort()

    # ---- requests

    def _has(self, quirk: str) -> bool:
        return quirk in self._camera.quirks

    @property
    def _fault(self) -> Fault:
        return self._camera.fault.on(self._stream)

    def _answer(self, request: Request) -> None:
        method = request.method
        self._camera.requests.append(method)
        self._stream = next((s for s in self._streams if f"/{s}" in request.uri), self._stream)
        if method == "TEARDOWN":
            self._torn_down = True
            self._stop_playing()
            self._camera.torn_down(self)
        if self._has("timeout") and method in ("PLAY", "OPTIONS"):
            self._expire_later()
        if self._fault.stalls(method):
            return
        if (status := self._fault.refuses(method)) is not None:
            self._reply(request, status)
        elif method != "OPTIONS" and not self._login.accepts(request):
            self._refuse_login(request)
        elif self._has("redirect") and method == "DESCRIBE" and MOVED not in request.uri:
            self._reply(
                request, 302, {"Location": request.uri.replace("/stream", f"{MOVED}/stream")}
            )
        else:
            self._login.next_request()
            self._serve(request)

    def _serve(self, request: Request) -> None:
        match request.method:
            case "OPTIONS":
                self._options_seen = True
                self._reply(request, 200, {"Public": PUBLIC})
            case "DESCRIBE" if not any(f"/{s}" in request.uri for s in self._streams):
                self._reply(request, 404)
            case "DESCRIBE" if self._has("options-first") and not self._options_seen:
                self._reply(request, 400)
            case "DESCRIBE":
                base = request.uri.rstrip("/") + "/"
                self._described = True
                session = {"Session": self._session} if self._has("session-describe") else {}
                headers = (
                    base_header(self._camera.quirks, base)
                    | session
                    | {"Content-Type": "application/sdp"}
                )
                parameter_sets = self._streams[self._stream].parameter_sets
                self._reply(request, 200, headers, describe(self._camera, parameter_sets, base))
            case "SETUP":
                self._set_up(request)
            case "PLAY":
                self._on_play(request)
            case "GET_PARAMETER" if self._has("timeout"):
                self._reply(request, 501)
            case "GET_PARAMETER" | "TEARDOWN":
                self._reply(request, 200, {"Session": self._session})
            case _:
                self._reply(request, 501)

    def _refuse_login(self, request: Request) -> None:
        """Answer 401 with a challenge.

        The answer to a login with another connection's nonce depends on the camera's quirks.
        """
        refusal = self._login.refuse(request)
        if refusal.answered:
            offered = {"WWW-Authenticate": ", ".join(refusal.challenges)}
            self._reply(request, 401, offered if refusal.challenges else {})
        if refusal.closes:
            self._transport.close()

    def _on_play(self, request: Request) -> None:
        if self._has("all-tracks") and self._tracks_set_up < 2:
            self._reply(request, 455)
        elif self._has("session-describe") and request.headers.get("Session") != self._session:
            self._reply(request, 454)
        elif self._one_too_many:
            self._answer_play(request)
            if self._camera.full_voice == "eof-after-play":
                self._transport.close()
        elif self._has("play-needs-describe") and not self._described:
            self._answer_play(request)
            self._transport.close()
        elif self._has("rtp-early"):
            self._play_request = request
            self._start_playing()
        else:
            self._answer_play(request)
            if self._has("server-requests"):
                self._transport.write(
                    Request("OPTIONS", request.uri, Headers({"Cseq": "1"})).encode()
                )
            else:
                self._start_playing()

    def _set_up(self, request: Request) -> None:
        self._tracks_set_up += 1
        if self._has("all-tracks") and request.uri.endswith("/trackID=1"):
            self._accept(request, request.headers.get("Transport"))
            return
        if not is_track(self._camera.quirks, request.uri):
            self._reply(request, 404)
            return
        if self._has("describe-first") and not self._described:
            self._reply(request, 455)
            return
        if not self._camera.admit(self, _now()) and self._says_full(request):
            return
        transport = request.headers.get("Transport")
        tcp = "RTP/AVP/TCP" in transport.upper()
        if self._has("no-tcp" if tcp else "no-udp"):
            self._reply(request, 461)
        elif tcp:
            first, second = self._channels = (4, 5) if self._has("renumbered") else (0, 1)
            self._accept(request, f"RTP/AVP/TCP;unicast;interleaved={first}-{second}")
        elif "client_port=" in transport:
            ports = transport.split("client_port=")[1].split(";")[0].split("-")
            self._spawn(self._set_up_udp(request, int(ports[0]), int(ports[-1])), "udp")
        else:
            self._reply(request, 461)

    async def _set_up_udp(self, request: Request, rtp_port: int, rtcp_port: int) -> None:
        host = self._transport.get_extra_info("peername")[0]
        local = self._transport.get_extra_info("sockname")[0]
        pair = [await udp_endpoint(local, host, port) for port in (rtp_port, rtcp_port)]
        self._close_udp()  # the ports of an earlier SETUP on this connection
        self._udp = pair[0], pair[1]
        mine = [t.get_extra_info("sockname")[1] for t in pair]
        self._accept(
            request,
            f"RTP/AVP;unicast;client_port={rtp_port}-{rtcp_port};server_port={mine[0]}-{mine[1]}",
        )

    def _accept(self, request: Request, transport: str) -> None:
        self._reply(request, 200, self._session_header() | {"Transport": transport})

    def _says_full(self, request: Request) -> bool:
        """Refuse a session by `full_voice`. False when the camera refuses only at PLAY."""
        match self._camera.full_voice:
            case "eof-after-play" | "silence":
                self._one_too_many = True
                return False
            case "rst":
                reset(self._transport)
            case status:
                self._reply(request, int(status))
        return True

    def _close_udp(self) -> None:
        for transport in self._udp or ():
            transport.close()
        self._udp = None

    def _session_header(self) -> dict[str, str]:
        if self._has("session-describe"):
            return {}
        return {"Session": f"{self._session};timeout={TIMEOUT_S if self._has('timeout') else 60}"}

    def _expire_later(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
        self._timeout = asyncio.get_running_loop().call_later(TIMEOUT_S, self._transport.close)

    def _answer_play(self, request: Request) -> None:
        self._reply(request, 200, {"Session": self._session, "Range": "npt=0.000-"})

    def _reply(
        self,
        request: Request,
        status: int,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        fields = Headers()
        fields["CSeq"] = request.headers.get("CSeq", "0")
        for name, value in (headers or {}).items():
            if name != "Session" or not self._has("no-session-id"):
                fields[name] = value
        self._transport.write(encode(self._camera.quirks, Response(status, fields, body)))

    # ---- playing

    def _start_playing(self) -> None:
        if self._player is None and self._fault.kind != "silent":
            self._player = self._spawn(self._play(), "play")

    def _stop_playing(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._player = None
        self._close_udp()

    async def _play(self) -> None:
        camera = self._camera
        rtp = RtpSender(PAYLOAD_TYPES[camera.codec], secrets.randbits(32), secrets.randbits(16))
        start, begun = time.time(), _now()
        # When a client comes, a camera is somewhere in its group of pictures. A few cameras make a
        # keyframe for the client.
        number = (
            0
            if camera.join_at_keyframe
            else int((start + zlib.crc32(camera.id.encode()) % 97) * camera.fps) % camera.gop
        )
        reported = 0.0
        began = camera.shows(start)
        for frame in range(2**40):
            due = start + frame / camera.fps
            # A camera has its own clock: that of the host may be set
            await asyncio.sleep(max(0.0, begun + frame / camera.fps - _now()))
            stamp = int((start if self._has("no-clock") else due) * CLOCK_HZ)
            if due - reported >= REPORT_S:
                self._send(1, rtp.sender_report(due + camera.clock_offset_s, stamp))
                reported = due
            index = 0 if camera.codec == "mjpeg" else number % camera.gop
            began = camera.shows(due) if index == 0 else began
            number += 1
            backlog_bytes = self._transport.get_write_buffer_size() + len(self._slow)
            if (
                index == 0 and self._fault.kind == "no-keyframe"
            ) or backlog_bytes > MAX_BACKLOG_BYTES:
                continue
            if not self._send_picture(rtp, index, stamp, began):
                return
            if self._play_request is not None:
                self._answer_play(self._play_request)
                self._play_request = None

    def _send_picture(self, rtp: RtpSender, index: int, stamp: int, began: int) -> bool:
        """Send one picture. False when the connection was closed in the middle of it."""
        camera, fault, pictures = self._camera, self._fault, self._streams[self._stream]
        if index == 0:
            sent = pictures.sent(camera.name, began)
            if not camera.keyframes or camera.keyframes[-1] != sent:
                camera.keyframes.append(sent)
        payloads = pictures.payloads(camera.name, index, began)
        packets = picture_packets(camera, fault, rtp, payloads, stamp, keyframe=index == 0)
        if fault.kind == "cut" and index == 0:
            for packet in packets[: len(packets) // 2]:
                self._send(0, packet)
            self._transport.close()
            return False
        self._send_packets(packets)
        return True

    def _send_packets(self, packets: list[bytes]) -> None:
        """Send a picture's packets, with the other data that this camera sends between them."""
        camera, fault = self._camera, self._fault
        for packet in packets_that_arrive(camera, fault, packets):
            self._send(0, packet)
        over_tcp = self._udp is None and fault.kind != "slow"
        if self._has("stray-bytes") and over_tcp and not self._transport.is_closing():
            self._transport.write(bytes(4))

    def _send(self, channel: int, packet: bytes) -> None:
        if self._udp is not None:
            self._udp[channel].sendto(packet)
        elif self._fault.kind == "slow":
            self._slow += Interleaved(self._channels[channel], packet).encode()
            if not any(t.get_name() == "slow" for t in self._tasks):
                self._spawn(self._drip(), "slow")
        elif not self._transport.is_closing():
            self._transport.write(Interleaved(self._channels[channel], packet).encode())

    async def _drip(self) -> None:
        step = max(1, int(self._fault.number * SLOW_TICK_S))
        while self._slow:
            self._transport.write(bytes(self._slow[:step]))
            del self._slow[:step]
            await asyncio.sleep(SLOW_TICK_S)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _now() -> float:
    return asyncio.get_running_loop().time()
