"""Replies of a compromised worker: none of them is more than one failed attempt."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from camserver.model import Result
from camserver.workers import pool
from camserver.workers.process import FRAME, MAX_BLOB_BYTES, MAX_HEADER_BYTES, Worker

pytestmark = pytest.mark.anyio
DEEP = b"[" * MAX_HEADER_BYTES


@pytest.fixture
def anyio_backend() -> str:
    """Real sockets want real time."""
    return "asyncio"


@pytest.mark.parametrize(
    "reply",
    [
        FRAME.pack(2, 0) + b"[]",
        FRAME.pack(1, 0) + b"{",
        FRAME.pack(1, 0) + b"\xff",
        FRAME.pack(len(DEEP), 0) + DEEP,
        FRAME.pack(MAX_HEADER_BYTES + 1, 0),
        FRAME.pack(2, MAX_BLOB_BYTES + 1) + b"{}",
    ],
)
async def test_a_reply_that_makes_no_sense_is_a_value_error(reply: bytes) -> None:
    ours, its = socket.socketpair()
    with its:
        worker = await Worker.connected(os.getpid(), 0, ours)
        its.sendall(reply)
        with pytest.raises(ValueError, match=r".*"):
            await worker.exchange({}, b"")
        worker.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"result": "splendid"},
        {"end": 7},
        {"status": "many"},
        {"status": float("inf")},
        {"status": float("nan")},
        {"status": []},
        {"step": {}},
    ],
)
def test_an_error_that_makes_no_sense_is_a_crash(changes: dict[str, Any]) -> None:
    data = {"result": "timeout", "error": "no answer", "end": "none"}
    assert pool._as_camera_error(data).result is Result.TIMEOUT
    assert pool._as_camera_error(data | changes).result is Result.CRASHED
