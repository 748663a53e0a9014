"""SnapshotStore: publishes pictures on disk.

latest.jpg is always a complete picture. It is replaced atomically, or does not exist yet.

A picture is written once and gets two names. It is written to a temporary file in the camera's
folder, flushed, linked into the archive and renamed to latest.jpg. So a reader never sees a partial
file. A crash leaves at most a temporary file, which the next start removes. This is the only module
that uses aiofiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiofiles
import aiofiles.os

from camserver.config import Inventory
from camserver.config.model import OutputTable
from camserver.errors import StorageError
from camserver.host.clock import WallClock, rfc3339, utc_now
from camserver.model import Attempt, Result, Snapshot
from camserver.storage.naming import archive_name, numbered, within
from camserver.storage.published import FACTS, facts_of, jpeg_of

TEMPORARY = ".camserver-{}.tmp"
# The errors of link(2) on file systems without hard links, for example vfat and some SMB mounts
NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
_counter = itertools.count()


@dataclass(slots=True)
class _CameraState:
    facts: dict[str, Any] = field(default_factory=dict)
    read: bool = False  # whether the facts of an earlier run were read
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class SnapshotStore:
    """Writes pictures and facts below `output.directory`. Only a restart changes that directory."""

    def __init__(self, output: OutputTable, clock: WallClock = utc_now) -> None:
        self.output = output
        self._clock = clock
        self._states: dict[str, _CameraState] = {}

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over what a reload may change. Returns the keys that need a restart."""
        running = self.output.directory
        self.output = within(running, inventory.output)
        return () if inventory.output.directory == running else ("output.directory",)

    async def clean(self) -> int:
        """Remove the temporary files of a killed run. Returns the number of files."""
        return await asyncio.to_thread(self._clean)

    def newest(self, cameras: list[str]) -> dict[str, str]:
        """The capture time of each camera's newest picture, from the files of an earlier run.

        Times are in RFC 3339. The call blocks.
        """
        found = {}
        for camera in cameras:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found[camera] = str(
                    json.loads((self.output.directory / camera / "latest.json").read_text())[
                        "captured_at"
                    ]
                )
        return found

    async def record(self, attempt: Attempt, failures_before: int) -> Attempt:
        """Publish the attempt's picture if it has one, and its outcome in any case.

        Returns the attempt, or one with result `storage` when the picture could not be written. It
        never raises because of the disk.
        """
        state = self._states.setdefault(attempt.camera, _CameraState())
        async with state.lock:
            if not state.read:
                state.facts, state.read = await self._known(attempt.camera), True
            if attempt.snapshot is not None:
                try:
                    state.facts = await self._publish(attempt.snapshot)
                except StorageError as error:
                    attempt = Attempt(attempt.camera, attempt.at, Result.STORAGE, str(error))
            failures = 0 if attempt.ok else failures_before + (attempt.result is not Result.BUSY)
            # An error of the picture was already reported; the next attempt writes facts again
            with contextlib.suppress(StorageError):
                await self._write_facts(attempt, state, failures)
        return attempt

    async def _publish(self, snapshot: Snapshot) -> dict[str, Any]:
        folder = self.output.directory / snapshot.camera
        jpeg = jpeg_of(snapshot)
        try:
            await aiofiles.os.makedirs(folder, exist_ok=True)
            async with _temporary(folder) as temporary:
                await self._write(temporary, jpeg)
                path = (
                    await self._archive(temporary, folder, snapshot, jpeg)
                    if self.output.archive
                    else None
                )
                await aiofiles.os.replace(temporary, folder / "latest.jpg")
            if self.output.fsync:
                await asyncio.to_thread(_fsync_folder, folder)
        except OSError as error:
            raise _storage_error(snapshot.camera, folder, error) from None
        return facts_of(snapshot, len(jpeg), published_at=self._clock(), path=path)

    async def _archive(self, temporary: Path, folder: Path, snapshot: Snapshot, jpeg: bytes) -> str:
        zone = ZoneInfo(self.output.timezone)
        base = archive_name(self.output.archive, snapshot.captured_at.astimezone(zone))
        await aiofiles.os.makedirs((folder / base).parent, exist_ok=True)
        for number in itertools.count():
            name = numbered(base, number)
            try:
                await aiofiles.os.link(temporary, folder / name)
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno not in NO_HARD_LINKS:
                    raise
                async with _temporary(folder) as copy:
                    await self._write(copy, jpeg)
                    await aiofiles.os.replace(copy, folder / name)
            return name
        raise AssertionError  # pragma: no cover - count() does not end

    async def _write_facts(self, attempt: Attempt, state: _CameraState, failures: int) -> None:
        folder = self.output.directory / attempt.camera
        facts = {
            "camera": attempt.camera,
            **state.facts,
            "attempt": {
                "at": rfc3339(attempt.at),
                "result": attempt.result.value,
                "error": attempt.error,
                "label": attempt.label or attempt.error or attempt.result.value,
            },
            "consecutive_failures": failures,
        }
        try:
            await aiofiles.os.makedirs(folder, exist_ok=True)
            async with _temporary(folder) as temporary:
                await self._write(
                    temporary, json.dumps(facts, indent=1, ensure_ascii=False).encode() + b"\n"
                )
                await aiofiles.os.replace(temporary, folder / "latest.json")
        except OSError as error:
            raise _storage_error(attempt.camera, folder, error) from None

    async def _write(self, path: Path, data: bytes) -> None:
        async with aiofiles.open(path, "xb") as file:
            await file.write(data)
            if self.output.fsync:
                await file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())

    async def _known(self, camera: str) -> dict[str, Any]:
        """The facts of the picture from an earlier run."""
        try:
            async with aiofiles.open(self.output.directory / camera / "latest.json", "rb") as file:
                known = json.loads(await file.read())
                return {key: known.get(key) for key in FACTS}
        except (OSError, ValueError, AttributeError):
            return dict.fromkeys(FACTS)

    def _clean(self) -> int:
        removed = 0
        with contextlib.suppress(OSError):
            for path in self.output.directory.glob("*/" + TEMPORARY.format("*")):
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed += 1
        return removed


@contextlib.asynccontextmanager
async def _temporary(folder: Path) -> Any:
    path = folder / TEMPORARY.format(f"{os.getpid()}-{next(_counter)}")
    try:
        yield path
    except BaseException:
        # Not awaited: this task may be cancelled again. In a thread: a hung disk must not block
        # the event loop.
        asyncio.get_running_loop().run_in_executor(None, _remove, path)
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _storage_error(camera: str, folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{camera}: {folder} does not take the picture: {error.strerror or type(error).__name__}"
    )
