"""Refuse the system calls by which a session worker could get around Landlock. Child's side.

Landlock limits TCP connections by connect(2), and files that are opened. What it does not see is
refused here by seccomp, through libseccomp: sockets of other kinds (unix sockets, MPTCP), TCP Fast
Open, io_uring, and signals to other processes. UDP stays: a session by UDP needs it.
"""

from __future__ import annotations

import ctypes
import os
import socket

from camserver.workers.sandbox import (
    LIBSECCOMP,
    SCMP_ACT_ALLOW,
    SCMP_ACT_EPERM,
    SCMP_FLTATR_CTL_TSYNC,
)

MSG_FASTOPEN = 0x20000000
REFUSED = ("io_uring_setup", "pidfd_send_signal", "ptrace", "process_vm_writev", "pidfd_getfd")
"""Calls that no session needs."""
_NE, _LT, _EQ, _GT, _MASKED_EQ = 1, 2, 4, 6, 7  # enum scmp_compare


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp: an argument of a call, compared with a value."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def _rules() -> list[tuple[str, _Compare]]:
    """The calls that are refused, each with the argument that makes it so."""
    kinds = (socket.AF_INET, socket.AF_INET6)
    protocols = (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP)
    rules = [
        ("socket", _Compare(0, _GT, max(kinds), 0)),
        ("socket", _Compare(2, _GT, max(protocols), 0)),
        ("sendto", _Compare(3, _MASKED_EQ, MSG_FASTOPEN, MSG_FASTOPEN)),
        ("sendmsg", _Compare(2, _MASKED_EQ, MSG_FASTOPEN, MSG_FASTOPEN)),
        ("sendmmsg", _Compare(3, _MASKED_EQ, MSG_FASTOPEN, MSG_FASTOPEN)),
        ("kill", _Compare(0, _NE, os.getpid(), 0)),
        ("tgkill", _Compare(0, _NE, os.getpid(), 0)),
    ]
    rules += [
        ("socket", _Compare(0, _EQ, kind, 0)) for kind in range(max(kinds)) if kind not in kinds
    ]
    rules += [
        ("socket", _Compare(2, _EQ, protocol, 0))
        for protocol in range(max(protocols))
        if protocol not in protocols
    ]
    return rules


def restrain() -> str:
    """Refuse these calls from now on. This cannot be undone.

    Returns "", or the reason when it could not be done.
    """
    try:
        lib = ctypes.CDLL(LIBSECCOMP)
    except OSError:
        return f"{LIBSECCOMP} is not installed"
    lib.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(SCMP_ACT_ALLOW)))
    lib.seccomp_attr_set(rules, SCMP_FLTATR_CTL_TSYNC, 1)
    refuse = ctypes.c_uint32(SCMP_ACT_EPERM)
    for name in REFUSED:
        if (number := lib.seccomp_syscall_resolve_name(name.encode())) >= 0:
            lib.seccomp_rule_add_array(rules, refuse, number, 0, None)
    for name, compare in _rules():
        if (number := lib.seccomp_syscall_resolve_name(name.encode())) >= 0:
            lib.seccomp_rule_add_array(rules, refuse, number, 1, ctypes.byref(compare))
    status: int = lib.seccomp_load(rules)
    lib.seccomp_release(rules)
    return "" if status == 0 else f"the kernel refuses seccomp ({os.strerror(-status)})"
