"""Limit a worker process: its memory, its CPU time, and its system calls. Child's side.

A compromised decoder must not reach anything. It may compute, use its memory, read and write the
socket that it has, and exit. The kernel (seccomp) enforces the list of system calls through
libseccomp, which apt and systemd need too. libseccomp resolves the names, so the list is valid on
every architecture. Refused calls fail with EPERM, so a library that only tries a call continues
without it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from camserver.workers.seccomp import ALLOW, REFUSE, install

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 38  # linux/prctl.h
CPU_S = 20
"""CPU seconds that one job may use. Decoding the largest accepted picture takes less than 5."""

COMPUTING = (
    "read",
    "write",
    "close",
    "exit",
    "exit_group",
    "rt_sigreturn",
    "restart_syscall",
    "brk",
    "mmap",
    "mmap2",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "futex",
    "futex_time64",
    "rt_sigprocmask",
    "rt_sigaction",
    "sigaltstack",
    "gettid",
    "getpid",
    "clock_gettime",
    "clock_gettime64",
    "gettimeofday",
    "getrandom",
    "sched_yield",
    "sched_getaffinity",
    "fstat",
    "lseek",
    "setitimer",
)
"""The system calls that decoding and encoding need.

No call takes a path, makes a socket, a process or a thread, or names another process. So tgkill is
not in the list (abort ends the process without it), and neither is prlimit.
"""


def confine(parent_pid: int, name: str) -> None:
    """Set the first limits: die with the parent, no core dump, no new privileges."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # the parent died before the line above
        os._exit(0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_NAME, f"cam-{name}".encode()[:15], 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_memory(memory_bytes: int) -> None:
    """Limit the address space."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def seal() -> str:
    """Allow only the system calls in COMPUTING from now on. This cannot be undone.

    Call it after everything is loaded. Returns "", or the reason when it could not be done.
    """
    return install(REFUSE, ALLOW, ((name, None) for name in COMPUTING))


def limit_cpu() -> None:
    """Let the next job use CPU_S seconds of CPU time. After that SIGPROF ends the process."""
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
