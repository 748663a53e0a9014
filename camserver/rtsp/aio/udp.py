"""A pair of UDP ports for RTP and RTCP: an even port and the next one (RFC 3550, 11)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from functools import partial

TRIES = 50
RECEIVE_BUFFER_BYTES = 1 << 20
"""The requested buffer. A keyframe comes in one burst. The kernel may grant less (rmem_max)."""


class UdpPair:
    """Passes the camera's packets to `listener(0 or 1, data)`. Other senders are ignored."""

    def __init__(
        self,
        host: str,
        sockets: tuple[socket.socket, socket.socket],
        listener: Callable[[int, bytes], None],
    ) -> None:
        self.ports: tuple[int, int] = (sockets[0].getsockname()[1], sockets[1].getsockname()[1])
        self._host = host
        self._senders = {host}
        self._sockets = sockets
        self._transports: list[asyncio.DatagramTransport] = []
        self._listener = listener

    @classmethod
    async def bind(cls, local: str, remote: str, listener: Callable[[int, bytes], None]) -> UdpPair:
        """Bind a pair of ports at `local`. Raises OSError when no pair is free."""
        family = socket.AF_INET6 if ":" in local else socket.AF_INET
        for _ in range(TRIES):
            with contextlib.ExitStack() as stack:
                pair = [
                    stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2)
                ]
                try:
                    pair[0].bind((local, 0))
                    port = pair[0].getsockname()[1]
                    if port % 2:
                        continue
                    pair[1].bind((local, port + 1))
                except OSError:
                    continue
                stack.pop_all()
                made = cls(remote, (pair[0], pair[1]), listener)
                try:
                    await made._listen()
                except BaseException:
                    made.close()
                    raise
                return made
        raise OSError("no pair of UDP ports is free")

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for channel, sock in enumerate(self._sockets):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            ear = _RtpProtocol(self._senders, channel, self._listener)
            self._transports.append(
                (await loop.create_datagram_endpoint(partial(_same, ear), sock=sock))[0]
            )

    def accept(self, source: str) -> None:
        """Accept packets from `source` too, the address that the camera names as its source.

        Only a literal unicast address is accepted.
        """
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(source)
            if not (address.is_multicast or address.is_unspecified):
                self._senders.add(str(address))

    def punch(self, *ports: int) -> None:
        """Send a packet to the camera's ports, so that a firewall accepts the camera's packets."""
        for transport, port in zip(self._transports, ports, strict=False):
            if 0 < port < 65536:
                transport.sendto(b"\x80\x00\x00\x00", (self._host, port))

    def close(self) -> None:
        """Close both ports."""
        for transport in self._transports:
            transport.close()
        for sock in self._sockets[len(self._transports) :]:  # sockets without a transport yet
            sock.close()


def _same(ear: _RtpProtocol) -> _RtpProtocol:
    return ear


class _RtpProtocol(asyncio.DatagramProtocol):
    def __init__(
        self, senders: set[str], channel: int, listener: Callable[[int, bytes], None]
    ) -> None:
        self._senders, self._channel, self._listener = senders, channel, listener

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr[0] in self._senders:
            self._listener(self._channel, data)
