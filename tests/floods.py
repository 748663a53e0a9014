"""Cameras that flood: servers that send as fast as they can, each in its own way.

    floods.py

Prints one line for each kind, `KIND PORT`, and floods until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator

SDP = b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:trackID=0\r\n"
CHUNK = 64 * 1024


def rtp(payload: bytes, number: int) -> bytes:
    packet = (
        b"\x80\x60"
        + (number % 65536).to_bytes(2, "big")
        + (number // 40 * 3000 % 2**32).to_bytes(4, "big")
        + b"\0\0\0\1"
        + payload
    )
    return b"$\0" + len(packet).to_bytes(2, "big") + packet


def repeated(message: bytes) -> Iterator[bytes]:
    block = message * max(1, CHUNK // len(message))
    return itertools.repeat(block)


def packets(payload: bytes) -> Iterator[bytes]:
    numbers = itertools.count()
    while True:
        yield b"".join(rtp(payload, next(numbers)) for _ in range(max(1, CHUNK // len(payload))))


AT_ONCE: dict[str, Callable[[], Iterator[bytes]]] = {
    "header-names": lambda: repeated(b"RTSP/1.0 200 OK\r\n" + b"a:b\r\n" * 2600 + b"\r\n"),
    "some-headers": lambda: repeated(b"RTSP/1.0 200 OK\r\n" + b"a:b\r\n" * 100 + b"\r\n"),
    "continue": lambda: repeated(b"RTSP/1.0 100 Continue\r\n\r\n"),
    "blank": lambda: repeated(b"\r\n"),
    "requests": lambda: repeated(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
    "tiny-frames": lambda: repeated(b"$\0\0\0"),
}
"""Floods that begin with the first request."""
AFTER_PLAY: dict[str, Callable[[], Iterator[bytes]]] = {
    "stap-a": lambda: packets(b"\x78" + b"\0\2\x41\x80" * 15_000),
    "start-codes": lambda: packets(b"\x41" + b"\0\0\1\x41\x80" * 10_000),
    "zeros": lambda: packets(b"\x41\0\0\1\x65" + b"\0" * 60_000 + b"\x80"),
    "one-byte-packets": lambda: packets(b"\x41\x80"),
}
"""Floods of packets, after a session was set up as usual."""
HTTP: dict[str, Callable[[], Iterator[bytes]]] = {
    "http-chunks": lambda: itertools.chain(
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], repeated(b"1\r\nx\r\n")
    ),
    "http-continue": lambda: repeated(b"HTTP/1.1 100 Continue\r\n\r\n"),
}
"""Floods of a snapshot URL."""
KINDS = (*AT_ONCE, *AFTER_PLAY, *HTTP)


def is_http(kind: str) -> bool:
    return kind in HTTP


async def serve(kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        if kind in AFTER_PLAY:
            await set_up(reader, writer)
            blocks = AFTER_PLAY[kind]()
        else:
            await reader.readuntil(b"\r\n\r\n")
            blocks = (AT_ONCE | HTTP)[kind]()
        for block in blocks:
            writer.write(block)
            await writer.drain()
    writer.close()


async def set_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        number = re.search(r"CSeq: (\d+)", request)
        head = f"RTSP/1.0 200 OK\r\nCSeq: {number[1] if number else 0}\r\nSession: 1\r\n"
        if request.startswith("DESCRIBE"):
            head += f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n"
            writer.write(head.encode() + b"\r\n" + SDP)
        elif request.startswith("SETUP"):
            writer.write(f"{head}Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n".encode())
        else:
            writer.write(f"{head}\r\n".encode())
        if request.startswith("PLAY"):
            return


async def main() -> None:
    servers = []
    for kind in KINDS:
        server = await asyncio.start_server(
            lambda reader, writer, kind=kind: serve(kind, reader, writer),  # type: ignore[misc]
            "127.0.0.1",
            0,
        )
        servers.append(server)
        print(kind, server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main())
