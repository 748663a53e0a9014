"""Worker processes for all C code that processes camera bytes.

Parent's side. This module imports neither libav nor libjpeg.

Invariant (rule one): `WorkerPool.run` returns or raises only when its worker is idle again, or
dead. This also holds when the caller is cancelled, even several times. So any session that the
worker held is closed by then. Workers are started and reaped by tasks of the pool. A job waits
for a start until its deadline at most, and for an exit status STATUS_S at most.

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
STATUS_S = 0.5
"""How long a job waits for the exit status of its dead worker. Its sessions are closed already."""
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
        self._changed = asyncio.Event()
        """Set when a worker came free or left, or when one could not be started."""
        self._starting: set[asyncio.Task[None]] = set()
        self._reaping: set[asyncio.Task[int | None]] = set()
        self._is_closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the living workers."""
        return tuple(w.pid for w in self._all)

    async def warm(self) -> None:
        """Start one worker ahead of the first job. If that fails, the job tells why."""
        if not self._all and not self._starting and not self._is_closed:
            with contextlib.suppress(OSError):
                await asyncio.shield(self._start())

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

        Raises CameraError: with the job's own result, with overloaded when no worker came free
        before the deadline, with timeout at the deadline (the worker is killed), with crashed, or
        with error when no worker could be started, or the pool is closed.
        """
        patient_until = asyncio.get_running_loop().time() + PATIENCE_S[self.name]
        async with self.slot(deadline):
            worker = await self._worker(deadline, patient_until)
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
            raise self._overloaded() from None
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
        worker = await self._worker(deadline)
        return await self._run(worker, {"job": job, **data}, blob, deadline, late, math.inf)

    async def close(self) -> None:
        """Kill all workers, and wait until they are dead. No other one is started.

        They are reaped later, or by the end of the process from which they were forked. That may
        hang, so this does not wait for it.
        """
        self._is_closed = True
        self._changed.set()
        starting, workers = tuple(self._starting), tuple(self._all)
        for task in starting:
            task.cancel()
        for worker in workers:  # before the first await: this may be cancelled, too
            worker.send(signal.SIGKILL)
            self._reap_later(worker, restarts=0)
        if starting:
            await asyncio.wait(starting)
        for worker in workers:
            await worker.died()
            self._all.discard(worker)

    async def _worker(self, deadline: float, patient_until: float = 0.0) -> Worker:
        """A worker for one job. Another one is started when none is idle by `patient_until`.

        Raises CameraError.
        """
        loop = asyncio.get_running_loop()
        starting: asyncio.Task[None] | None = None
        while (worker := self._take_idle()) is None:
            if self._is_closed:
                raise self._not_started("it is being stopped")
            if starting is not None and starting.done():
                if (error := starting.exception()) is not None:
                    why = error.strerror if isinstance(error, OSError) else repr(error)
                    raise self._not_started(why) from None
                starting = None  # it was faster for another job
            is_patient = bool(self._all or self._starting) and loop.time() < patient_until
            if starting is None and not is_patient and self._has_room:
                starting = self._start()
            until = min(patient_until, deadline) if is_patient else deadline
            self._changed.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._changed.wait()
            except TimeoutError:
                if loop.time() >= deadline:
                    raise self._overloaded() from None
        return worker

    @property
    def _has_room(self) -> bool:
        return len(self._all) + len(self._starting) < self._size

    def _start(self) -> asyncio.Task[None]:
        """Start one more worker, which is idle then.

        It is no part of the job that wants it: that may be cancelled meanwhile.
        """
        task = asyncio.create_task(self._spawn(), name=f"start of a {self.name} worker")
        self._starting.add(task)
        task.add_done_callback(self._started)
        return task

    async def _spawn(self) -> None:
        worker = await self._template.fork(self.name, self._memory_bytes, self.port)
        self._all.add(worker)
        self._keep(worker)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        self._changed.set()
        if not task.cancelled():
            task.exception()  # marks it as retrieved: the job may have left

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
            await finish(self._kill(worker))
            raise CameraError(
                Result.TIMEOUT, f"the {self.name} worker hung and was killed"
            ) from None
        except (EOFError, OSError, ValueError):
            status = await finish(self._exit_status(worker))
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
        if worker.reaping is not None:  # the pool was closed meanwhile
            return
        self._idle.append(worker)
        self._changed.set()
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
            await self._kill(worker)

    def _take_idle(self) -> Worker | None:
        while self._idle:
            worker = self._idle.pop()
            worker.keep()
            if not worker.has_died:
                return worker
            self._reap_later(worker, restarts=1)
        return None

    async def _kill(self, worker: Worker) -> None:
        """Kill the worker, and wait until the kernel has closed all its sockets."""
        worker.send(signal.SIGKILL)
        self._reap_later(worker, restarts=1)
        await worker.died()

    async def _exit_status(self, worker: Worker) -> int | None:
        """The exit status of a worker that has closed its socket, or sent nonsense.

        None: it is unknown.
        """
        await self._kill(worker)
        reaping = self._reap_later(worker, restarts=0)
        await asyncio.wait({reaping}, timeout=STATUS_S)
        return reaping.result() if reaping.done() and not reaping.cancelled() else None

    def _retire(self, worker: Worker) -> None:
        """End a worker that was idle for IDLE_S. It has no session, and nothing to finish."""
        worker.send(signal.SIGKILL)
        self._reap_later(worker, restarts=0)

    def _reap_later(self, worker: Worker, *, restarts: int) -> asyncio.Task[int | None]:
        """Reap a worker that dies, or has died. It is none of ours any more when it is dead."""
        if worker.reaping is None:
            self.restarts += restarts
            worker.keep()
            if worker in self._idle:
                self._idle.remove(worker)
            name = f"end of a {self.name} worker"
            worker.reaping = asyncio.create_task(self._reap(worker), name=name)
            self._reaping.add(worker.reaping)
            worker.reaping.add_done_callback(self._reaping.discard)
        return worker.reaping

    async def _reap(self, worker: Worker) -> int | None:
        await worker.died()
        self._all.discard(worker)
        self._changed.set()
        try:
            return await self._template.reap(worker)
        finally:
            worker.close()

    def _overloaded(self) -> CameraError:
        return CameraError(
            Result.OVERLOADED,
            f"no {self.name} worker came free before the deadline",
            SessionEnd.NONE,
        )

    def _not_started(self, why: str | None) -> CameraError:
        return CameraError(
            Result.ERROR, f"no {self.name} worker could be started: {why}", SessionEnd.NONE
        )


def _how(status: int | None) -> str:
    if status is None:
        return "how is unknown"
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
    except (KeyError, ValueError, TypeError, OverflowError):
        return CameraError(Result.CRASHED, "the worker sent an answer that makes no sense")
