"""The main loop of a worker process: limits first, then one job after the other. Child's side.

`worker_template` forks the process after it has loaded this module, and with it all libraries. The
process ends when its socket ends.
"""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import camserver
from camserver.capture import decode, libav_session
from camserver.errors import CameraError
from camserver.model import Result, SessionEnd
from camserver.workers.landlock import restrict
from camserver.workers.process import FRAME
from camserver.workers.restraint import restrain
from camserver.workers.sandbox import limit_cpu, seal

Job = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]


def serve(requests: BinaryIO, replies: BinaryIO, jobs: dict[str, Job], unsealed: str) -> None:
    """Answer requests until they end.

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


def work(requests: BinaryIO, replies: BinaryIO, name: str, port: int) -> None:
    """Seal this process off, then do jobs of the kind `name` until `requests` ends.

    A "session" worker may connect to `port` only.
    """
    jobs: dict[str, Job]
    if name == "session":  # libav's RTSP needs the network
        jobs = {"fetch": libav_session.fetch_job}
        # Python and PyAV load some modules late. libav wants random numbers.
        paths = {sysconfig.get_path(name) for name in ("stdlib", "platlib", "purelib")}
        ours = str(Path(camserver.__file__).parent)
        refused = restrain()  # first: it loads a library
        unsealed = restrict(port, (*paths, ours, "/dev/urandom")) or refused
    else:
        jobs = {"decode": decode.decode_job, "inspect": decode.inspect_job}
        decode.warm_up()
        unsealed = seal()
    serve(requests, replies, jobs, unsealed)
