"""ArchiveIndex: the index of the archive in a thread of its own, and the scan that completes it.

Published pictures are added in batches, about one a second. A daemon that is killed loses the last
batch, so the next start compares the index with the files. Once a day it does so anyway. A scan
takes only a small part of a core.

When the index is damaged, it is removed and made again from the files. When its disk takes nothing,
pictures wait in memory, up to a limit; then a scan finds them later.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from camserver.archive.database import ArchiveDatabase, ArchivedPicture, remove_database
from camserver.archive.scan import ArchiveScan, ScanPosition, ScanStep
from camserver.errors import CamserverError
from camserver.events import ArchiveScanned, Event, IndexBack, IndexLost
from camserver.host.files import file_system_of
from camserver.host.threads import DaemonThreads
from camserver.storage.naming import ArchiveNames

FLUSH_S = 1.0
MAX_WAITING = 20_000
"""Pictures that wait in memory for an index that takes nothing."""
RETRY_S = 10.0
"""The pause before an index that could not be opened is tried again."""
CHECK_S = 86400.0
BUILD_SHARE, CHECK_SHARE = 0.2, 0.01
"""The share of a core that a scan takes: for a new index, and to check a complete one."""
_NO_SPACE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
T = TypeVar("T")


class IndexUnavailable(CamserverError):  # noqa: N818 - the name describes the state
    """Raised when the index can't answer now. The message says why."""


@dataclass(frozen=True, slots=True)
class ScanState:
    """How far the index is compared with the files. It is stored in the index.

    `complete`: all files were in the index once. `newest_ms` is the time of the newest picture that
    a scan, and not this process, has added.
    """

    complete: bool = False
    camera: str = ""
    path: str = ""
    newest_ms: int | None = None


