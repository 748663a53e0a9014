"""Workers: whatever happens to one costs one attempt; it is dead and reaped by then."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

from camserver.capture.decoder import Decoder
from camserver.errors import CameraError
from camserver.model import CodedKeyframe, Result
from camserver.workers.pool import FRAME, PIPE_BYTES, Reply, WorkerPool


def fetch(url: str, seconds: float = 30.0) -> dict[str, Any]:
    """An order of the libav engine."""
    return {
        "url": url,
        "transport": "tcp",
        "deadline": soon(seconds),
        "probe": "small",
    }


StartPool = Callable[..., Awaitable[WorkerPool]]


@pytest.fixture
def anyio_backend() -> str:
    """Real processes want real time."""
    return "asyncio"


@pytest.fixture
async def start_pool() -> AsyncIterator[StartPool]:
    """Starts worker pools of one process; no process is left afterwards."""
    pools: list[WorkerPool] = []

    async def start(name: Literal["session", "decoder"], **options: Any) -> WorkerPool:
        pools.append(WorkerPool(name, 1, **options))
        return pools[-1]

    yield start
    for pool in pools:
        await pool.close()
        assert pool.pids == ()


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
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
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
        worker = pool._idle[0].process
        worker.kill()
        await worker.wait()
        await job()
    assert open_files() == before


@pytest.mark.parametrize("allowed", [True, False])
async def test_replies_come_through_a_large_pipe_where_the_user_may_have_one(
    allowed: bool, start_pool: StartPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.fcntl

    def limited(fd: int, command: int, *argument: int) -> int:
        if command == fcntl.F_SETPIPE_SZ and not allowed:
            raise PermissionError(errno.EPERM, "pipe-user-pages-soft")
        return real(fd, command, *argument)

    monkeypatch.setattr(fcntl, "fcntl", limited)
    pool = await start_pool("decoder")
    with pytest.raises(CameraError, match="no JPEG"):
        await pool.run("inspect", {"width": None, "quality": 80}, b"", deadline=soon(30))
    pipe = pool._idle[0]._transport.get_pipe_transport(1)
    assert pipe is not None
    size = real(pipe.get_extra_info("pipe"), fcntl.F_GETPIPE_SZ)
    assert (size >= PIPE_BYTES) is allowed


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


def in_a_decoder(code: str, before: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run `code` as the body of a job of a real decoder worker.

    What it returns comes back as the reply's data.
    """
    program = f"""if True:
        import os, sys
        sys.argv = ["worker", str(os.getppid()), str(1 << 30), "decoder"]
        from camserver.capture import decode, worker
        from camserver.workers import sandbox as confinement, seccomp
        import resource, signal, socket, subprocess, threading
        {before}
        def job(request, blob):
{textwrap.indent(textwrap.dedent(code), " " * 12)}
        decode.inspect_job = job
        worker.main()"""
    request = json.dumps({"job": "inspect"}).encode()
    return subprocess.run(
        [sys.executable, "-c", program],
        input=FRAME.pack(len(request), 0) + request,
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "socket.socketpair()",
        "open('/etc/hostname')",
        "open('/tmp/x', 'w')",
        "os.stat('/')",
        "os.listdir('/')",
        "os.unlink('/tmp/x')",
        "os.execv('/bin/true', ['true'])",
        "os.fork()",
        "subprocess.run(['true'])",
        "threading.Thread(target=print).start()",
        "os.kill(os.getppid(), 0)",
        "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
        "os.memfd_create('x')",
        "os.pipe()",
        "os.chmod('/tmp', 0)",
    ],
)
def test_a_captured_decoder_reaches_nothing(attempt: str) -> None:
    """Each of these is refused inside the real worker, after everything it needs is loaded."""
    done = in_a_decoder(f"""
        try:
            {attempt}
        except (PermissionError, RuntimeError) as error:
            return {{"refused": type(error).__name__}}, b""
        return {{"refused": "no"}}, b""
    """)
    reply = json.loads(done.stdout[FRAME.size :])
    assert reply["refused"] == ("RuntimeError" if "Thread" in attempt else "PermissionError")


def test_a_decoder_that_computes_for_ever_is_ended_by_the_kernel() -> None:
    done = in_a_decoder("""
        confinement.CPU_S = 0.1
        confinement.limit_cpu()
        while True:
            pass
    """)
    assert done.returncode == -signal.SIGPROF


def test_where_it_cannot_be_sealed_it_says_so_and_works() -> None:
    done = in_a_decoder('return {"done": True}, b""', before='seccomp.LIBSECCOMP = "libnone.so"')
    assert json.loads(done.stdout[FRAME.size :]) == {
        "done": True,
        "unsealed": "libnone.so is not installed",
    }
