"""Retention: deletes pictures of the archive, at intervals and when the disk is full.

It deletes only files that the archive's pattern can name. It never deletes latest.jpg, the newest
`keep_last` pictures of a camera, or files that are not from camserver.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from camserver.archive import clock_guard
from camserver.archive.clock_file import ClockFile, clock_file_beside
from camserver.archive.clock_guard import ClockRecord, Clocks
from camserver.archive.database import ArchiveDatabase, ArchivedPicture, CameraTotals
from camserver.archive.index import ArchiveIndex, IndexUnavailable
from camserver.archive.plan import Batch, Plan
from camserver.archive.policy import FULL_DISK_FILES, Policy
from camserver.archive.scan import oldest_files
from camserver.config import Inventory
from camserver.events import (
    Event,
    RetentionDeleted,
    RetentionFailed,
    RetentionHeld,
    RetentionImpossible,
    RetentionResumed,
)
from camserver.host.disk import Disk
from camserver.host.threads import call_within

INTERVAL_S = 300.0
FULL_DISK_PAUSE_S = 10.0
"""The shortest time between two passes. After a full disk the next pass is soon, but not for every
picture.
"""


@dataclass(slots=True)
class Deleted:
    """What a pass has deleted. `refused` is the reason why a file could not be deleted."""

    files: int = 0
    bytes: int = 0
    refused: str = ""


class Retention:
    """Runs retention over the whole archive."""

    def __init__(
        self,
        index: ArchiveIndex,
        inventory: Inventory,
        emit: Callable[[Event], None],
        clocks: Callable[[], Clocks],
    ) -> None:
        """`clocks` reads the clocks of this machine."""
        self.held: ClockRecord | None = None
        """The record of the clock, while nothing is deleted by age."""
        self.totals = CameraTotals(0, 0)
        """The number and the size of all archived pictures at the last pass."""
        self._index = index
        self._policy = Policy.of(inventory)
        self._emit = emit
        self._clocks = clocks
        self._started: Clocks | None = clocks()
        """The clocks at the start, until the first pass: the clock may be set before it."""
        self._clock = ClockFile(clock_file_beside(index.path))
        self._disk = Disk()
        self._kicked = asyncio.Event()
        self._disk_full = False
        self._impossible = False

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over the rules of a new inventory. New rules make a pass soon."""
        policy = Policy.of(inventory)
        if policy != self._policy:
            self._policy = policy
            self._impossible = False
            self._kicked.set()
        return ()

    def kick(self) -> None:
        """Make a pass soon: a picture could not be written because the disk is full."""
        self._disk_full = True
        self._kicked.set()

    async def confirm(self) -> str | None:
        """A person says that the clock is right. Returns what was doubted, or None.

        Raises IndexUnavailable.
        """
        record = await self._index.ask(lambda _: self._clock.load())
        if record is None or record.doubt is None:
            return None
        await self._index.ask(lambda _: self._clock.save(clock_guard.confirmed(record)))
        self._kicked.set()
        return record.doubt.value

    async def run(self) -> None:
        """Make a pass at the start, at intervals, and after `kick`, until cancelled."""
        while True:
            self._kicked.clear()
            disk_full, self._disk_full = self._disk_full, False
            await self._pass(disk_full=disk_full)
            await asyncio.sleep(FULL_DISK_PAUSE_S)
            interval_s = min(INTERVAL_S, self._policy.shortest_age_s / 4)
            if not self._index.scan.complete:  # the first pass is soon after the scan
                interval_s = 0.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, interval_s - FULL_DISK_PAUSE_S)):
                    await self._kicked.wait()

    # ---- one pass

    async def _pass(self, *, disk_full: bool) -> None:
        if self._index.names is None:
            return
        deleted = Deleted()
        try:
            await self._index.ask(lambda _: None)  # opens it, so that its state is known
            if self._index.scan.complete:
                await self._by_time(deleted)
                await self._by_size(deleted, disk_full=disk_full)
                totals = await self._index.ask(lambda database: database.totals().values())
                self.totals = CameraTotals(
                    sum(each.pictures for each in totals), sum(each.bytes for each in totals)
                )
            elif disk_full:
                await self._oldest_files(deleted)
        except IndexUnavailable:
            if disk_full:
                await self._oldest_files(deleted)
        if deleted.files:
            self._emit(RetentionDeleted(files=deleted.files, bytes=deleted.bytes))
        if deleted.refused:
            self._emit(RetentionFailed(reason=deleted.refused))

    async def _by_time(self, deleted: Deleted) -> None:
        """Delete what is too old, if the clock can be believed. Raises IndexUnavailable."""
        clocks, policy = self._clocks(), self._policy
        now_ms = round(clocks.wall_s * 1000)

        def judge(database: ArchiveDatabase) -> ClockRecord:
            newest_ms = self._index.scan.newest_ms
            newest_s = None if newest_ms is None else newest_ms / 1000
            record = self._clock.load()
            if self._started is not None:
                record = clock_guard.look(record, self._started, newest_s)
            record = clock_guard.look(record, clocks, newest_s)
            counts = Plan(database, policy, now_ms).counts_by_time()
            record = clock_guard.judge(record, counts.values())
            self._clock.save(record)
            return record

        record = await self._index.ask(judge)
        self._started = None
        self._say_held(record)
        if record.doubt is None:
            await self._delete(lambda database: Plan(database, policy, now_ms).by_time(), deleted)
            if record.confirmed:
                await self._index.ask(lambda _: self._clock.save(clock_guard.done(record)))

    def _say_held(self, record: ClockRecord) -> None:
        before, self.held = self.held, record if record.doubt is not None else None
        if record.doubt is not None and (before is None or before.doubt != record.doubt):
            self._emit(
                RetentionHeld(
                    doubt=record.doubt.value, by_s=record.by_s, hours=record.left_s / 3600
                )
            )
        elif before is not None and record.doubt is None:
            self._emit(RetentionResumed())

    async def _by_size(self, deleted: Deleted, *, disk_full: bool) -> None:
        """Delete what is too much. Raises IndexUnavailable."""
        policy, now_ms = self._policy, round(self._clocks().wall_s * 1000)
        # When the disk does not answer, nothing is deleted for its space
        free, total = await self._disk.usage(self._index.directory) or (2**62, 2**62)
        if not policy.is_possible(total):
            if not self._impossible:
                self._impossible = True
                self._emit(RetentionImpossible(min_free=policy.min_free or 0, total=total))
            policy = replace(policy, min_free=None)
        await self._delete(
            lambda database: Plan(database, policy, now_ms).by_size(free, disk_full=disk_full),
            deleted,
        )

    async def _delete(
        self, plan: Callable[[ArchiveDatabase], Iterator[Batch]], deleted: Deleted
    ) -> None:
        """Delete batch by batch, so that other questions come between. Raises IndexUnavailable."""
        batches: Iterator[Batch] | None = None
        of: ArchiveDatabase | None = None

        def next_batch(database: ArchiveDatabase) -> bool:
            nonlocal batches, of
            if batches is None:
                batches, of = plan(database), database
            if of is not database:
                raise IndexUnavailable("it was opened again meanwhile")
            batch = next(batches, None)
            if batch is None:
                return False
            gone = delete_files(self._index.directory, batch.pictures, deleted)
            database.remove(gone)
            # What was refused must be tried again
            if batch.thinned is not None and not deleted.refused:
                database.set_fact(*batch.thinned)
            return True

        while await self._index.ask(next_batch):
            pass

    async def _oldest_files(self, deleted: Deleted) -> None:
        """Delete the oldest files without the index, because the disk is full."""
        names, directory, policy = self._index.names, self._index.directory, self._policy
        assert names is not None  # noqa: S101 - `_pass` has asked

        def delete() -> None:
            oldest = oldest_files(directory, names, lambda c: policy.rules(c).keep_last)
            delete_files(directory, islice(oldest, FULL_DISK_FILES), deleted)

        await call_within(None, delete, "delete the oldest files")


def delete_files(
    directory: Path, pictures: Iterable[ArchivedPicture], deleted: Deleted
) -> list[ArchivedPicture]:
    """Delete files, and folders that become empty. Returns the pictures that are gone now."""
    gone = []
    for picture in pictures:
        path = directory / picture.camera / picture.path
        try:
            path.unlink()
        except FileNotFoundError:
            pass  # a person has deleted it
        except OSError as error:
            deleted.refused = f"{path}: {error.strerror}"
            continue
        else:
            deleted.files += 1
            deleted.bytes += picture.bytes
        gone.append(picture)
        _prune(path.parent, directory / picture.camera)
    return gone


def _prune(folder: Path, top: Path) -> None:
    """Remove folders that became empty, up to the camera's folder."""
    while folder != top:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
