"""A decoder that was taken over reaches nothing: the kernel refuses, inside the real worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap

import pytest

from camserver.workers.process import FRAME


def in_a_decoder(code: str, before: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run `code` as the body of a job of a real decoder worker.

    What it returns comes back as the reply's data.
    """
    program = f"""if True:
        import os, sys
        from camserver.capture import decode, worker
        from camserver.workers import sandbox as confinement, seccomp
        import resource, signal, socket, subprocess, threading
        {before}
        def job(request, blob):
{textwrap.indent(textwrap.dedent(code), " " * 12)}
        decode.inspect_job = job
        requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        confinement.confine(os.getppid(), "decoder")
        worker.work(requests, replies, "decoder", 0)"""
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
