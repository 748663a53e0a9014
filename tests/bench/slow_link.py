"""A TCP link that takes time: slow_link.py TARGET_PORT MILLISECONDS; prints the port it listens on.

What goes through arrives half of MILLISECONDS later, in both directions; the first bytes of a
connection wait for a whole round trip more, as for TCP's handshake. (netem does it in the kernel,
but many kernels are built without it.)
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial


class End(asyncio.Protocol):
    """One end of a connection; what comes in goes out at the other, later."""

    def __init__(self, delay_s: float, other: End | None = None) -> None:
        self.delay_s, self.other = delay_s, other
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.delay_s, self.across, data)

    def connection_lost(self, _: Exception | None) -> None:
        asyncio.get_running_loop().call_later(self.delay_s, self.across, b"")

    def across(self, data: bytes) -> None:
        transport = self.other.transport if self.other is not None else None
        if transport is not None and not transport.is_closing():
            transport.write(data) if data else transport.close()


class Near(End):
    """The client's end; the far one is connected a round trip later."""

    def __init__(self, delay_s: float, port: int) -> None:
        super().__init__(delay_s)
        self.port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.held: list[bytes] = []
        self.task = asyncio.create_task(self.reach())

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.held.append(data)
        else:
            super().data_received(data)

    async def reach(self) -> None:
        await asyncio.sleep(2 * self.delay_s)
        loop = asyncio.get_running_loop()
        _, self.other = await loop.create_connection(
            partial(End, self.delay_s, self), "127.0.0.1", self.port
        )
        for data in self.held:
            self.data_received(data)


async def main(port: int, delay_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        partial(Near, delay_s, port), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) / 2000))
