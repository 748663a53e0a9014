"""The process from which all workers are forked. Child's side.

It is started as `python -I -m camserver.capture.worker_template PARENT_PID`. Requests come on
stdin, which is a socket, and are answered there. The process ends when stdin ends. The kernel kills
it when its parent dies, and kills its workers when it dies.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import sys
from typing import Any

from camserver.capture.worker import work  # loads all libraries
from camserver.workers.sandbox import confine, limit_memory

MAX_REQUEST_BYTES = 256


def main() -> None:
    """Fork and reap workers, as we are asked to."""
    confine(int(sys.argv[1]), "template")
    with contextlib.suppress(OSError):
        os.nice(5)  # decoding must not make the daemon late
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # output printed by C code must not reach a socket
        os.dup2(null, fd)
    os.close(null)
    gc.collect()
    gc.freeze()  # a collection in a worker would write to the memory that it shares
    while True:
        message, fds, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 1)
        if not message:
            return
        request = json.loads(message)
        try:
            result = _reap(request["reap"]) if "reap" in request else _fork(request, fds, control)
        except OSError as error:
            answer = {"errno": error.errno}
        else:
            answer = {"result": result}
        control.send(json.dumps(answer).encode())


def _reap(pid: int) -> int:
    """The exit status of a worker that has died, or was killed. Raises ChildProcessError."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fork(request: dict[str, Any], fds: list[int], control: socket.socket) -> int:
    """Start a worker, which serves the socket in `fds`. Returns its process id. Raises OSError."""
    template = os.getpid()
    try:
        pid = os.fork()
        if not pid:
            control.close()
            _become_worker(request, fds[0], template)
        return pid
    finally:
        os.close(fds[0])


def _become_worker(request: dict[str, Any], channel: int, template: int) -> None:
    """Serve the socket `channel` until it ends, then exit. This never returns."""
    status = 1
    try:
        confine(template, request["fork"])
        limit_memory(request["memory_bytes"])
        with os.fdopen(os.dup(channel), "rb") as requests, os.fdopen(channel, "wb") as replies:
            work(requests, replies, request["fork"], request["port"])
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
