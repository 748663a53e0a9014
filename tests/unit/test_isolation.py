"""Workers: whatever happens to one costs one attempt; it is dead by then."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from worker_pools import StartPool, deaf_camera, fetch, no_jpeg, soon

from camserver.capture.decoder import Decoder
from camserver.errors import CameraError
from camserver.model import CodedKeyframe, Result
from camserver.workers.process import Reply

NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: workers show their memory and descriptors to root only"
)


@pytest.fixture
def anyio_backend() -> str:
    """Real processes want real time."""
    return "asyncio"


async def test_at_the_deadline_the_worker_is_dead_and_its_connection_closed(
    start_pool: StartPool,
) -> None:
    server, url, came, gone = await deaf_camera()
    pool = await start_pool("session", port=urlsplit(url).port)
    await pool.warm()
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


async def test_cancelled_twice_it_still_ends_the_worker_first(start_pool: StartPool) -> None:
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


async def test_when_all_tasks_are_cancelled_the_worker_is_ended_all_the_same(
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
