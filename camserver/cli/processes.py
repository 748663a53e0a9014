"""The processes of a wrapped command: its children, orphans, signals, and the death of a parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def children() -> Iterator[int]:
    """Yield the ids of our children: CMD, and the processes that it left."""
    me = str(os.getpid())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(errors="replace")
        except OSError:
            continue
        if text.rpartition(")")[2].split()[1] == me:
            yield int(stat.parent.name)


def adopt_orphans() -> None:
    """Let processes whose parents have ended become children of this process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_all(but: Collection[int]) -> None:
    """Kill all children but some, and those that become our children then, until none is left."""
    while pids := [pid for pid in children() if pid not in but]:
        for pid in pids:
            kill(pid, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def kill(pid: int, number: int) -> None:
    """Send a signal to a process, which may have ended, or belong to another user (sudo)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def begin(parent: int, mask: Iterable[int]) -> None:
    """Prepare CMD's process before exec: it dies with the guardian, with the signal mask `mask`."""
    die_with(parent, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def die_with(parent: int, number: int) -> None:
    """Let the kernel send signal `number` to this process when the parent dies in any way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def say(text: str) -> None:
    """Tell the person who ran the command."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"camserver lease: {text}", file=sys.stderr)
