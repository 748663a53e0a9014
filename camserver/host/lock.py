"""Locks that say which processes may open sessions for an output directory.

Either one daemon may run, or several snapshot commands for different devices.

They are file locks (flock(2)). The kernel releases a lock when its holder dies.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
from pathlib import Path
from typing import IO

NAME = ".camserver.lock"
RETRY_S = 0.05
"""The interval between attempts. A blocking flock(2) would need a thread that can't be stopped."""
START_WAIT_S = 10.0
"""How long a starting daemon waits for running snapshot commands."""


async def lock_for_daemon(directory: Path) -> IO[str] | None:
    """Lock the whole directory. None when another daemon has it.

    It waits for running snapshot commands: None when they still run after START_WAIT_S. Raises
    OSError when the directory can't be written.
    """
    file = _open(directory, NAME)
    deadline = _now() + START_WAIT_S
    while not _take(file, fcntl.LOCK_EX):
        # When even a shared lock fails, the holder is a daemon
        if not _take(file, fcntl.LOCK_SH) or _now() >= deadline:
            file.close()
            return None
        fcntl.flock(file, fcntl.LOCK_UN)
        await asyncio.sleep(RETRY_S)
    return file


async def lock_for_snapshot(
    directory: Path, device: str, wait_s: float
) -> tuple[IO[str], IO[str]] | None:
    """Lock one device. None when a daemon is running.

    Raises TimeoutError when another snapshot of the device takes longer than `wait_s` seconds, and
    OSError when the directory can't be written.
    """
    shared = _open(directory, NAME)
    if not _take(shared, fcntl.LOCK_SH):
        shared.close()
        return None
    own = _open(directory, f".camserver-{hashlib.sha256(device.encode()).hexdigest()[:16]}.lock")
    deadline = _now() + wait_s
    while not _take(own, fcntl.LOCK_EX):
        if _now() >= deadline:
            shared.close()
            own.close()
            raise TimeoutError
        await asyncio.sleep(RETRY_S)
    return shared, own


def _open(directory: Path, name: str) -> IO[str]:
    directory.mkdir(parents=True, exist_ok=True)
    return (directory / name).open("a")


def _take(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _now() -> float:
    return asyncio.get_running_loop().time()
