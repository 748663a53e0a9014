"""ArchiveIndex: the index of the archive in a thread of its own, and the scan that completes it.

Published pictures are added in batches, about one a second. A daemon that is killed loses the last
batch, so the next start compares the index with the files. Once a day it does so anyway. A scan
takes only a small part of a core.

When the index is damaged, it is put aside and made again from the files. When its disk takes
nothing, pictures wait in memory, up to a limit; then a scan finds them later.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from camserver.archive.database import (
    ArchiveDatabase,
    ArchivedPicture,
    DamagedIndexError,
    put_aside,
)
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
ANSWER_S = 30.0
"""How long a question may take. Then the disk does not answer."""
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

    `complete`: all files were in the index once. `checked_at` is when a scan ended last, in seconds
    since 1970. `newest_ms` is the time of the newest picture of an earlier process.
    """

    complete: bool = False
    camera: str = ""
    path: str = ""
    newest_ms: int | None = None
    checked_at: float = 0.0

    @classmethod
    def load(cls, stored: Any) -> ScanState:
        """The state from its stored form, also from that of another version."""
        if not isinstance(stored, dict):
            return cls()
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in stored.items() if key in known})


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
        self._started_ms = round(time.time() * 1000)
        self._waiting: deque[ArchivedPicture] = deque()
        # The index may lack pictures, or have some that are gone: a scan is needed
        self._dirty = False
        self._missed = 0
        self._lost = False
        self._closing = False

    @property
    def is_up(self) -> bool:
        """Whether the index answered its last question."""
        return not self._lost

    def add(self, picture: ArchivedPicture) -> None:
        """Add a published picture soon."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(picture)
        else:
            self._missed += 1
            self._dirty = True

    def published(self, camera: str, path: str, captured_at: datetime, size: int) -> None:
        """Add a picture that the store has published."""
        taken_ms = round(captured_at.timestamp() * 1000)
        self.add(ArchivedPicture(camera, path, taken_ms, size))

    async def ask(self, work: Callable[[ArchiveDatabase], T]) -> T:
        """Let `work` use the database, after all pictures that wait. Raises IndexUnavailable.

        When this is cancelled, `work` is done all the same.
        """
        if self._closing:
            raise IndexUnavailable("it is being closed")
        return await self._ask_thread(work)

    async def run(self) -> None:
        """Add pictures in batches, and scan when it is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._flush(), name="archive flush")
            group.create_task(self._scans(), name="archive scan")

    async def close(self, grace_s: float) -> None:
        """Add the pictures that wait, within `grace_s` seconds, and close the database.

        `run` must have ended.
        """
        self._closing = True
        with contextlib.suppress(IndexUnavailable, TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._ask_thread(self._close)
        self._thread.shutdown(wait=False)

    async def _ask_thread(self, work: Callable[[ArchiveDatabase], T]) -> T:
        future: asyncio.Future[tuple[T, str]] = asyncio.wrap_future(
            self._thread.submit(self._ask, work)
        )
        future.add_done_callback(_retrieve)
        done, _ = await asyncio.wait({future}, timeout=ANSWER_S)
        if not done:
            reason = f"its disk did not answer within {ANSWER_S:g} s"
            self._say_lost(reason)
            raise IndexUnavailable(reason)
        try:
            answer, refused = future.result()
        except IndexUnavailable as error:
            self._say_lost(str(error))
            raise
        if refused:
            self._say_lost(refused)
        elif self._lost:
            self._lost = False
            self._emit(IndexBack(path=str(self.path)))
        return answer

    def _say_lost(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            self._emit(IndexLost(path=str(self.path), reason=reason))

    # ---- in the thread

    def _ask(self, work: Callable[[ArchiveDatabase], T]) -> tuple[T, str]:
        """The answer, and why the pictures that wait were not taken ("": they were)."""
        try:
            self._check_file_system()
            database = self._open()
            refused = self._add_waiting(database)
            return work(database), refused
        except IndexUnavailable:
            raise
        except (DamagedIndexError, sqlite3.Error) as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if isinstance(error, DamagedIndexError) or code & 0xFF in _DAMAGED:
                self._discard()
                raise IndexUnavailable(f"{error}; it is made again from the files") from None
            self._retry_at = time.monotonic() + RETRY_S
            self._close()
            raise IndexUnavailable(str(error)) from None
        except OSError as error:
            self._close()
            raise IndexUnavailable(error.strerror or str(error)) from None

    def _add_waiting(self, database: ArchiveDatabase) -> str:
        """Add the pictures that wait. Returns why they were not taken, or ""."""
        batch = []
        with contextlib.suppress(IndexError):
            while True:
                batch.append(self._waiting.popleft())
        if not batch:
            return ""
        try:
            database.add(batch)
        except sqlite3.OperationalError as error:
            self._waiting.extendleft(reversed(batch))
            if error.sqlite_errorcode & 0xFF not in _NO_SPACE:
                raise
            return str(error)  # retention must be able to ask all the same
        except BaseException:
            self._waiting.extendleft(reversed(batch))
            raise
        return ""

    def _open(self) -> ArchiveDatabase:
        if self._database is not None and not self._database.is_at_its_path:
            self._close()  # a person has removed the file
        if self._database is None:
            if time.monotonic() < self._retry_at:
                raise IndexUnavailable("it could not be opened")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = ArchiveDatabase(self.path)
            if database.fact("directory") not in (None, str(self.directory.absolute())):
                database.close()
                raise DamagedIndexError("it is the index of another directory")
            self._database = database
            self.scan = ScanState.load(database.fact("scan"))
            self._dirty = self._dirty or not database.fact("clean")
            try:
                database.set_fact("directory", str(self.directory.absolute()))
                database.set_fact("clean", value=False)
            except sqlite3.OperationalError:  # the disk is full; questions are answered
                self._dirty = True
        return self._database

    def _close(self, database: ArchiveDatabase | None = None) -> None:
        """Close the database. With `database`, everything is in it: the next start trusts it."""
        if database is not None:
            database.set_fact("clean", value=not self._dirty)
        if self._database is not None:
            self._database.close()
            self._database = None

    def _discard(self) -> None:
        self._close()
        self.scan = ScanState()
        with contextlib.suppress(OSError):
            put_aside(self.path)

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
        while True:
            with contextlib.suppress(IndexUnavailable):
                if self._database is None:
                    await self.ask(lambda _: None)  # opens it, so that its state is known
                since_s = time.time() - self.scan.checked_at
                due = self._dirty or not self.scan.complete or not 0 <= since_s <= CHECK_S
                if self.names is not None and due:
                    await self._scan(self.names)
            await asyncio.sleep(FLUSH_S)

    async def _scan(self, names: ArchiveNames) -> None:
        """Compare the index with all files. Raises IndexUnavailable."""
        await self.ask(lambda _: None)
        state, started, missed = self.scan, time.monotonic(), self._missed
        share = CHECK_SHARE if state.complete else BUILD_SHARE
        scan = _Steps(self.directory, names, ScanPosition(state.camera, state.path))
        added = removed = 0
        while True:
            step, cpu_s = await self.ask(lambda database: self._step(database, scan))
            if step is None:
                break
            added, removed = added + step.added, removed + step.removed
            await asyncio.sleep(cpu_s * (1 / share - 1))
        # A scan that goes on from the middle has not seen what came before it
        if not state.camera and missed == self._missed:
            self._dirty = False
        if added or removed or not state.complete:
            self._emit(
                ArchiveScanned(added=added, removed=removed, took_s=time.monotonic() - started)
            )

    def _step(self, database: ArchiveDatabase, scan: _Steps) -> tuple[ScanStep | None, float]:
        """Make one step (in the thread). Returns it, or None at the end, and its CPU seconds."""
        begun = time.thread_time()
        step = scan.next(database)
        if step is None:
            self.scan = replace(
                self.scan, complete=True, camera="", path="", checked_at=time.time()
            )
        else:
            # This process has published what is newer than its start
            found = [ms for ms in step.taken_ms if ms < self._started_ms]
            newest = [*found, *([] if self.scan.newest_ms is None else [self.scan.newest_ms])]
            self.scan = replace(
                self.scan,
                camera=step.position.camera,
                path=step.position.path,
                newest_ms=max(newest, default=None),
            )
        database.set_fact("scan", asdict(self.scan))
        return step, time.thread_time() - begun


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Mark a result as retrieved: who asked may have given up."""
    if not future.cancelled():
        future.exception()


class _Steps:
    """The steps of one scan, with one open database."""

    def __init__(self, directory: Path, names: ArchiveNames, position: ScanPosition) -> None:
        self._scan = ArchiveScan(directory, names, position)
        self._steps: Iterator[ScanStep] | None = None
        self._database: ArchiveDatabase | None = None

    def next(self, database: ArchiveDatabase) -> ScanStep | None:
        """The next step, or None at the end. Raises IndexUnavailable for another database."""
        if self._steps is None:
            self._steps, self._database = self._scan.steps(database), database
        if self._database is not database:
            raise IndexUnavailable("it was opened again meanwhile")
        return next(self._steps, None)
