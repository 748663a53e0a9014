"""Worker processes for all C code that processes camera bytes.

Parent's side. This module imports neither libav nor libjpeg.

Invariant (rule one): `WorkerPool.run` returns or raises only when its worker is idle again, or dead
*and reaped*. This also holds when the caller is cancelled, even several times. So any session that
the worker held is closed by then.

anyio.to_process is not used for two reasons. Its replies are pickles: unpickling the reply of a
compromised decoder would run the attacker's code in the daemon. It also runs the parent's main
module again in every worker. Here replies are JSON and plain bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import math
import os
import signal
import struct
import sys
from asyncio.subprocess import SubprocessStreamProtocol
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal

from camserver.errors import CameraError
from camserver.host.tasks import finish
from camserver.model import Result, SessionEnd, Step
from camserver.workers.sandbox import CPU_S

FRAME = struct.Struct(">II")
"""The head of a message: size of the JSON header and size of the blob, both in bytes.

The JSON object and the blob follow.
"""
MAX_HEADER_BYTES = 64 * 1024
MAX_BLOB_BYTES = 64 * 1024 * 1024
PIPE_BYTES = 256 * 1024
"""How much of a reply a pipe holds, and its reader: as much as asyncio reads at once.

A JPEG of 500 KB needs two reads then instead of eight, and 0.1 to 0.3 ms less CPU. Larger pipes
bring nothing more, and a user has only so much memory for pipes (pipe(7)).
"""
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    # Threads of numpy would have no work here
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # The memory of a picture is kept for the next one. Returning it to the system would cause page
    # faults that cost a tenth of the decoding time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
EXPEDITE = signal.SIGUSR1
"""The signal that asks a worker to end its job now. EXPEDITE_S later the worker is killed."""
EXPEDITE_S = 0.4
IDLE_S = 60.0
"""A worker that is idle for this long is ended. The next job starts a new one."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of a job: `data` is plain JSON, `blob` the bytes that belong to it."""

    data: dict[str, Any]
    blob: bytes


