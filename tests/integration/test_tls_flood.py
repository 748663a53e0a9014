"""A camera that sends TLS records of one byte: few are decrypted in one turn of the loop."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from house import certificate

from camserver.capture.http_connection import Address, HttpConnection
from camserver.capture.paced import PacedProtocol
from camserver.capture.tls import READ_BYTES, tls_context

RECORDS = 3000
LEAST_RECORD_BYTES = 20
"""A header of 5 bytes, a tag of 16 bytes, and at least one byte of data."""


async def test_few_records_are_decrypted_in_one_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    real = PacedProtocol.data_received

    def note(self: PacedProtocol, data: bytes) -> None:
        given.append(len(data))
        real(self, data)

    monkeypatch.setattr(PacedProtocol, "data_received", note)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            for _ in range(RECORDS):
                writer.write(b"x")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate(tmp_path))
    address = Address.of(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    connection = await HttpConnection.open(address, tls_context(False))
    answer = await connection.get(address, {})
    connection.close()
    server.close()
    assert len(answer.body) == RECORDS
    assert sum(given) > RECORDS
    assert max(given) <= READ_BYTES // LEAST_RECORD_BYTES
