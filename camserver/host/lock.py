"""Locks that say which processes may open sessions for an output directory.

Either one daemon may run, or several snapshot commands for different devices.

They are file locks (flock(2)). The kernel releases a lock when its holder dies.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import threading
import uuid
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import IO

from camserver.host.files import file_system_of, open_regular, read_regular
from camserver.host.threads import call_within

NAME = ".camserver.lock"
RETRY_S = 0.05
"""The interval between attempts. A blocking flock(2) would need a thread that can't be stopped."""
START_WAIT_S = 10.0
"""How long a starting daemon waits for running snapshot commands."""
DISK_S = 5.0
"""How long a disk may take to open or check a lock file."""


class LockState(Enum):
    """What a locked directory is now."""

    HELD = "held"
    REPLACED = "replaced"
    """The folder or the lock file is another one, on the same file system or on the right one."""
    OTHER_FILE_SYSTEM = "other file system"
    """The path leads to another file system: the disk was unmounted, or another one mounted."""
    NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class DirectoryLock:
    """The lock of a daemon on a directory.

    The lock file contains `id`, so that the right disk is recognised when it is mounted again.
    `file_system` is the directory's st_dev.
    """

    directory: Path
    file: IO[str]
    id: str
    file_system: int

    def state(self) -> LockState:
        """Compare the directory with the one that was locked. The call blocks. Raises OSError."""
        path = self.directory / NAME
        file_system = file_system_of(self.directory)
        try:
            if os.path.samestat(path.stat(), os.fstat(self.file.fileno())):
                return LockState.HELD
            same_disk = read_regular(path).decode("ascii", "replace").strip() == self.id
        except (FileNotFoundError, NotADirectoryError):
            same_disk = False
        if same_disk or file_system == self.file_system:
            return LockState.REPLACED
        return LockState.OTHER_FILE_SYSTEM

    def is_at_its_path(self) -> bool:
        """Whether the lock file is still the one that was locked. The call blocks."""
        try:
            return os.path.samestat((self.directory / NAME).stat(), os.fstat(self.file.fileno()))
        except OSError:
            return False

    def close(self) -> None:
        """Release the lock."""
        self.file.close()


async def lock_for_daemon(directory: Path) -> DirectoryLock | None:
    """Lock the whole directory. None when another daemon has it.

    It waits for running snapshot commands: None when they still run after START_WAIT_S. Raises
    OSError when the directory can't be written, TimeoutError when the disk does not answer.
    """
    file = await call_within(DISK_S, partial(_open, directory, NAME), f"lock {directory}")
    deadline = _now() + START_WAIT_S
    while not await _take(file, fcntl.LOCK_EX):
        # When even a shared lock fails, the holder is a daemon
        if not await _take(file, fcntl.LOCK_SH) or _now() >= deadline:
            file.close()
            return None
        await _take(file, fcntl.LOCK_UN)
        await asyncio.sleep(RETRY_S)
    try:
        return await call_within(DISK_S, partial(_identified, directory, file), f"lock {directory}")
    except BaseException:
        file.close()  # otherwise this process would meet its own lock at the next try
        raise


async def lock_for_snapshot(
    directory: Path, device: str, wait_s: float
) -> tuple[IO[str], IO[str]] | None:
    """Lock one device. None when a daemon is running.

    Raises TimeoutError when another snapshot of the device takes longer than `wait_s` seconds, and
    OSError when the directory can't be written.
    """
    shared = await call_within(DISK_S, partial(_open, directory, NAME), f"lock {directory}")
    if not await _take(shared, fcntl.LOCK_SH):
        shared.close()
        return None
    name = f".camserver-{hashlib.sha256(device.encode()).hexdigest()[:16]}.lock"
    own = await call_within(DISK_S, partial(_open, directory, name), f"lock {directory}")
    deadline = _now() + wait_s
    while not await _take(own, fcntl.LOCK_EX):
        if _now() >= deadline:
            shared.close()
            own.close()
            raise TimeoutError
        await asyncio.sleep(RETRY_S)
    return shared, own


def _open(directory: Path, name: str) -> IO[str]:
    directory.mkdir(parents=True, exist_ok=True)
    return os.fdopen(open_regular(directory / name, os.O_RDWR | os.O_CREAT), "r+")


def _identified(directory: Path, file: IO[str]) -> DirectoryLock:
    """The lock with the id in its file. The first daemon writes it. A full disk takes none."""
    known = file.read(64).strip()
    if not known:
        known = uuid.uuid4().hex
        try:
            file.write(known + "\n")
            file.flush()
        except OSError:
            known = ""  # not recognised later; a restart of the daemon accepts the disk
    return DirectoryLock(directory, file, known or "?", file_system_of(directory))


async def _take(file: IO[str], how: int) -> bool:
    """Take or release a lock. False when others have it. On a network disk this may hang, too.

    Raises TimeoutError. Then the thread still has the file, and closes it when the call returns.
    """
    given_up = threading.Event()

    def take() -> bool:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            if given_up.is_set():
                file.close()
        return True

    try:
        return await call_within(DISK_S, take, f"lock {file.name}")
    except TimeoutError:
        given_up.set()
        raise


def _now() -> float:
    return asyncio.get_running_loop().time()