class WorkerPool:
    """At most `size` worker processes, started when needed.

    Each is limited to `memory_bytes` of address space.

    `name` is their kind. "session" workers speak RTSP through libav: they can read their libraries
    only, and connect to `port` only. "decoder" workers are sealed: they can use only their pipes.
    If the kernel cannot do that, `on_unsealed` is called once with the reason.
    """

    def __init__(
        self,
        name: Literal["session", "decoder"],
        size: int,
        *,
        memory_bytes: int = 1 << 30,
        port: int = 0,
        on_unsealed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.port = port
        """The port to which the next session workers may connect."""
        self.restarts = 0
        self._on_unsealed: Callable[[str], None] | None = on_unsealed
        self._size = size
        self._memory_bytes = memory_bytes
        self._slots = asyncio.Semaphore(size)
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the living workers."""
        return tuple(w.process.pid for w in self._all)

    async def warm(self) -> None:
        """Start one worker ahead of the first job."""
        if not self._all:
            await finish(self._spawn())

    async def run(
        self,
        job: str,
        data: dict[str, Any],
        blob: bytes = b"",
        *,
        deadline: float,
        late: Callable[[Reply], None] | None = None,
        job_s: float = math.inf,
    ) -> Reply:
        """Run one job.

        `deadline` is in event loop time. It includes the wait for a worker. `job_s` limits the job
        alone, in a worker that has already answered.

        When this is cancelled, the worker is killed. With `late`, the worker is first asked to end
        the job (EXPEDITE). If its reply comes in time, `late` is called with it.

        Raises CameraError: with the job's own result, with timeout at the deadline (the worker is
        killed), with crashed, or with error when no worker could be started.
        """
        async with self.slot(deadline):
            return await self._run({"job": job, **data}, blob, deadline, late, job_s)

    @contextlib.asynccontextmanager
    async def slot(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a free worker, which is ours in the block. Raises CameraError at the deadline.

        Nothing is opened while this waits.
        """
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise CameraError(
                Result.OVERLOADED,
                f"no {self.name} worker came free before the deadline",
                SessionEnd.NONE,
            ) from None
        try:
            yield
        finally:
            self._slots.release()

    async def run_in_slot(
        self,
        job: str,
        data: dict[str, Any],
        blob: bytes = b"",
        *,
        deadline: float,
        late: Callable[[Reply], None] | None = None,
    ) -> Reply:
        """The same as `run`, within a slot."""
        return await self._run({"job": job, **data}, blob, deadline, late, math.inf)

    async def close(self) -> None:
        """Kill and reap every worker."""
        for worker in list(self._all):
            await finish(self._discard(worker))

    async def _run(
        self,
        request: dict[str, Any],
        blob: bytes,
        deadline: float,
        late: Callable[[Reply], None] | None,
        job_s: float,
    ) -> Reply:
        worker = self._take_idle()
        while worker is None:
            try:
                await finish(self._spawn())
            except OSError as error:
                raise CameraError(
                    Result.ERROR,
                    f"no {self.name} worker could be started: {error.strerror}",
                    SessionEnd.NONE,
                ) from None
            worker = self._take_idle()
        exchange = asyncio.create_task(worker.exchange(request, blob), name=f"{self.name} job")
        # A new worker still has to load its libraries
        limit = deadline
        if worker.has_answered:
            limit = min(deadline, asyncio.get_running_loop().time() + job_s)
        try:
            async with asyncio.timeout_at(limit):
                reply = await asyncio.shield(exchange)
        except TimeoutError:
            exchange.cancel()
            await finish(self._discard(worker))
            raise CameraError(
                Result.TIMEOUT, f"the {self.name} worker hung and was killed"
            ) from None
        except (EOFError, OSError, ValueError):
            status = await finish(self._discard(worker))
            raise CameraError(
                Result.CRASHED, f"the {self.name} worker died ({_how(status)})"
            ) from None
        except BaseException:
            await finish(self._expedite(worker, exchange, late))
            raise
        worker.has_answered = True
        self._keep(worker)
        if (why := reply.data.get("unsealed")) and self._on_unsealed is not None:
            self._on_unsealed(str(why))
            self._on_unsealed = None
        if "error" in reply.data:
            raise _as_camera_error(reply.data)
        return reply

    def _keep(self, worker: _Worker) -> None:
        self._idle.append(worker)
        worker.retire_later(self._retire)

    async def _expedite(
        self, worker: _Worker, exchange: asyncio.Task[Reply], late: Callable[[Reply], None] | None
    ) -> None:
        """End a cancelled job: by EXPEDITE when `late` is given, else by killing the worker."""
        if late is not None:
            worker.send(EXPEDITE)
            await asyncio.wait({exchange}, timeout=EXPEDITE_S)
        if (
            late is not None
            and exchange.done()
            and not exchange.cancelled()
            and exchange.exception() is None
        ):
            late(exchange.result())
            self._keep(worker)
        else:
            exchange.cancel()
            await self._discard(worker)

    def _take_idle(self) -> _Worker | None:
        while self._idle:
            worker = self._idle.pop()
            worker.keep()
            if worker.process.returncode is None:
                return worker
            worker.close()
            self._all.discard(worker)
            self.restarts += 1
        return None

    async def _spawn(self) -> None:
        """Start one more worker and make it idle.

        It is not assigned to the caller, because the caller may be cancelled meanwhile.
        """
        loop = asyncio.get_running_loop()
        # The same as asyncio.create_subprocess_exec, which does not give access to the transport
        transport, protocol = await loop.subprocess_exec(
            lambda: SubprocessStreamProtocol(limit=PIPE_BYTES, loop=loop),
            sys.executable,
            "-I",
            "-m",
            "camserver.capture.worker",
            str(os.getpid()),
            str(self._memory_bytes),
            self.name,
            str(self.port),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            env=ENVIRONMENT,
        )
        stdout = transport.get_pipe_transport(1)
        assert stdout is not None  # noqa: S101 - it was requested
        with contextlib.suppress(OSError):  # without it replies only cost more reads
            fcntl.fcntl(stdout.get_extra_info("pipe"), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        worker = _Worker(asyncio.subprocess.Process(transport, protocol, loop), transport)
        self._all.add(worker)
        self._keep(worker)

    async def _discard(self, worker: _Worker) -> int:
        """Kill the worker, and wait until the kernel has closed all its sockets."""
        worker.keep()
        worker.send(signal.SIGKILL)
        status = await worker.process.wait()
        worker.close()
        self._all.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self.restarts += 1
        return status

    def _retire(self, worker: _Worker) -> None:
        """End a worker that was idle for IDLE_S.

        EOF on its stdin ends it. The event loop's child watcher reaps it.
        """
        if worker in self._idle:
            self._idle.remove(worker)
            self._all.discard(worker)
            worker.close()


class _Worker:
    def __init__(
        self, process: asyncio.subprocess.Process, transport: asyncio.SubprocessTransport
    ) -> None:
        self.process = process
        self.has_answered = False
        self._transport = transport
        self._pidfd = os.pidfd_open(process.pid)
        self._timer: asyncio.TimerHandle | None = None

    async def exchange(self, data: dict[str, Any], blob: bytes) -> Reply:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018 - _spawn requests both
        header = json.dumps(data).encode()
        stdin.writelines((FRAME.pack(len(header), len(blob)), header, blob))
        await stdin.drain()
        header_bytes, blob_bytes = FRAME.unpack(await stdout.readexactly(FRAME.size))
        if header_bytes > MAX_HEADER_BYTES or blob_bytes > MAX_BLOB_BYTES:
            raise ValueError("reply over the limit")
        reply = json.loads(await stdout.readexactly(header_bytes))
        if not isinstance(reply, dict):
            # ValueError, like every other kind of broken reply
            raise ValueError("reply is no object")  # noqa: TRY004
        return Reply(reply, await stdout.readexactly(blob_bytes))

    def retire_later(self, retire: Callable[[_Worker], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, retire, self)

    def keep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send(self, number: int) -> None:
        """Send a signal by pidfd.

        Popen.kill would reap a dead child without asyncio's knowledge. Its status would be lost.
        """
        if self._pidfd >= 0:  # otherwise another task has just discarded the worker
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._transport.close()  # frees both pipes now, not at garbage collection


def _how(status: int) -> str:
    if status == -signal.SIGPROF:
        return f"it used more than {CPU_S} s of CPU"
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _as_camera_error(data: dict[str, Any]) -> CameraError:
    try:
        status, step = data.get("status"), data.get("step")
        return CameraError(
            Result(data["result"]),
            str(data["error"]),
            SessionEnd(data["end"]),
            status=None if status is None else int(status),
            step=None if step is None else Step(step),
            login_refused=data.get("login_refused") is True,
            packets_lost=data.get("packets_lost") is True,
        )
    except (KeyError, ValueError, TypeError):
        return CameraError(Result.CRASHED, "the worker sent an answer that makes no sense")
