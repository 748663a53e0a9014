"""The process from which all workers are forked. Parent's side.

It has loaded the libraries, so a worker shares their memory: 14 of 15 MB. And a worker starts in
milliseconds. The process itself never gets a byte from a camera.

It does only what it is asked for. So a dead worker keeps its process id until we ask to reap it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from typing import Any

from camserver.host.tasks import finish
from camserver.workers.process import Worker

LIMIT_S = 10.0
"""How long it may take to load the libraries and to answer. Then it is killed."""
MAX_ANSWER_BYTES = 256
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


class WorkerTemplate:
    """Starts the process when it is needed, again when it has died. Its workers die with it."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._control: socket.socket | None = None
        self._asking = asyncio.Lock()
        self._is_closed = False

    async def fork(self, name: str, memory_bytes: int, port: int) -> Worker:
        """Start a worker of the kind `name`. See WorkerPool. Raises OSError.

        When this is cancelled while the process forks, the process is ended, and all its workers
        with it: otherwise nobody would own the new one.
        """
        request = {"fork": name, "memory_bytes": memory_bytes, "port": port}
        async with self._asking:
            process, control = await self._running()
            ours, its = socket.socketpair()
            try:
                with its:
                    pid = await self._answer(control, request, its)
            except BaseException:
                ours.close()
                raise
            try:
                return await Worker.connected(pid, process.pid, ours)
            except OSError:  # such as: no descriptor is left
                ours.close()
                with contextlib.suppress(ProcessLookupError):  # the process has died
                    os.kill(pid, signal.SIGKILL)
                await finish(self._answer(control, {"reap": pid}), on_cancel=self._kill)
                raise
            except BaseException:
                ours.close()
                await finish(self._end())
                raise

    async def reap(self, worker: Worker) -> int | None:
        """Reap a worker that has died. The result is as of Popen.returncode. None: it is unknown.

        It is unknown when the process from which it was forked has ended, too.
        """
        async with self._asking:
            process, control = self._process, self._control
            if process is None or control is None or process.pid != worker.parent_pid:
                return None
            try:
                return await self._answer(control, {"reap": worker.pid})
            except OSError:
                return None

    async def close(self) -> None:
        """End the process, also while an answer is awaited that does not come. No other starts."""
        self._is_closed = True
        self._kill()
        async with self._asking:
            await self._end()

    async def _answer(
        self, control: socket.socket, request: dict[str, Any], *descriptors: socket.socket
    ) -> int:
        """Send a request, and return what is in the answer. Raises OSError.

        Without an answer the process is ended.
        """
        message = b""
        try:
            async with asyncio.timeout(LIMIT_S):
                fds = [each.fileno() for each in descriptors]
                socket.send_fds(control, [json.dumps(request).encode()], fds)
                message = await asyncio.get_running_loop().sock_recv(control, MAX_ANSWER_BYTES)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"no answer within {LIMIT_S:g} s") from None
        finally:
            if not message:
                await finish(self._end())
        if not message:
            raise OSError(errno.ECHILD, "the process that starts them has died")
        answer = json.loads(message)
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return int(answer["result"])

    async def _running(self) -> tuple[Process, socket.socket]:
        """The process and its socket. It is started if there is none. Raises OSError."""
        if self._is_closed:
            raise OSError(errno.ESHUTDOWN, "it is being stopped")
        if self._process is not None and self._process.returncode is not None:
            await self._end()
        if self._process is None or self._control is None:
            self._control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._control.setblocking(False)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-I",
                    "-m",
                    "camserver.capture.worker_template",
                    str(os.getpid()),
                    stdin=its.fileno(),
                    stdout=DEVNULL,
                    stderr=DEVNULL,
                    cwd="/",
                    start_new_session=True,
                    env=ENVIRONMENT,
                )
            except RuntimeError as error:  # the machine has no thread left: Python 3.11 needs one
                await finish(self._end())
                raise OSError(errno.EAGAIN, str(error)) from None
            except BaseException:
                await finish(self._end())
                raise
            finally:
                its.close()
        return self._process, self._control

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _end(self) -> None:
        self._kill()
        process, self._process = self._process, None
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if process is not None:
            await process.wait()
