"""A network in memory, on a virtual clock: servers and connections without sockets.

So whole fleets run deterministically, and an hour takes seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from support import VirtualLoop

LATENCY_S = 0.001
Factory = Callable[[], Any]


class MemoryNet(VirtualLoop):
    """An event loop whose servers and TCP connections are in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.listening: dict[tuple[str, int], Factory] = {}
        self.names: dict[str, str] = {}
        """Addresses of host names. Other hosts are their own addresses."""
        self._ports = 40_000

    def new_port(self) -> int:
        self._ports += 1
        return self._ports

    async def create_server(  # type: ignore[override]
        self, factory: Factory, host: str, port: int = 0, **_: Any
    ) -> Any:
        address = host, port or self.new_port()
        self.listening[address] = factory
        return MemoryServer(self, address)

    async def create_connection(  # type: ignore[override]
        self, factory: Factory, host: str, port: int, **_: Any
    ) -> Any:
        await asyncio.sleep(LATENCY_S)
        address = self.names.get(host, host), port
        serve = self.listening.get(address)
        if serve is None:
            raise ConnectionRefusedError
        mine = "127.0.0.1", self.new_port()
        client, server = MemoryTransport(self, mine, address), MemoryTransport(self, address, mine)
        client.peer, server.peer = server, client
        server.connect(serve())
        client.connect(factory())
        return client, client.protocol


class MemoryServer:
    """What create_server gives."""

    def __init__(self, net: MemoryNet, address: tuple[str, int]) -> None:
        self._net = net
        self._address = address
        self.sockets = [self]

    def getsockname(self) -> tuple[str, int]:
        return self._address

    def close(self) -> None:
        self._net.listening.pop(self._address, None)


class NoSocket:
    """Where code asks for the socket."""

    def fileno(self) -> int:
        raise OSError

    def setsockopt(self, *_: Any) -> None:
        """Do nothing."""


class MemoryTransport(asyncio.Transport):
    """One side of a connection. What is written comes to the other side LATENCY_S later."""

    peer: MemoryTransport
    protocol: Any

    def __init__(self, net: MemoryNet, mine: tuple[str, int], other: tuple[str, int]) -> None:
        super().__init__({"sockname": mine, "peername": other, "socket": NoSocket()})
        self._net = net
        # b"": the other side has closed
        self._on_the_way: deque[bytes] = deque()
        self._inbox: deque[bytes] = deque()
        self._paused = False
        self._closing = False
        self._is_lost = False

    def connect(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return sum(len(data) for data in self.peer._inbox)

    def write(self, data: Any) -> None:
        if not self._closing and data:
            self.peer._send_to(bytes(data))

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._net.call_soon(self._deliver)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.peer._send_to(b"")
            self._net.call_soon(self._lost, None)

    def abort(self) -> None:
        if not self._is_lost:
            self._closing = True
            self._net.call_later(LATENCY_S, self.peer._lost, ConnectionResetError())
            self._net.call_soon(self._lost, None)

    def _send_to(self, data: bytes) -> None:
        self._on_the_way.append(data)
        self._net.call_later(LATENCY_S, self._arrived)

    def _arrived(self) -> None:
        # Not the argument of call_later: timers of one moment come in any order
        self._inbox.append(self._on_the_way.popleft())
        self._deliver()

    def _deliver(self) -> None:
        while self._inbox and not self._paused and not self._is_lost:
            data = self._inbox.popleft()
            if data:
                self.protocol.data_received(data)
            elif not self.protocol.eof_received():
                self.close()

    def _lost(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = self._closing = True
            with contextlib.suppress(AttributeError):
                self.protocol.connection_lost(error)
