"""sd_notify, the watchdog, and sockets that systemd passes to the daemon.

This is the only module that uses systemd.daemon. Without a notify socket (a console, a container)
every notification does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

try:
    # mypy mistakes the folder ./systemd for this package
    from systemd import daemon as _systemd  # type: ignore[attr-defined, unused-ignore]
except ImportError:  # not Linux
    _systemd = None


def notify(state: str) -> None:
    """Send one state string, for example READY=1.

    It never raises, because a broken notify socket must not end the daemon.
    """
    if _systemd is not None:
        try:
            _systemd.notify(state)
        except OSError:  # stale NOTIFY_SOCKET: ConnectionRefusedError (systemd-python 235)
            return


def inherited_socket(name: str) -> socket.socket | None:
    """The listening socket that systemd passed under `name`, or None.

    The name is FileDescriptorName= of the socket unit.
    """
    if _systemd is None:
        return None
    found = None
    with contextlib.suppress(OSError, ValueError):
        for fd, of in _systemd.listen_fds_with_names(unset_environment=False).items():
            if of == name:
                found = socket.socket(fileno=os.dup(fd))
                found.setblocking(False)
    return found


def reloading() -> None:
    """Send RELOADING=1 with the monotonic time, which Type=notify-reload requires.

    Older versions of systemd ignore the time.
    """
    from time import CLOCK_MONOTONIC, clock_gettime_ns  # noqa: PLC0415 - only on reload

    notify(f"RELOADING=1\nMONOTONIC_USEC={clock_gettime_ns(CLOCK_MONOTONIC) // 1000}")


def watchdog_interval_s() -> float | None:
    """The watchdog interval of systemd in seconds, or None (sd_watchdog_enabled(3))."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdigit() or int(usec) == 0 or pid != str(os.getpid()):
        return None
    return int(usec) / 1_000_000


async def watchdog() -> None:
    """Send WATCHDOG=1 at a third of the interval.

    It runs in the event loop, so systemd detects a hung loop.
    """
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s / 3)
