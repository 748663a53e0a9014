"""Install a filter of system calls through libseccomp. Child's side.

libseccomp resolves the names of calls, so a filter is valid on every architecture.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable

# seccomp.h
ALLOW, REFUSE, FILTER_ALL_THREADS = 0x7FFF0000, 0x00050000 | errno.EPERM, 4
LIBSECCOMP = "libseccomp.so.2"


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp: an argument of a call (its number), compared with a value."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def install(default: int, action: int, rules: Iterable[tuple[str, Compare | None]]) -> str:
    """Do `action` for the calls of `rules`, and `default` for all others. It cannot be undone.

    A rule is a call's name, and what an argument of it must be (None: anything). Returns "", or the
    reason when it could not be done.
    """
    try:
        lib = ctypes.CDLL(LIBSECCOMP)
    except OSError:
        return f"{LIBSECCOMP} is not installed"
    lib.seccomp_init.restype = ctypes.c_void_p
    filter_ = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(default)))
    # The filter is also for threads that libraries have started
    lib.seccomp_attr_set(filter_, FILTER_ALL_THREADS, 1)
    for name, compare in rules:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # this architecture does not have the call
            continue
        count, array = (0, None) if compare is None else (1, ctypes.byref(compare))
        lib.seccomp_rule_add_array(filter_, ctypes.c_uint32(action), number, count, array)
    status: int = lib.seccomp_load(filter_)
    lib.seccomp_release(filter_)
    return "" if status == 0 else f"the kernel refuses seccomp ({os.strerror(-status)})"
