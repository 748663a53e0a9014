"""SnapshotStore: publishes pictures and facts on disk, and says what came of it.

latest.jpg is always a complete picture. It is replaced atomically, or does not exist yet.

A disk may hang. Then the caller gets a storage failure after LIMIT_S. The write goes on in its
thread, and its camera writes nothing else until it ends: an old picture must not replace a newer
one later.

A picture and its facts are written by one call in a thread, because each hand-over between threads
costs as much as a write. So a picture counts as published when both are there. This is the only
module that uses aiofiles.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import aiofiles.os
from pydantic import TypeAdapter

from camserver.config import Inventory
from camserver.config.output import OutputTable
from camserver.host.clock import WallClock, utc_now
from camserver.host.threads import DaemonThreads
from camserver.model import Attempt, Result, Snapshot
from camserver.storage.naming import within
from camserver.storage.outcomes import AttemptFacts, Outcome, Outcomes, read_outcomes
from camserver.storage.publish import CameraFolder
from camserver.storage.published import facts_of, jpeg_of

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
THREADS = 8
LIMIT_S = 10.0
"""How long the disk may take to write one picture, and how long it may be busy with an earlier one.
"""

_JSON = TypeAdapter(dict[str, Any])


class Stored(NamedTuple):
    """What came of an attempt. `disk_full`: there was no space, or no inode, or a quota is used."""

    attempt: Attempt
    disk_full: bool = False


class _Written(NamedTuple):
    """A picture that is on the disk. `error`: its facts could not be written."""

    facts: dict[str, Any]
    error: OSError | None


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
        return _Camera(CameraFolder(self.output.directory / camera, self.output))

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
            read = partial(read_outcomes, self.output.directory, [attempt.camera])
            self._outcomes.remember(await self._in_thread(read))
        if attempt.snapshot is not None:
            try:
                written = await self._write(
                    folder, attempt, attempt.snapshot, lambda: camera.newest == number
                )
            except OSError as error:
                attempt, disk_full = _refused(attempt, folder, error, "the picture")
            else:
                if written.error is not None:
                    attempt, disk_full = _refused(attempt, folder, written.error, "latest.json")
                if camera.newest == number:
                    self._outcomes.attempted(attempt, _failures(attempt, failures_before))
                    return Stored(attempt, disk_full)
        outcome = self._outcomes.get(attempt.camera)
        # Otherwise this write was given up, and another attempt was made since
        if camera.newest == number or outcome is None:
            outcome = self._outcomes.attempted(attempt, _failures(attempt, failures_before))
        content = _latest_json(attempt.camera, outcome)
        write = partial(folder.write_facts, content, file_system=self._file_system())
        try:
            await self._in_thread(write)
        except OSError as error:
            disk_full = disk_full or error.errno in DISK_FULL
            if attempt.ok:
                attempt, _ = _refused(attempt, folder, error, "latest.json")
                self._outcomes.attempted(attempt, _failures(attempt, failures_before))
        return Stored(attempt, disk_full)

    async def _write(
        self,
        folder: CameraFolder,
        attempt: Attempt,
        snapshot: Snapshot,
        is_newest: Callable[[], bool],
    ) -> _Written:
        """Publish a picture and its facts. Raises OSError when the picture is not published."""
        write = partial(
            _write, folder, attempt, snapshot, self._clock, self._file_system(), is_newest
        )
        written: _Written = await self._in_thread(write)
        path, size = written.facts["path"], written.facts["bytes"]
        if path is not None:
            self._archived(snapshot.camera, path, snapshot.captured_at, size)
        self._outcomes.published(snapshot.camera, written.facts, snapshot.captured_at)
        return written

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await aiofiles.os.wrap(work)(executor=self._threads)


def _write(
    folder: CameraFolder,
    attempt: Attempt,
    snapshot: Snapshot,
    clock: WallClock,
    file_system: int | None,
    is_newest: Callable[[], bool],
) -> _Written:
    """Write a picture and its facts, in a thread. Raises OSError when there is no picture.

    The facts are not written when another attempt was made meanwhile: they describe the newest one.
    """
    jpeg = jpeg_of(snapshot)
    path = folder.publish(jpeg, snapshot.captured_at, file_system=file_system)
    facts = facts_of(snapshot, len(jpeg), published_at=clock(), path=path)
    if not is_newest():
        return _Written(facts, None)
    content = _latest_json(attempt.camera, Outcome(facts, AttemptFacts.of(attempt)))
    try:
        folder.write_facts(content, file_system=file_system)
    except OSError as error:
        return _Written(facts, error)
    return _Written(facts, None)


def _latest_json(camera: str, outcome: Outcome) -> bytes:
    return _JSON.dump_json(outcome.latest(camera), indent=1) + b"\n"


def _failures(attempt: Attempt, before: int) -> int:
    return 0 if attempt.ok else before + (attempt.result not in (Result.BUSY, Result.OVERLOADED))


def _not_stored(attempt: Attempt, error: str) -> Attempt:
    return Attempt(attempt.camera, attempt.at, Result.STORAGE, error)


def _refused(
    attempt: Attempt, folder: CameraFolder, error: OSError, what: str
) -> tuple[Attempt, bool]:
    """(the attempt as a failure of the storage, whether the disk is full)."""
    reason = error.strerror or type(error).__name__
    text = f"{attempt.camera}: {folder.path} does not take {what}: {reason}"
    return _not_stored(attempt, text), error.errno in DISK_FULL
