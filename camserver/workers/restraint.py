"""Refuse the system calls by which a session worker could get around Landlock. Child's side.

Landlock limits TCP connections by connect(2), and files that are opened. What it does not see is
refused here by seccomp, through libseccomp: sockets of other kinds (unix sockets, MPTCP), TCP Fast
Open, io_uring, and signals to other processes. UDP stays: a session by UDP needs it.
"""

from __future__ import annotations

import os
import socket

from camserver.workers.seccomp import ALLOW, REFUSE, Compare, install

MSG_FASTOPEN = 0x20000000
REFUSED = ("io_uring_setup", "pidfd_send_signal", "ptrace", "process_vm_writev", "pidfd_getfd")
"""Calls that no session needs."""
_NE, _LT, _EQ, _GT, _MASKED_EQ = 1, 2, 4, 6, 7  # enum scmp_compare


def _rules() -> list[tuple[str, Compare | None]]:
    """The calls that are refused, some only with an argument that makes them so."""
    kinds = (socket.AF_INET, socket.AF_INET6)
    protocols = (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP)
    rules: list[tuple[str, Compare | None]] = [
        *((name, None) for name in REFUSED),
        ("socket", Compare(0, _GT, max(kinds), 0)),
        ("socket", Compare(2, _GT, max(protocols), 0)),
        ("sendto", Compare(3, _MASKED_EQ, MSG_FASTOPEN, MSG_FASTOPEN)),
        ("sendmsg", Compare(2, _MASKED_EQ, MSG_FASTOPEN, MSG_FASTOPEN)),
        ("sendmmsg", Compare(3, _MASKED_EQ, MSG_FASTOPEN, MSG_FASTOPEN)),
        ("kill", Compare(0, _NE, os.getpid(), 0)),
        ("tgkill", Compare(0, _NE, os.getpid(), 0)),
    ]
    rules += [
        ("socket", Compare(0, _EQ, kind, 0)) for kind in range(max(kinds)) if kind not in kinds
    ]
    rules += [
        ("socket", Compare(2, _EQ, protocol, 0))
        for protocol in range(max(protocols))
        if protocol not in protocols
    ]
    return rules


def restrain() -> str:
    """Refuse these calls from now on. This cannot be undone.

    Returns "", or the reason when it could not be done.
    """
    return install(ALLOW, REFUSE, _rules())
