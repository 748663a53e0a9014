"""Receive the packets of one session, and give its keyframes.

The packets come by channels of the session's connection, or by a pair of UDP ports.
"""

from __future__ import annotations

import asyncio
import re
import time

from camserver.errors import CameraError
from camserver.model import Result
from camserver.rtsp.access_unit import AccessUnit
from camserver.rtsp.aio.connection import RtspConnection
from camserver.rtsp.aio.udp import UdpPair
from camserver.rtsp.reception import Reception


class Media:
    """The receiver of one connection's packets.

    Call `offer`, then `begin` with the camera's answer, then `keyframe`, and `close` at the end.
    """

    def __init__(self, connection: RtspConnection) -> None:
        self._connection = connection
        self._udp: UdpPair | None = None
        self._channels = (0, 1)
        self._found: asyncio.Future[tuple[AccessUnit, float]] | None = None
        self.reception: Reception | None = None
        connection.on_end = self._ended

    @property
    def over_udp(self) -> bool:
        """Whether packets come by UDP. Then a session may outlive its connection."""
        return self._udp is not None

    async def offer(self, transport: str) -> str:
        """The Transport header of a SETUP (RFC 2326, 12.39). For "udp" a pair of ports is opened.

        Raises OSError when no pair is free.
        """
        self.close()
        if transport != "udp":
            return "RTP/AVP/TCP;unicast;interleaved=0-1"
        self._udp = await UdpPair.bind(
            self._connection.local_host, self._connection.remote_host, self._packet
        )
        return f"RTP/AVP;unicast;client_port={self._udp.ports[0]}-{self._udp.ports[1]}"

    def begin(self, answered: str, reception: Reception) -> None:
        """Receive packets from now on. `answered` is the camera's Transport header."""
        if match := re.search(r"interleaved\s*=\s*([0-9]{1,3})(?:-([0-9]{1,3}))?", answered):
            self._channels = int(match[1]), int(match[2] or int(match[1]) + 1)
        if self._udp is not None:
            if match := re.search(r"source\s*=\s*([^;,\s]{1,64})", answered):
                self._udp.accept(match[1])
            if match := re.search(r"server_port\s*=\s*([0-9]{1,5})(?:-([0-9]{1,5}))?", answered):
                self._udp.punch(int(match[1]), int(match[2] or int(match[1]) + 1))
        self.reception = reception
        self._found = asyncio.get_running_loop().create_future()
        self._connection.on_packet = self._packet

    async def keyframe(self) -> tuple[AccessUnit, float]:
        """The next whole keyframe, and the time when it was complete (seconds since 1970).

        Raises CameraError.
        """
        assert self._found is not None  # noqa: S101 - begun
        found = await self._found
        # For the next call
        self._found = asyncio.get_running_loop().create_future()
        return found

    def close(self) -> None:
        """Close the UDP ports, if there are any. Idempotent."""
        if self._udp is not None:
            self._udp.close()
            self._udp = None

    def _packet(self, channel: int, data: bytes) -> None:
        """Take a packet: RTP on the first channel of the pair, RTCP on the second."""
        if self._udp is None:
            if channel not in self._channels:
                return
            channel = self._channels.index(channel)
        if self.reception is None:
            return
        if channel == 1:
            self.reception.control(data)
            return
        for picture in self.reception.packet(data, asyncio.get_running_loop().time()):
            if picture.key and picture.whole and self._found is not None and not self._found.done():
                self._found.set_result((picture, time.time()))

    def _ended(self) -> None:
        if self._found is not None and not self._found.done():
            text = f"{self._connection.end} before a whole keyframe came"
            self._found.set_exception(CameraError(Result.UNREACHABLE, text))
            # Mark the exception as retrieved, because no task may be waiting any more
            self._found.exception()
