"""The main loop of a worker process: limits first, then one job after the other. Child's side.

Started as `python -I -m camserver.capture.worker PARENT_PID MEMORY_BYTES NAME`; jobs come on stdin, replies go to what
was stdout. Ends when its stdin ends, and is killed by the kernel when its parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from camserver.capture.isolation import FRAME
from camserver.errors import CameraError
from camserver.records import Result, SessionEnd

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 38   # linux/prctl.h

Job = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]


def confine(parent_pid: int, memory_bytes: int, name: str) -> None:
    """Die with the parent, dump no core, gain nothing, use no more than `memory_bytes`."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:      # it died before the line above
        os._exit(0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_NAME, f"cam-{name}".encode()[:15], 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with contextlib.suppress(OSError):
        os.nice(5)      # decoding must not make the daemon late


def serve(requests: BinaryIO, replies: BinaryIO, jobs: dict[str, Job]) -> None:
    """Answer requests until they end."""
    while True:
        frame = requests.read(FRAME.size)
        if len(frame) < FRAME.size:
            return
        header_bytes, blob_bytes = FRAME.unpack(frame)
        request = json.loads(requests.read(header_bytes))
        data, blob = _attempt(jobs[request["job"]], request, requests.read(blob_bytes))
        header = json.dumps(data).encode()
        replies.write(FRAME.pack(len(header), len(blob)) + header)
        replies.write(blob)
        replies.flush()


def _attempt(job: Job, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        return job(request, blob)
    except CameraError as error:
        return {"error": str(error), "result": error.result, "end": error.end}, b""
    except MemoryError:
        return {"error": "the picture needs more memory than a worker may use", "result": Result.BAD_PICTURE,
                "end": SessionEnd.UNCLEAN}, b""
    except Exception as error:  # noqa: BLE001 - the border of the process: nothing may cross it but our own words
        # Not str(error): libav quotes URLs with passwords.
        return {"error": f"unexpected {type(error).__name__} in a worker", "result": Result.ERROR,
                "end": SessionEnd.UNCLEAN}, b""


def main() -> None:
    """Entry point of the process."""
    confine(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):        # C code that prints must not reach the pipe
        os.dup2(null, fd)
    from camserver.capture import decode, libav_session  # noqa: PLC0415 - libav is loaded after the limits are set

    serve(requests, replies, {"decode": decode.decode_job, "inspect": decode.inspect_job, "fetch": libav_session.fetch_job})


if __name__ == "__main__":
    main()
