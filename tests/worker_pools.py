"""Worker pools for tests, what they are asked, and a camera that never answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from support import children_of

from camserver.errors import CameraError
from camserver.workers.pool import WorkerPool
from camserver.workers.template import WorkerTemplate

StartPool = Callable[..., Awaitable[WorkerPool]]


@asynccontextmanager
async def pools() -> AsyncIterator[StartPool]:
    """Starts worker pools of one process; no process is left afterwards."""
    started: list[WorkerPool] = []
    before, source = children_of(os.getpid()), WorkerTemplate()

    async def start(name: Literal["session", "decoder"], **options: Any) -> WorkerPool:
        started.append(WorkerPool(name, 1, source, **options))
        return started[-1]

    yield start
    for pool in started:
        await pool.close()
        assert pool.pids == ()
    await source.close()
    assert children_of(os.getpid()) == before


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def fetch(url: str, seconds: float = 30.0) -> dict[str, Any]:
    """An order of the libav engine."""
    return {
        "url": url,
        "transport": "tcp",
        "deadline": soon(seconds),
        "probe": "small",
    }


async def deaf_camera() -> tuple[asyncio.Server, str, asyncio.Event, asyncio.Event]:
    """A camera that accepts and never answers.

    The events tell that somebody came and that the connection ended.
    """
    came, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        try:
            while await reader.read(1000):
                pass
        except OSError:
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return (
        server,
        f"rtsp://admin:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/x",
        came,
        gone,
    )


async def inspect(pool: WorkerPool) -> None:
    """A job that a decoder refuses."""
    await pool.run("inspect", {"width": None, "quality": 80}, b"", deadline=soon(30))


async def no_jpeg(pool: WorkerPool) -> None:
    with pytest.raises(CameraError, match="no JPEG"):
        await inspect(pool)


def template_of(pool: WorkerPool) -> int:
    """The process from which the workers are forked: the parent of the first."""
    stat = Path(f"/proc/{pool.pids[0]}/stat").read_text()
    return int(stat.rsplit(")", 1)[1].split()[1])