class ArchiveIndex:
    """Answers questions about the archive. `run` must run beside it."""

    def __init__(
        self,
        path: Path,
        directory: Path,
        names: ArchiveNames | None,
        emit: Callable[[Event], None],
        *,
        file_system: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`names` is None when there is no archive. `file_system` is as for SnapshotStore."""
        self.path = path
        self.directory = directory
        self.names = names
        self.scan = ScanState()
        self._emit = emit
        self._file_system = file_system
        self._thread = DaemonThreads(1, "archive index")
        self._database: ArchiveDatabase | None = None
        self._retry_at = 0.0
        self._waiting: list[ArchivedPicture] = []
        self._rescan = False  # some pictures are not in the index, or only the files know
        self._lost = False

    @property
    def is_up(self) -> bool:
        """Whether the index answered its last question."""
        return not self._lost

    def add(self, picture: ArchivedPicture) -> None:
        """Add a published picture soon."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(picture)
        else:
            self._rescan = True

    def published(self, camera: str, path: str, captured_at: datetime, size: int) -> None:
        """Add a picture that the store has published."""
        taken_ms = round(captured_at.timestamp() * 1000)
        self.add(ArchivedPicture(camera, path, taken_ms, size))

    async def ask(self, work: Callable[[ArchiveDatabase], T]) -> T:
        """Let `work` use the database, after all pictures that wait. Raises IndexUnavailable."""
        waiting, self._waiting = self._waiting, []
        try:
            answer, refused = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._ask, waiting, work
            )
        except IndexUnavailable as error:
            self._take_back(waiting, str(error))
            raise
        if refused:
            self._take_back(waiting, refused)
        elif self._lost:
            self._lost = False
            self._emit(IndexBack(path=str(self.path)))
        return answer

    def _take_back(self, waiting: list[ArchivedPicture], reason: str) -> None:
        """Keep pictures that the index did not take for the next time."""
        self._waiting = [*waiting, *self._waiting]
        if not self._lost:
            self._lost = True
            self._emit(IndexLost(path=str(self.path), reason=reason))

    async def run(self) -> None:
        """Add pictures in batches, and scan when it is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._flush(), name="archive flush")
            group.create_task(self._scans(), name="archive scan")

    async def close(self, grace_s: float) -> None:
        """Add the pictures that wait, within `grace_s` seconds, and close the database."""
        with contextlib.suppress(IndexUnavailable, TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.ask(self._close)
        self._thread.shutdown(wait=False)

    # ---- in the thread

    def _ask(
        self, waiting: list[ArchivedPicture], work: Callable[[ArchiveDatabase], T]
    ) -> tuple[T, str]:
        """The answer, and why the pictures that wait were not taken ("": they were)."""
        refused = ""
        try:
            self._check_file_system()
            database = self._open()
            if waiting:
                try:
                    database.add(waiting)
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF not in _NO_SPACE:
                        raise
                    refused = str(error)  # retention must be able to ask all the same
            return work(database), refused
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
            if code & 0xFF in _DAMAGED:
                self._discard()
                raise IndexUnavailable(f"{error}; it is made again from the files") from None
            self._retry_at = time.monotonic() + RETRY_S
            self._close()
            raise IndexUnavailable(str(error)) from None
        except OSError as error:
            self._close()
            raise IndexUnavailable(error.strerror or str(error)) from None

    def _open(self) -> ArchiveDatabase:
        if self._database is None:
            if time.monotonic() < self._retry_at:
                raise IndexUnavailable("it could not be opened")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = ArchiveDatabase(self.path)
            stored = self._database.fact("scan")
            self.scan = ScanState() if stored is None else ScanState(**stored)
            self._rescan = self._rescan or not self._database.fact("clean")
            try:
                self._database.set_fact("clean", value=False)
            except sqlite3.OperationalError:  # the disk is full; questions are answered
                self._rescan = True
        return self._database

    def _close(self, database: ArchiveDatabase | None = None) -> None:
        """Close the database. With `database`, everything is in it: the next start trusts it."""
        if database is not None:
            database.set_fact("clean", value=not self._rescan)
        if self._database is not None:
            self._database.close()
            self._database = None

    def _discard(self) -> None:
        self._close()
        self.scan = ScanState()
        with contextlib.suppress(OSError):
            remove_database(self.path)

    def _check_file_system(self) -> None:
        """Raise OSError when the disk was unmounted: all pictures would seem to be gone."""
        expected = self._file_system()
        if expected is not None and file_system_of(self.directory) != expected:
            raise OSError("the disk of the pictures was unmounted")

    # ---- jobs

    async def _flush(self) -> None:
        while True:
            if self._waiting or self._lost:
                with contextlib.suppress(IndexUnavailable):
                    await self.ask(lambda _: None)
            await asyncio.sleep(FLUSH_S)

    async def _scans(self) -> None:
        checked_at = asyncio.get_running_loop().time()
        while True:
            due = asyncio.get_running_loop().time() - checked_at > CHECK_S
            if self.names is not None and (due or self._rescan or not self.scan.complete):
                try:
                    await self._scan(self.names)
                    checked_at = asyncio.get_running_loop().time()
                except IndexUnavailable:
                    self._rescan = True
            await asyncio.sleep(FLUSH_S)

    async def _scan(self, names: ArchiveNames) -> None:
        """Compare the index with all files. Raises IndexUnavailable."""
        await self.ask(lambda _: None)  # opens it, so that its state is known
        state, started = self.scan, time.monotonic()
        share = CHECK_SHARE if state.complete else BUILD_SHARE
        # A scan that goes on from the middle does not see what came before it
        self._rescan = self._rescan and bool(state.camera)
        position = ScanPosition(state.camera, state.path)
        steps: Iterator[ScanStep] | None = None
        added = removed = 0
        while True:

            def next_step(database: ArchiveDatabase) -> tuple[ScanStep | None, float]:
                nonlocal steps
                begun = time.thread_time()
                if steps is None:
                    steps = ArchiveScan(self.directory, names, position).steps(database)
                step = next(steps, None)
                self.scan = (
                    replace(self.scan, complete=True, camera="", path="")
                    if step is None
                    else _after(self.scan, step)
                )
                database.set_fact("scan", asdict(self.scan))
                return step, time.thread_time() - begun

            step, cpu_s = await self.ask(next_step)
            if step is None:
                break
            added, removed = added + step.added, removed + step.removed
            await asyncio.sleep(cpu_s * (1 / share - 1))
        if added or removed or not state.complete:
            self._emit(
                ArchiveScanned(added=added, removed=removed, took_s=time.monotonic() - started)
            )


def _after(state: ScanState, step: ScanStep) -> ScanState:
    newest = [ms for ms in (state.newest_ms, step.newest_ms) if ms is not None]
    return ScanState(
        state.complete, step.position.camera, step.position.path, max(newest, default=None)
    )
