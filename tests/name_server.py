"""A name server (DNS, RFC 1035) for tests: it answers, is wrong, knows nothing, or is silent."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

TYPE_A = 1
NO_SUCH_NAME = 3


class NameServer(asyncio.DatagramProtocol):
    """Answers questions of type A from `names`. Other names do not exist."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.is_silent = False
        self.delay_s = 0.0
        self.questions = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, source: Any) -> None:
        self.questions += 1
        if not self.is_silent:
            answer = self._answer(data)
            loop = asyncio.get_running_loop()
            loop.call_later(self.delay_s, self._transport.sendto, answer, source)

    def _answer(self, data: bytes) -> bytes:
        labels, at = [], 12
        while length := data[at]:
            labels.append(data[at + 1 : at + 1 + length].decode())
            at += 1 + length
        question = data[12 : at + 5]
        kind = int.from_bytes(data[at + 1 : at + 3], "big")
        address = self.names.get(".".join(labels).lower())
        code = 0 if address else NO_SUCH_NAME
        answers = b""
        if address and kind == TYPE_A:
            answers = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address)
        flags = (0x8180 | code).to_bytes(2, "big")
        counts = b"\0\1" + (b"\0\1" if answers else b"\0\0") + bytes(4)
        return data[:2] + flags + counts + question + answers


@asynccontextmanager
async def name_server(address: str) -> AsyncIterator[NameServer]:
    """Run a name server at port 53 of `address`."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=(address, 53))
    try:
        yield server
    finally:
        transport.close()
