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
import math
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from camserver.errors import CameraError
from camserver.host.tasks import finish
from camserver.model import Result, SessionEnd, Step
from camserver.workers.process import Reply, Worker
from camserver.workers.sandbox import CPU_S
from camserver.workers.template import WorkerTemplate

EXPEDITE = signal.SIGUSR1
"""The signal that asks a worker to end its job now. EXPEDITE_S later the worker is killed."""
EXPEDITE_S = 0.4
PATIENCE_S = {"decoder": 0.1, "session": 0.0}
"""For how long a job waits for a busy worker before another one is started.

Decoding takes less time than that, a session more. One decoder is enough for a few pictures a
second, and each takes about 10 MB.
"""


class WorkerPool:
    """At most `size` worker processes, forked from `template` when needed.

    Each is limited to `memory_bytes` of address space.

    `name` is their kind. "session" workers speak RTSP through libav: they can read their libraries
    only, and connect to `port` only. "decoder" workers are sealed: they can use only their
    socket. If the kernel cannot do that, `on_unsealed` is called once with the reason.
    """

    def __init__(
        self,
        name: Literal["session", "decoder"],
        size: int,
        template: WorkerTemplate,
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
        self._template = template
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._freed = asyncio.Event()
        self._retiring: set[asyncio.Task[int | None]] = set()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the living workers."""
        return tuple(w.pid for w in self._all)

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
        patient_until = asyncio.get_running_loop().time() + PATIENCE_S[self.name]
        async with self.slot(deadline):
            worker = await self._worker(min(patient_until, deadline))
            return await self._run(worker, {"job": job, **data}, blob, deadline, late, job_s)

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
        worker = await self._worker()
        return await self._run(worker, {"job": job, **data}, blob, deadline, late, math.inf)

    async def close(self) -> None:
        """Kill and reap every worker."""
        for worker in list(self._all):
            await finish(self._discard(worker))
        if self._retiring:
            await asyncio.wait(self._retiring)

    async def _worker(self, patient_until: float = 0.0) -> Worker:
        """A worker for one job. Another one is started when none is idle by `patient_until`."""
        while (worker := self._take_idle()) is None:
            if self._all and await self._one_is_freed(patient_until):
                continue
            try:
                await finish(self._spawn())
            except OSError as error:
                raise CameraError(
                    Result.ERROR,
                    f"no {self.name} worker could be started: {error.strerror}",
                    SessionEnd.NONE,
                ) from None
        return worker

    async def _one_is_freed(self, until: float) -> bool:
        if until <= asyncio.get_running_loop().time():
            return False
        self._freed.clear()
        try:
            async with asyncio.timeout_at(until):
                await self._freed.wait()
        except TimeoutError:
            return False
        return True

    async def _run(
        self,
        worker: Worker,
        request: dict[str, Any],
        blob: bytes,
        deadline: float,
        late: Callable[[Reply], None] | None,
        job_s: float,
    ) -> Reply:
        exchange = asyncio.create_task(worker.exchange(request, blob), name=f"{self.name} job")
        # A new worker still has to use its libraries for the first time
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

    def _keep(self, worker: Worker) -> None:
        self._idle.append(worker)
        self._freed.set()
        worker.retire_later(self._retire)

    async def _expedite(
        self, worker: Worker, exchange: asyncio.Task[Reply], late: Callable[[Reply], None] | None
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

    def _take_idle(self) -> Worker | None:
        while self._idle:
            worker = self._idle.pop()
            worker.keep()
            if not worker.has_died:
                return worker
            self._reap_later(worker)
            self.restarts += 1
        return None

    async def _spawn(self) -> None:
        """Start one more worker and make it idle.

        It is not assigned to the caller, because the caller may be cancelled meanwhile.
        """
        worker = await self._template.fork(self.name, self._memory_bytes, self.port)
        self._all.add(worker)
        self._keep(worker)

    async def _discard(self, worker: Worker) -> int | None:
        """Kill the worker, and wait until the kernel has closed all its sockets."""
        worker.keep()
        worker.send(signal.SIGKILL)
        status = await self._reap(worker)
        self._all.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self.restarts += 1
        return status

    async def _reap(self, worker: Worker) -> int | None:
        await worker.died()
        status = await self._template.reap(worker)
        worker.close()
        return status

    def _retire(self, worker: Worker) -> None:
        """End a worker that was idle for IDLE_S."""
        if worker in self._idle:
            self._idle.remove(worker)
            worker.hang_up()
            self._reap_later(worker)

    def _reap_later(self, worker: Worker) -> None:
        self._all.discard(worker)
        task = asyncio.create_task(self._reap(worker), name=f"end of a {self.name} worker")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def _how(status: int | None) -> str:
    if status is None:
        return "with the process that it was forked from"
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
