"""SnapshotStore: publishes pictures and facts on disk, and says what came of it.

latest.jpg is always a complete picture. It is replaced atomically, or does not exist yet.

A disk may hang. Then the caller gets a storage failure after LIMIT_S. The write goes on in its
thread, and its camera writes nothing else until it ends: an old picture must not replace a newer
one later.
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from camserver.config import Inventory
from camserver.config.output import OutputTable
from camserver.errors import StorageError
from camserver.host.clock import WallClock, utc_now
from camserver.host.threads import DaemonThreads
from camserver.model import Attempt, Result, Snapshot
from camserver.storage.naming import within
from camserver.storage.outcomes import Outcomes, read_outcomes
from camserver.storage.publish import CameraFolder
from camserver.storage.published import facts_of, jpeg_of

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
THREADS = 8
LIMIT_S = 10.0
"""How long the disk may take to write one picture, and how long it may be busy with an earlier one.
"""


class Stored(NamedTuple):
    """What came of an attempt. `disk_full`: there was no space, or no inode, or a quota is used."""

    attempt: Attempt
    disk_full: bool = False


@dataclass(slots=True)
class _Camera:
    folder: CameraFolder
    newest: int = 0  # the number of the newest attempt
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class SnapshotStore:
    """Writes pictures and facts below `output.directory`. Only a restart changes that directory."""

    def __init__(
        self,
        output: OutputTable,
        outcomes: Outcomes,
        *,
        clock: WallClock = utc_now,
        file_system: Callable[[], int | None] = lambda: None,
        archived: Callable[[str, str, datetime, int], None] = lambda *_: None,
        limit_s: float = LIMIT_S,
    ) -> None:
        """`file_system` gives the st_dev on which pictures may be written, or None for any.

        `archived` gets each picture of the archive: camera, path, capture time, size.
        """
        self.output = output
        self._outcomes = outcomes
        self._clock = clock
        self._file_system = file_system
        self._archived = archived
        self._limit_s = limit_s
        self._threads = DaemonThreads(THREADS, "store")
        self._cameras: dict[str, _Camera] = {}
        self._writing: set[asyncio.Task[Stored]] = set()

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over what a reload may change. Returns the keys that need a restart."""
        running = self.output.directory
        self.output = within(running, inventory.output)
        wanted = {camera.id for camera in inventory.cameras}
        self._cameras = {
            name: camera
            for name, camera in self._cameras.items()
            if name in wanted or camera.lock.locked()
        }
        for camera in self._cameras.values():
            camera.folder.use(self.output)
        return () if inventory.output.directory == running else ("output.directory",)

    async def close(self, grace_s: float) -> None:
        """Wait up to `grace_s` seconds until running writes end, and start no others."""
        if self._writing:
            await asyncio.wait(set(self._writing), timeout=grace_s)
        self._threads.shutdown(wait=False)

    async def record(self, attempt: Attempt, failures_before: int) -> Stored:
        """Publish the attempt's picture if it has one, and its outcome in any case.

        The attempt that comes back has the result `storage` when the picture or its facts could not
        be written. It never raises because of the disk.
        """
        camera = self._cameras.setdefault(attempt.camera, self._camera(attempt.camera))
        camera.newest += 1
        try:
            async with asyncio.timeout(self._limit_s):
                await camera.lock.acquire()
        except TimeoutError:
            return self._failed(attempt, failures_before, "is busy with an earlier picture")
        task = asyncio.create_task(
            self._record(camera, attempt, failures_before), name=f"store {attempt.camera}"
        )
        self._writing.add(task)

        def written(done: asyncio.Task[Stored]) -> None:
            self._writing.discard(done)
            camera.lock.release()

        task.add_done_callback(written)
        done, _ = await asyncio.wait({task}, timeout=self._limit_s)
        if not done:
            return self._failed(attempt, failures_before, "has not taken the picture")
        return task.result()

    def _camera(self, camera: str) -> _Camera:
        return _Camera(CameraFolder(self.output.directory / camera, self.output, self._threads))

    def _failed(self, attempt: Attempt, failures_before: int, what: str) -> Stored:
        """The outcome when the disk does not answer. A failure of the camera stays one."""
        if attempt.ok:
            folder = self.output.directory / attempt.camera
            attempt = _not_stored(
                attempt, f"{attempt.camera}: {folder} {what}, after {self._limit_s:g} s"
            )
        self._outcomes.attempted(attempt, _failures(attempt, failures_before))
        return Stored(attempt)

    async def _record(self, camera: _Camera, attempt: Attempt, failures_before: int) -> Stored:
        folder, number, disk_full = camera.folder, camera.newest, False
        if self._outcomes.get(attempt.camera) is None:  # the picture of an earlier run stays known
            loop = asyncio.get_running_loop()
            self._outcomes.remember(
                await loop.run_in_executor(
                    self._threads, read_outcomes, self.output.directory, [attempt.camera]
                )
            )
        if attempt.snapshot is not None:
            try:
                await self._publish(folder, attempt.snapshot)
            except StorageError as error:
                attempt, disk_full = _not_stored(attempt, str(error)), error.errno in DISK_FULL
        outcome = self._outcomes.get(attempt.camera)
        # Otherwise this write was given up, and another attempt was made since
        if camera.newest == number or outcome is None:
            outcome = self._outcomes.attempted(attempt, _failures(attempt, failures_before))
        facts = json.dumps(outcome.latest(attempt.camera), indent=1, ensure_ascii=False)
        try:
            await folder.write_facts(facts.encode() + b"\n", file_system=self._file_system())
        except OSError as error:
            disk_full = disk_full or error.errno in DISK_FULL
            if attempt.ok:
                text = _storage_error(attempt.camera, folder, error, "latest.json")
                attempt = _not_stored(attempt, str(text))
                self._outcomes.attempted(attempt, _failures(attempt, failures_before))
        return Stored(attempt, disk_full)

    async def _publish(self, folder: CameraFolder, snapshot: Snapshot) -> None:
        """Publish a picture. Raises StorageError."""
        jpeg = jpeg_of(snapshot)
        try:
            path = await folder.publish(jpeg, snapshot.captured_at, file_system=self._file_system())
        except OSError as error:
            raise _storage_error(snapshot.camera, folder, error, "the picture") from error
        if path is not None:
            self._archived(snapshot.camera, path, snapshot.captured_at, len(jpeg))
        facts = facts_of(snapshot, len(jpeg), published_at=self._clock(), path=path)
        self._outcomes.published(snapshot.camera, facts, snapshot.captured_at)


def _failures(attempt: Attempt, before: int) -> int:
    return 0 if attempt.ok else before + (attempt.result not in (Result.BUSY, Result.OVERLOADED))


def _not_stored(attempt: Attempt, error: str) -> Attempt:
    return Attempt(attempt.camera, attempt.at, Result.STORAGE, error)


def _storage_error(camera: str, folder: CameraFolder, error: OSError, what: str) -> StorageError:
    reason = error.strerror or type(error).__name__
    return StorageError(f"{camera}: {folder.path} does not take {what}: {reason}", error.errno)
