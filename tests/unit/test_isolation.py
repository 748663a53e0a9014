"""Workers: whatever happens to one costs one attempt; it is dead and reaped by then."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from support import children_of

from camserver.capture.decoder import Decoder
from camserver.errors import CameraError
from camserver.model import CodedKeyframe, Result
from camserver.workers import process, template
from camserver.workers.pool import WorkerPool
from camserver.workers.process import Reply
from camserver.workers.template import WorkerTemplate


def fetch(url: str, seconds: float = 30.0) -> dict[str, Any]:
    """An order of the libav engine."""
    return {
        "url": url,
        "transport": "tcp",
        "deadline": soon(seconds),
        "probe": "small",
    }


StartPool = Callable[..., Awaitable[WorkerPool]]
NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: workers show their memory and descriptors to root only"
)


@pytest.fixture
def anyio_backend() -> str:
    """Real processes want real time."""
    return "asyncio"


@pytest.fixture
async def start_pool() -> AsyncIterator[StartPool]:
    """Starts worker pools of one process; no process is left afterwards."""
    pools: list[WorkerPool] = []
    before, source = children_of(os.getpid()), WorkerTemplate()

    async def start(name: Literal["session", "decoder"], **options: Any) -> WorkerPool:
        pools.append(WorkerPool(name, 1, source, **options))
        return pools[-1]

    yield start
    for pool in pools:
        await pool.close()
        assert pool.pids == ()
    await source.close()
    assert children_of(os.getpid()) == before


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


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


async def test_at_the_deadline_the_worker_is_dead_and_its_connection_closed(
    start_pool: StartPool,
) -> None:
    server, url, came, gone = await deaf_camera()
    pool = await start_pool("session", port=urlsplit(url).port)
    with pytest.raises(CameraError, match="hung and was killed") as caught:
        await pool.run("fetch", fetch(url), deadline=soon(3))
    assert caught.value.result is Result.TIMEOUT
    assert pool.pids == ()
    assert came.is_set()
    await gone.wait()
    server.close()


async def test_a_worker_gives_up_by_itself_before_it_is_killed(start_pool: StartPool) -> None:
    """Its own limit is below ours, so a deaf camera costs no process."""
    server, url, _, gone = await deaf_camera()
    pool = await start_pool("session", port=urlsplit(url).port)
    with pytest.raises(CameraError, match="no answer within") as caught:
        await pool.run("fetch", fetch(url, 1.5), deadline=soon(30))
    assert caught.value.result is Result.TIMEOUT
    assert "secret" not in str(caught.value)
    assert len(pool.pids) == 1
    await gone.wait()
    server.close()


async def test_cancelled_twice_it_still_reaps_first(start_pool: StartPool) -> None:
    """Rule one: the caller hears of the cancellation only when the connection is closed."""
    server, url, came, gone = await deaf_camera()
    pool = await start_pool("session", port=urlsplit(url).port)
    task = asyncio.create_task(pool.run("fetch", fetch(url), deadline=soon(30)))
    await came.wait()
    pid = pool.pids[0]
    task.cancel()
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pid not in pool.pids
    await gone.wait()
    server.close()


async def test_when_all_tasks_are_cancelled_the_worker_is_reaped_all_the_same(
    start_pool: StartPool,
) -> None:
    """As at the end of asyncio.run.

    The talk with the worker is cancelled as well, so nobody can tell how its job ended.
    """
    server, url, came, gone = await deaf_camera()
    pool = await start_pool("session", port=urlsplit(url).port)
    said: list[Reply] = []
    task = asyncio.create_task(pool.run("fetch", fetch(url), deadline=soon(30), late=said.append))
    await came.wait()
    for each in asyncio.all_tasks():
        if each.get_name() == "session job":
            each.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (pool.pids, said) == ((), [])
    await gone.wait()
    server.close()


@NEEDS_ROOT
async def test_a_job_that_ran_into_its_deadline_leaves_no_descriptor(start_pool: StartPool) -> None:
    """Otherwise a worker that is used again would not find its connection any more."""
    server, url, _, _ = await deaf_camera()
    pool = await start_pool("session", port=urlsplit(url).port)
    counts = []
    for _ in range(3):
        with pytest.raises(CameraError, match="no answer within"):
            await pool.run("fetch", fetch(url, 0.5), deadline=soon(30))
        counts.append(len(list(Path(f"/proc/{pool.pids[0]}/fd").iterdir())))
    assert counts[0] == counts[1] == counts[2]
    server.close()


async def test_killed_from_outside_is_a_crash_and_the_next_job_runs(start_pool: StartPool) -> None:
    server, url, came, _ = await deaf_camera()
    pool = await start_pool("session", port=urlsplit(url).port)
    task = asyncio.create_task(pool.run("fetch", fetch(url), deadline=soon(30)))
    await came.wait()
    os.kill(pool.pids[0], signal.SIGKILL)
    with pytest.raises(CameraError, match=r"the session worker died \(signal 9\)") as caught:
        await task
    assert caught.value.result is Result.CRASHED
    server.close()
    with pytest.raises(CameraError, match="connection refused"):
        await pool.run("fetch", fetch(url), deadline=soon(30))


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_cancelled_while_a_worker_starts_none_is_too_many(start_pool: StartPool) -> None:
    """The one that was started for it is idle afterwards, and serves the next job."""
    pool = await start_pool("decoder")
    for _ in range(4):
        job = asyncio.create_task(
            pool.run("inspect", {"width": None, "quality": 80}, b"", deadline=soon(30))
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert len(pool.pids) <= 1
    with pytest.raises(CameraError, match="no JPEG"):
        await pool.run("inspect", {"width": None, "quality": 80}, b"", deadline=soon(30))
    assert len(pool.pids) == 1


async def test_an_idle_worker_that_was_killed_leaves_no_file_open(start_pool: StartPool) -> None:
    pool = await start_pool("decoder")

    async def job() -> None:
        with pytest.raises(CameraError, match="no JPEG"):
            await pool.run("inspect", {"width": None, "quality": 80}, b"", deadline=soon(30))

    await job()
    before = open_files()
    for _ in range(3):
        os.kill(pool.pids[0], signal.SIGKILL)
        await pool._idle[0].died()
        await job()
    assert open_files() == before


async def no_jpeg(pool: WorkerPool) -> None:
    with pytest.raises(CameraError, match="no JPEG"):
        await pool.run("inspect", {"width": None, "quality": 80}, b"", deadline=soon(30))


def template_of(pool: WorkerPool) -> int:
    """The process from which the workers are forked: the parent of the first."""
    stat = Path(f"/proc/{pool.pids[0]}/stat").read_text()
    return int(stat.rsplit(")", 1)[1].split()[1])


async def test_a_worker_that_was_idle_for_long_is_ended_and_reaped(
    start_pool: StartPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "IDLE_S", 0.05)
    pool = await start_pool("decoder")
    await no_jpeg(pool)
    idle, source = pool._idle[0], template_of(pool)
    await idle.died()
    await pool.close()
    assert children_of(source) == []
    assert pool.restarts == 0, "nobody killed it"


@NEEDS_ROOT
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
    job = asyncio.create_task(pool.run("fetch", fetch(url), deadline=soon(3)))
    await came.wait()
    source = template_of(pool)
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


async def test_a_worker_has_its_limits(start_pool: StartPool) -> None:
    """Of memory, and a lower priority than the daemon."""
    pool = await start_pool("decoder", memory_bytes=1 << 29)
    await pool.warm()
    (pid,) = pool.pids
    await no_jpeg(pool)
    assert resource.prlimit(pid, resource.RLIMIT_AS) == (1 << 29, 1 << 29)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid) >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_garbage_is_a_bad_picture(codec: str, start_pool: StartPool) -> None:
    pool = await start_pool("decoder")
    decoder = Decoder(pool, 85)
    for data in (b"", b"\0\0\0\1", os.urandom(5000), b"\0\0\0\1\x65" + os.urandom(5000)):
        with pytest.raises(CameraError) as caught:
            await decoder.decode(
                CodedKeyframe(codec, data, b"", datetime.now(UTC), "libav"),
                width=None,
                deadline=soon(30),
            )
        assert caught.value.result is Result.BAD_PICTURE


@pytest.mark.parametrize("data", [b"", b"<html>busy</html>", b"\xff\xd8\xff\xd9", b"\xff\xd8 half"])
async def test_what_is_no_whole_jpeg_is_refused(data: bytes, start_pool: StartPool) -> None:
    pool = await start_pool("decoder")
    with pytest.raises(CameraError) as caught:
        await Decoder(pool, 85).inspect(data, width=None, deadline=soon(30))
    assert caught.value.result is Result.BAD_PICTURE


async def test_memory_is_limited(start_pool: StartPool) -> None:
    """A picture of absurd size costs one attempt, not the machine."""
    pool = await start_pool("decoder")
    header = bytes.fromhex("ffd8ffc0001108ffffffff03012200021101031101")
    with pytest.raises(CameraError) as caught:
        await Decoder(pool, 85).inspect(header + b"\xff\xd9", width=None, deadline=soon(30))
    assert caught.value.result in (Result.BAD_PICTURE, Result.CRASHED)


async def test_a_decoder_is_sealed_by_the_kernel(start_pool: StartPool) -> None:
    """Not only asked to be.

    The process that decodes runs under a filter (2) and can gain no privileges.
    """
    pool = await start_pool("decoder", on_unsealed=pytest.fail)
    await pool.warm()
    with pytest.raises(CameraError):
        await Decoder(pool, 85).inspect(b"", width=None, deadline=soon(30))
    status = Path(f"/proc/{pool.pids[0]}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
