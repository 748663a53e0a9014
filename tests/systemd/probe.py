"""Runs in the sandbox of the unit, before the daemon: prints what it could do and must not."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)


def call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def map_writable_code() -> None:
    LIBC.mmap.restype = ctypes.c_void_p
    if LIBC.mmap(None, 4096, 7, 0x22, -1, 0) == ctypes.c_void_p(-1).value:
        raise OSError


ATTEMPTS: dict[str, Callable[[], object]] = {
    "write /etc": lambda: Path("/etc/camserver/x").write_text("x"),
    "write /usr": lambda: Path("/usr/x").write_text("x"),
    "write /opt": lambda: Path("/opt/camserver/x").write_text("x"),
    "read /etc/shadow": lambda: Path("/etc/shadow").read_text(),
    "see /home": lambda: Path("/home/go2rtc/x").write_text("x"),
    "a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3),
    "a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "a new namespace": lambda: call(LIBC.unshare(0x10000000)),
    "a mount": lambda: call(LIBC.mount(b"x", b"/tmp", b"tmpfs", 0, None)),
    "another user": lambda: os.setuid(0),
    "set the clock": lambda: call(LIBC.settimeofday(ctypes.create_string_buffer(16), None)),
    "set the host name": lambda: call(LIBC.sethostname(b"x", 1)),
    "trace a process": lambda: call(LIBC.ptrace(16, 1, None, None)),
    "a device": lambda: os.mknod("/run/camserver/x", stat.S_IFBLK | 0o600, os.makedev(7, 0)),
    "kernel settings": lambda: Path("/proc/sys/kernel/hostname").write_text("x"),
    "writable code": map_writable_code,
    "load a module": lambda: call(LIBC.syscall(313, 0, b"", 0)),
}


def main() -> None:
    done = []
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
        except (OSError, ValueError):
            continue
        done.append(name)
    # landlock_create_ruleset must be allowed: the workers limit themselves
    version = LIBC.syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 0 and ctypes.get_errno() == errno.EPERM:
        done.append("(Landlock is refused)")
    Path("/run/camserver/probe").write_text(f"{len(ATTEMPTS)} tried: {', '.join(done)}\n")


if __name__ == "__main__":
    main()
