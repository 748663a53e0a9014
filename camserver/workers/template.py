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
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from typing import Any

from camserver.workers.process import Worker

LIMIT_S = 30.0
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

    async def fork(self, name: str, memory_bytes: int, port: int) -> Worker:
        """Start a worker of the kind `name`. See WorkerPool. Raises OSError.

        It must not be cancelled: then nobody would own the worker.
        """
        ours, its = socket.socketpair()
        try:
            request = {"fork": name, "memory_bytes": memory_bytes, "port": port}
            pid = await self._ask(request, its)
        except OSError:
            ours.close()
            raise
        finally:
            its.close()
        return await Worker.connected(pid, ours)

    async def reap(self, worker: Worker) -> int | None:
        """Reap a worker that has died. The result is as of Popen.returncode. None: it is unknown.

        It is unknown when the process from which it was forked has died, too.
        """
        try:
            return await self._ask({"reap": worker.pid})
        except OSError:
            return None

    async def close(self) -> None:
        """End the process."""
        async with self._asking:
            await self._end()

    async def _ask(self, request: dict[str, Any], descriptor: socket.socket | None = None) -> int:
        """Send a request. Returns what is in the answer. Raises OSError."""
        async with self._asking:
            control = await self._running()
            try:
                async with asyncio.timeout(LIMIT_S):
                    fds = [] if descriptor is None else [descriptor.fileno()]
                    socket.send_fds(control, [json.dumps(request).encode()], fds)
                    message = await asyncio.get_running_loop().sock_recv(control, MAX_ANSWER_BYTES)
            except TimeoutError:
                await self._end()
                raise OSError(errno.ETIMEDOUT, f"no answer within {LIMIT_S:g} s") from None
            except OSError:  # it died just now
                await self._end()
                raise
            if not message:
                await self._end()
                raise OSError(errno.ECHILD, "the process that starts them has died")
            answer = json.loads(message)
            if "errno" in answer:
                raise OSError(answer["errno"], os.strerror(answer["errno"]))
            return int(answer["result"])

    async def _running(self) -> socket.socket:
        """The socket of the running process, which is started if there is none."""
        if self._process is not None and self._process.returncode is not None:
            await self._end()
        if self._control is None:
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
            except OSError:
                await self._end()
                raise
            finally:
                its.close()
        return self._control

    async def _end(self) -> None:
        process, self._process = self._process, None
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
