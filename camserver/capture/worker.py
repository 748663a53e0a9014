"""The main loop of a worker process: limits first, then one job after the other. Child's side.

It is started as `python -I -m camserver.capture.worker PARENT_PID MEMORY_BYTES NAME PORT`. Jobs
come on stdin. Replies go to the original stdout. The process ends when its stdin ends. The kernel
kills it when its parent dies.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import camserver
from camserver.errors import CameraError
from camserver.model import Result, SessionEnd
from camserver.workers.landlock import restrict
from camserver.workers.pool import FRAME
from camserver.workers.restraint import restrain
from camserver.workers.sandbox import confine, limit_cpu, seal

Job = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]


def serve(requests: BinaryIO, replies: BinaryIO, jobs: dict[str, Job], unsealed: str) -> None:
    """Answer requests until stdin ends.

    Every reply has the field `unsealed`: why this process is not sealed, or "".
    """
    while True:
        frame = requests.read(FRAME.size)
        if len(frame) < FRAME.size:
            return
        header_bytes, blob_bytes = FRAME.unpack(frame)
        request = json.loads(requests.read(header_bytes))
        limit_cpu()
        data, blob = _attempt(jobs[request["job"]], request, requests.read(blob_bytes))
        header = json.dumps(data | {"unsealed": unsealed}).encode()
        replies.write(FRAME.pack(len(header), len(blob)) + header)
        replies.write(blob)
        replies.flush()


def _attempt(job: Job, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        return job(request, blob)
    except CameraError as error:
        return {
            "error": str(error),
            "result": error.result,
            "end": error.end,
            "status": error.status,
            "step": error.step,
            "login_refused": error.login_refused,
            "packets_lost": error.packets_lost,
        }, b""
    except MemoryError:
        return {
            "error": "the picture needs more memory than a worker may use",
            "result": Result.BAD_PICTURE,
            "end": SessionEnd.UNCLEAN,
        }, b""
    # The process boundary: only our own texts may leave the process
    except Exception as error:  # noqa: BLE001
        # Not str(error): libav's texts contain URLs with passwords.
        return {
            "error": f"unexpected {type(error).__name__} in a worker",
            "result": Result.ERROR,
            "end": SessionEnd.UNCLEAN,
        }, b""


def main() -> None:
    """Run the worker process."""
    confine(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # output printed by C code must not reach the pipe
        os.dup2(null, fd)
    if sys.argv[3] == "session":  # libav's RTSP needs the network
        # The import is here because libav must be loaded after the limits are set
        from camserver.capture import libav_session  # noqa: PLC0415

        jobs: dict[str, Job] = {"fetch": libav_session.fetch_job}
        # Python and PyAV load some modules late. libav wants random numbers.
        paths = {sysconfig.get_path(name) for name in ("stdlib", "platlib", "purelib")}
        ours = str(Path(camserver.__file__).parent)
        refused = restrain()  # first: it loads a library
        unsealed = restrict(int(sys.argv[4]), (*paths, ours, "/dev/urandom")) or refused
        serve(requests, replies, jobs, unsealed)
    else:
        from camserver.capture import decode  # noqa: PLC0415 - as above

        decode.warm_up()
        serve(
            requests, replies, {"decode": decode.decode_job, "inspect": decode.inspect_job}, seal()
        )


if __name__ == "__main__":
    main()
