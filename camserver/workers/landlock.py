"""Let a worker read its libraries only, and connect to one TCP port only. Child's side.

The kernel's Landlock does it, without any privilege (landlock(7)). libseccomp cannot: a system call
filter does not see the address that a process connects to.

What it does not limit: UDP, and the address of the host. So a port that only the daemon listens on
should be given.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable
from pathlib import Path

from camserver.workers.sandbox import PR_SET_NO_NEW_PRIVS

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
RULESET_VERSION = 1  # a flag of CREATE_RULESET
RULE_PATH_BENEATH, RULE_NET_PORT = 1, 2
READ_FILE, READ_DIR = 4, 8
BIND_TCP, CONNECT_TCP = 1, 2
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""The number of file rights, by version. Later versions have 16."""
NETWORK_VERSION = 4


def version() -> int:
    """The version of Landlock that the kernel has. 0 for none; then errno of ctypes says why."""
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), RULESET_VERSION)
    return max(0, found)


def restrict(port: int, readable: Iterable[str] = ()) -> str:
    """Allow TCP connections to `port` only, and no file but those of `readable`, for reading.

    `readable` are files and folders. Listening and execution are refused, too. Descriptors that are
    open stay usable. This cannot be undone. Returns "", or the reason when it could not be done, or
    only in part.
    """
    abi = version()
    if abi == 0:
        return f"the kernel has no Landlock ({os.strerror(ctypes.get_errno())})"
    libc = ctypes.CDLL(None, use_errno=True)
    files = (1 << FILE_RIGHTS.get(abi, 16)) - 1
    has_network = abi >= NETWORK_VERSION
    handled = struct.pack("=QQ", files, BIND_TCP | CONNECT_TCP if has_network else 0)
    ruleset = libc.syscall(CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return f"Landlock: {os.strerror(ctypes.get_errno())}"
    try:
        for path in readable:
            _allow_reading(libc, ruleset, path)
        rule = struct.pack("=QQ", CONNECT_TCP, port)
        if has_network and libc.syscall(ADD_RULE, ruleset, RULE_NET_PORT, rule, 0) < 0:
            return f"Landlock: {os.strerror(ctypes.get_errno())}"
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.syscall(RESTRICT_SELF, ruleset, 0) < 0:
            return f"Landlock: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(ruleset)
    if has_network:
        return ""
    return f"Landlock of Linux {platform.release()} does not limit connections (6.7 does)"


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    """Add a rule. A path that does not exist needs none."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = READ_FILE | READ_DIR if Path(path).is_dir() else READ_FILE
        libc.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)
