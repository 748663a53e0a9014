"""The process from which workers are forked: its death costs one attempt, its hanging nobody."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support import children_of
from worker_pools import StartPool, deaf_camera, fetch, inspect, no_jpeg, soon, template_of

from camserver.errors import CameraError
from camserver.model import Result
from camserver.workers import pool as pool_module
from camserver.workers import process, template


@pytest.fixture
def anyio_backend() -> str:
    """Real processes want real time."""
    return "asyncio"


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_worker_that_was_idle_for_long_is_ended_and_reaped(
    is_stopped: bool, start_pool: StartPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that does nothing any more. Its place is free for another one."""
    monkeypatch.setattr(process, "IDLE_S", 0.05)
    pool = await start_pool("decoder")
    await no_jpeg(pool)
    idle, source = pool._idle[0], template_of(pool)
    if is_stopped:
        os.kill(idle.pid, signal.SIGSTOP)
    await idle.died()
    assert idle.reaping is not None
    await idle.reaping
    assert children_of(source) == []
    assert pool.restarts == 0, "it did nothing wrong"
    await no_jpeg(pool)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: workers show their memory to root only")
async def test_workers_share_the_memory_of_their_libraries(start_pool: StartPool) -> None:
    """They change less than a third of what the process has from which they are forked."""

    def changed_kb(pid: int) -> int:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if "Private_Dirty" in line)

    pool = await start_pool("decoder")
    await no_jpeg(pool)
    rollup = Path(f"/proc/{template_of(pool)}/smaps_rollup").read_text().splitlines()
    whole_kb = sum(int(line.split()[1]) for line in rollup if line.startswith("Anonymous"))
    assert changed_kb(pool.pids[0]) < whole_kb / 3


async def test_without_the_process_that_forks_it_costs_one_attempt(start_pool: StartPool) -> None:
    """Its workers die with it, and another one is started."""
    server, url, came, gone = await deaf_camera()
    pool = await start_pool("session", port=urlsplit(url).port)
    job = asyncio.create_task(pool.run("fetch", fetch(url), deadline=soon(30)))
    await came.wait()
    source = template_of(pool)
    os.kill(source, signal.SIGKILL)
    with pytest.raises(CameraError, match="worker died") as caught:
        await job
    assert (caught.value.result, pool.pids) == (Result.CRASHED, ())
    await gone.wait()
    server.close()
    with pytest.raises(CameraError, match="connection refused"):
        await pool.run("fetch", fetch(url), deadline=soon(30))
    assert template_of(pool) != source


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_job_does_not_wait_for_a_process_that_hangs(
    is_cancelled: bool, start_pool: StartPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for the end of its worker, nor for another one."""
    server, url, came, gone = await deaf_camera()
    pool = await start_pool("session", port=urlsplit(url).port)
    await pool.warm()
    job = asyncio.create_task(pool.run("fetch", fetch(url), deadline=soon(3)))
    await came.wait()
    source = template_of(pool)
    monkeypatch.setattr(pool_module, "STATUS_S", 3600.0)
    monkeypatch.setattr(template, "LIMIT_S", 3600.0)
    os.kill(source, signal.SIGSTOP)
    if is_cancelled:
        job.cancel()
    with pytest.raises(asyncio.CancelledError if is_cancelled else CameraError):
        await job
    await gone.wait()
    other = asyncio.create_task(pool.run("fetch", fetch(url), deadline=soon(0.5)))
    if is_cancelled:
        await asyncio.sleep(0)
        other.cancel()
    with pytest.raises(asyncio.CancelledError if is_cancelled else CameraError) as caught:
        await other
    if isinstance(caught.value, CameraError):
        assert caught.value.result is Result.OVERLOADED
    assert pool.restarts == 1
    server.close()


async def test_pools_are_closed_while_the_process_of_workers_hangs(
    start_pool: StartPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop has little time. No worker is left, and none starts after it."""
    monkeypatch.setattr(pool_module, "STATUS_S", 3600.0)
    monkeypatch.setattr(template, "LIMIT_S", 3600.0)
    server, url, came, gone = await deaf_camera()
    busy, idle, late = [await start_pool(name) for name in ("session", "decoder", "decoder")]
    busy.port = urlsplit(url).port or 0
    await no_jpeg(idle)
    job = asyncio.create_task(busy.run("fetch", fetch(url), deadline=soon(30)))
    await came.wait()
    os.kill(template_of(idle), signal.SIGSTOP)
    starting = asyncio.create_task(inspect(late))
    await asyncio.sleep(0)
    await busy.close()
    await gone.wait()
    await idle.close()
    await late.close()
    assert (busy.pids, idle.pids, late.pids) == ((), (), ())
    for after in (starting, inspect(idle)):
        with pytest.raises(CameraError, match="could be started: it is being stopped"):
            await after
    with pytest.raises(CameraError, match="worker died"):
        await job
    server.close()


async def test_no_worker_starts_after_the_end() -> None:
    source = template.WorkerTemplate()
    await source.close()
    with pytest.raises(OSError, match="being stopped"):
        await source.fork("decoder", 1 << 30, 0)


async def test_a_process_that_hangs_is_replaced(
    start_pool: StartPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await start_pool("decoder")
    await no_jpeg(pool)
    source, (worker,) = template_of(pool), pool.pids
    os.kill(source, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    await pool._idle[0].died()
    with monkeypatch.context() as patch:
        patch.setattr(template, "LIMIT_S", 0.1)
        with pytest.raises(CameraError, match=r"no answer within 0\.1 s|no JPEG"):
            await pool.run("inspect", {"width": None, "quality": 80}, b"", deadline=soon(30))
    await no_jpeg(pool)
    assert template_of(pool) != source


async def test_a_worker_that_cannot_be_connected_is_reaped(
    start_pool: StartPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    pool, other = await start_pool("session"), await start_pool("decoder")
    await other.warm()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", refuse)
        with pytest.raises(CameraError, match="could be started: Too many open files"):
            await pool.run("fetch", fetch("rtsp://127.0.0.1:1/"), deadline=soon(30))
    assert children_of(template_of(other)) == list(other.pids)
