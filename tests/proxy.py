"""A proxy that damages key pictures on the way from a camera, over interleaved TCP and UDP.

A seed decides for each session which damage it makes, where, and after how many key pictures it
stops.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from functools import partial

from camserver.rtsp.messages import Interleaved, MessageParser, Request, Response

Packets = list[bytes]


def drop(packets: Packets, dice: random.Random) -> Packets:
    """Drop 1 to 3 packets at random places."""
    lost = set(dice.sample(range(len(packets)), min(len(packets), dice.randint(1, 3))))
    return [p for n, p in enumerate(packets) if n not in lost]


def burst(packets: Packets, dice: random.Random) -> Packets:
    """Drop a run of packets, which may be the beginning or all packets."""
    at = dice.randrange(len(packets))
    return packets[:at] + packets[at + dice.randint(1, len(packets)) :]


def cut(packets: Packets, dice: random.Random) -> Packets:
    """Drop all packets from a random place on, including the marker."""
    return packets[: dice.randrange(len(packets))]


def marker_only(packets: Packets, _: random.Random) -> Packets:
    """Drop the last packet, which has the marker."""
    return packets[:-1]


def swap(packets: Packets, dice: random.Random) -> Packets:
    """Swap two neighbouring packets."""
    at = dice.randrange(len(packets) - 1)
    return [*packets[:at], packets[at + 1], packets[at], *packets[at + 2 :]]


def shuffle(packets: Packets, dice: random.Random) -> Packets:
    """Shuffle a window of packets."""
    at, size = dice.randrange(len(packets)), dice.randint(2, 12)
    window = packets[at : at + size]
    dice.shuffle(window)
    return packets[:at] + window + packets[at + size :]


def double(packets: Packets, dice: random.Random) -> Packets:
    """Send one packet again, at once or later."""
    at = dice.randrange(len(packets))
    later = dice.randint(at, len(packets))
    return [*packets[:later], packets[at], *packets[later:]]


def double_for_lost(packets: Packets, dice: random.Random) -> Packets:
    """Send one packet twice instead of another one, so the number of packets stays right."""
    a, b = dice.sample(range(len(packets)), 2)
    return [packets[a] if n == b else p for n, p in enumerate(packets)]


DAMAGES: tuple[Callable[[Packets, random.Random], Packets], ...] = (
    drop,
    burst,
    cut,
    marker_only,
    swap,
    shuffle,
    double,
    double_for_lost,
)


class DamagingProxy:
    """A proxy for one camera.

    `dice` and `spare_after` (key pictures) apply to sessions that begin after they were set.
    """

    def __init__(self, codec: str, camera_port: int) -> None:
        self.codec = codec
        self.dice = random.Random(0)
        self.spare_after: float = 1
        self.damaged = 0
        self._camera_port = camera_port
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen, and return the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(partial(_Client, self), "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def connect(self, client: _Client) -> _Camera:
        loop = asyncio.get_running_loop()
        return (
            await loop.create_connection(partial(_Camera, client), "127.0.0.1", self._camera_port)
        )[1]

    def is_key(self, packets: Packets) -> bool:
        """Whether `packets` are a key picture.

        The simulated camera begins key pictures with parameter sets. All pictures of MJPEG are key
        pictures.
        """
        first = packets[0][12]
        return self.codec == "mjpeg" or (
            first & 0x1F == 7 if self.codec == "h264" else first >> 1 & 0x3F == 32
        )


class _Client(asyncio.Protocol):
    """The client's connection. It owns the camera's connection and the UDP ports between both."""

    def __init__(self, proxy: DamagingProxy) -> None:
        self.proxy = proxy
        self._dice, self._spare_after = proxy.dice, proxy.spare_after
        self._damage = self._dice.choice(DAMAGES)
        self._parser = MessageParser()
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._picture: Packets = []
        self._keys = 0
        self.udp: list[asyncio.DatagramTransport] = []
        self.client_ports: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._pump_task = asyncio.create_task(self._pump())

    def data_received(self, data: bytes) -> None:
        self._queue.put_nowait(data)

    def eof_received(self) -> None:
        self._queue.put_nowait(b"")

    def connection_lost(self, _: Exception | None) -> None:
        self._queue.put_nowait(b"")

    async def _pump(self) -> None:
        """Forward what the client sends, in order. A SETUP over UDP gets the proxy's own ports."""
        camera = await self.proxy.connect(self)
        while data := await self._queue.get():
            for message in self._parser.feed(data):
                if isinstance(message, Request) and "client_port=" in message.headers.get(
                    "Transport"
                ):
                    await self._open_udp(message)
                camera.transport.write(message.encode())
        camera.transport.close()
        for transport in self.udp:
            transport.close()

    async def _open_udp(self, setup: Request) -> None:
        offer = setup.headers.get("Transport")
        self.client_ports = [int(port) for port in re.findall(r"client_port=(\d+)-(\d+)", offer)[0]]
        loop = asyncio.get_running_loop()
        self.udp = [
            (
                await loop.create_datagram_endpoint(
                    partial(_FromCamera, self, channel), ("127.0.0.1", 0)
                )
            )[0]
            for channel in (0, 1)
        ]
        mine = "-".join(str(t.get_extra_info("sockname")[1]) for t in self.udp)
        setup.headers["Transport"] = re.sub(r"client_port=[\d-]+", f"client_port={mine}", offer)

    def packet(self, channel: int, packet: bytes) -> None:
        """Handle a packet of the camera. Complete pictures are sent on, damaged or not."""
        if channel != 0:
            self._send(channel, packet)
            return
        self._picture.append(packet)
        if not packet[1] & 0x80:
            return
        packets, self._picture = self._picture, []
        if self.proxy.is_key(packets):
            self._keys += 1
            # A single packet is what a busy machine has left of a picture: it is damaged already
            if self._keys <= self._spare_after and len(packets) > 1:
                packets = self._damage(packets, self._dice)
                self.proxy.damaged += 1
        for each in packets:
            self._send(0, each)

    def _send(self, channel: int, packet: bytes) -> None:
        if self.udp:
            if not self.udp[channel].is_closing():
                self.udp[channel].sendto(packet, ("127.0.0.1", self.client_ports[channel]))
        elif not self.transport.is_closing():
            self.transport.write(Interleaved(channel, packet).encode())


class _Camera(asyncio.Protocol):
    """The camera's connection."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._parser = MessageParser()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._parser.feed(data):
            if isinstance(message, Interleaved):
                self._client.packet(message.channel, message.payload)
                continue
            if isinstance(message, Response) and "server_port=" in message.headers.get("Transport"):
                mine = "-".join(str(t.get_extra_info("sockname")[1]) for t in self._client.udp)
                message.headers["Transport"] = re.sub(
                    r"server_port=[\d-]+", f"server_port={mine}", message.headers.get("Transport")
                )
            if not self._client.transport.is_closing():
                self._client.transport.write(message.encode())

    def connection_lost(self, _: Exception | None) -> None:
        self._client.transport.close()


class _FromCamera(asyncio.DatagramProtocol):
    def __init__(self, client: _Client, channel: int) -> None:
        self._client, self._channel = client, channel

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        # The client's packets only open a firewall, so they are not forwarded
        if addr[1] not in self._client.client_ports:
            self._client.packet(self._channel, data)
