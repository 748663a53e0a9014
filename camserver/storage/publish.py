"""The files of one camera's folder: written whole, under the right name, and flushed.

A picture is written once and gets two names. It is written to a temporary file in the camera's
folder, flushed, linked into the archive and renamed to latest.jpg. So a reader never sees a partial
file. A crash leaves at most a temporary file, which the next start removes. This is the only module
that uses aiofiles.

With `fsync = true` the file is flushed before it gets its names. New folders and the archive's name
are flushed before latest.jpg is replaced. latest.jpg and latest.json share one flush of their
folder, after both.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import aiofiles
import aiofiles.os

from camserver.config.output import OutputTable
from camserver.host.files import fsync_folder
from camserver.storage.naming import archive_name, numbered

TEMPORARY = ".camserver-{}.tmp"
# The errors of link(2) on file systems without hard links, for example vfat and some SMB mounts
NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
RUN = uuid.uuid4().hex[:12]
"""The name of this process in temporary files. Process numbers are used again."""
_counter = itertools.count()
T = TypeVar("T")


class CameraFolder:
    """Writes below `path`, the folder of one camera. Every method raises OSError."""

    def __init__(self, path: Path, output: OutputTable, threads: Executor) -> None:
        self.path = path
        self._output = output
        self._threads = threads
        # The archive's name of the newest picture, and the number for the next one of this name
        self._next_number = "", 0

    async def publish(self, jpeg: bytes, captured_at: datetime) -> str | None:
        """Replace latest.jpg. Returns the picture's name in the archive, or None without one."""
        await self._make_folders(self.path)
        async with self._temporary() as temporary:
            await self._write(temporary, jpeg)
            name = None
            if self._output.archive:
                name = await self._archive(temporary, jpeg, captured_at)
            try:
                await aiofiles.os.replace(
                    temporary, self.path / "latest.jpg", executor=self._threads
                )
            except OSError:
                if name is not None:  # the index does not get a picture that was not published
                    await self._call(_remove, self.path / name)
                raise
        return name

    async def write_facts(self, latest_json: bytes) -> None:
        """Replace latest.json, and flush the names of both files."""
        await self._make_folders(self.path)
        async with self._temporary() as temporary:
            await self._write(temporary, latest_json)
            await aiofiles.os.replace(temporary, self.path / "latest.json", executor=self._threads)
        if self._output.fsync:
            await self._call(fsync_folder, self.path)

    def use(self, output: OutputTable) -> None:
        """Use another table for the next picture."""
        self._output = output

    async def _archive(self, temporary: Path, jpeg: bytes, captured_at: datetime) -> str:
        """Give the picture a free name in the archive, and return the name."""
        zone = ZoneInfo(self._output.timezone)
        base = archive_name(self._output.archive, captured_at.astimezone(zone))
        await self._make_folders((self.path / base).parent)

        def taken(number: int) -> bool:
            return os.path.lexists(self.path / numbered(base, number))

        # A coarse pattern gives thousands of pictures the same name: the search must be short
        known, number = self._next_number
        number = number if known == base else await self._call(free_number, taken, 0)
        while not await self._link(temporary, self.path / numbered(base, number), jpeg):
            number = await self._call(free_number, taken, number + 1)
        self._next_number = base, number + 1
        name = numbered(base, number)
        if self._output.fsync:
            await self._call(fsync_folder, (self.path / name).parent)
        return name

    async def _link(self, temporary: Path, path: Path, jpeg: bytes) -> bool:
        """Give the picture the name `path`. False when the name is taken."""
        try:
            await aiofiles.os.link(temporary, path, executor=self._threads)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            if await self._call(os.path.lexists, path):
                return False
            async with self._temporary() as copy:
                await self._write(copy, jpeg)
                await aiofiles.os.replace(copy, path, executor=self._threads)
        return True

    async def _write(self, path: Path, data: bytes) -> None:
        async with aiofiles.open(path, "xb", executor=self._threads) as file:
            await file.write(data)
            if self._output.fsync:
                await file.flush()
                await self._call(os.fsync, file.fileno())

    async def _make_folders(self, folder: Path) -> None:
        await self._call(partial(make_folders, folder, fsync=self._output.fsync))

    async def _call(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    @contextlib.asynccontextmanager
    async def _temporary(self) -> AsyncIterator[Path]:
        path = self.path / TEMPORARY.format(f"{RUN}-{next(_counter)}")
        try:
            yield path
        except BaseException:
            # Not awaited: this task may be cancelled again
            with contextlib.suppress(RuntimeError):  # the store is closed
                self._threads.submit(_remove, path)
            raise


def make_folders(folder: Path, *, fsync: bool) -> None:
    """Create `folder` and its parents, and flush the names of new ones. The call blocks.

    Raises OSError.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        if fsync:
            fsync_folder(new.parent)


def free_number(taken: Callable[[int], bool], first: int) -> int:
    """A number from `first` on that is not taken, in a logarithmic number of questions.

    It is the first free one when the taken numbers have no gap.
    """
    if not taken(first):
        return first
    low, step = first, 1
    while taken(low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if taken(middle) else (low, middle)
    return high


def remove_temporary_files(directory: Path) -> int:
    """Remove the temporary files of earlier processes. Returns their number. The call blocks."""
    removed = 0
    with contextlib.suppress(OSError):
        for path in directory.glob("*/" + TEMPORARY.format("*")):
            if not path.match(TEMPORARY.format(f"{RUN}-*")):
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed += 1
    return removed


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
