"""The output directory of a daemon: its lock, and what becomes of it while the daemon runs.

A disk may be unmounted below the daemon. Then the path leads to the folder below the mount point,
usually on the system's disk, and pictures must not fill that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from camserver.events import DaemonLocked, Event, OutputBack, OutputLost
from camserver.host.lock import DISK_S, DirectoryLock, LockState, lock_for_daemon
from camserver.host.threads import DaemonThreads

CHECK_S = 5.0

_REASONS = {
    LockState.OTHER_FILE_SYSTEM: (
        "is on another file system than before (was the disk unmounted?): nothing is written there;"
        " mount the disk again, or restart camserver if this is meant"
    ),
    LockState.NO_ANSWER: f"did not answer within {DISK_S:g} s",
}


class OutputDirectory:
    """Holds the lock of the output directory. Only one daemon may write to it."""

    def __init__(self, path: Path, emit: Callable[[Event], None]) -> None:
        self.path = path
        self._emit = emit
        self._lock: DirectoryLock | None = None
        self._lost = False
        self._thread = DaemonThreads(1, "output directory")
        self._check: asyncio.Future[LockState] | None = None

    @property
    def file_system(self) -> int | None:
        """The st_dev on which pictures may be written. None while it is not known."""
        return None if self._lock is None else self._lock.file_system

    @property
    def is_usable(self) -> bool:
        """Whether the directory is locked, and was the right one when it was checked last."""
        return self._lock is not None and not self._lost

    async def take(self) -> bool:
        """Lock the directory. False when another daemon has it.

        A directory that can't be written does not prevent a start: `keep` tries again.
        """
        try:
            lock = await lock_for_daemon(self.path)
        except OSError as error:  # also TimeoutError
            self._say_lost(f"cannot be locked: {error.strerror or error}")
            return True
        if lock is None and self._lock is not None and self._lock.is_at_its_path():
            lock = self._lock  # it is our own
        if lock is None:
            self._emit(DaemonLocked(reason=f"another camserver already writes to {self.path}"))
            return False
        if lock is not self._lock:
            self.release()
            self._lock = lock
        self._say_back()
        return True

    async def keep(self) -> None:
        """Keep the directory locked. Return when another daemon has locked it meanwhile."""
        while True:
            await asyncio.sleep(CHECK_S)
            match await self._state():
                case LockState.HELD:
                    self._say_back()
                case LockState.REPLACED:  # locking creates the folder
                    if not await self.take():
                        return
                case state:
                    self._say_lost(_REASONS[state])

    def release(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _state(self) -> LockState:
        if self._lock is None:
            return LockState.REPLACED
        if self._check is None:  # a check that hangs has a thread: there is only one
            self._check = asyncio.wrap_future(self._thread.submit(self._lock.state))
        done, _ = await asyncio.wait({self._check}, timeout=DISK_S)
        if not done:
            return LockState.NO_ANSWER
        check, self._check = self._check, None
        try:
            return check.result()
        except OSError:
            return LockState.NO_ANSWER

    def _say_lost(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            self._emit(OutputLost(directory=str(self.path), reason=reason))

    def _say_back(self) -> None:
        if self._lost:
            self._lost = False
            self._emit(OutputBack(directory=str(self.path)))
