"""The janitor: runs retention in a thread, at intervals and when the disk is full.

It deletes only files that the archive pattern can name. It never deletes latest.jpg or files that
are not from camserver.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from camserver.config import Inventory
from camserver.config.model import CAMERA_ID, OutputTable, RetentionTable
from camserver.events import Event, RetentionDeleted
from camserver.storage.naming import archive_regex, within
from camserver.storage.retention import Archived, choose

INTERVAL_S = 300.0
FULL_DISK_PAUSE_S = 10.0
"""The pause after each pass. After a full disk the next pass is soon, but not for every picture."""


class Janitor:
    """Runs retention over the whole output directory."""

    def __init__(
        self, output: OutputTable, policy: RetentionTable, emit: Callable[[Event], None]
    ) -> None:
        self.output = output
        self.policy = policy
        self._emit = emit
        self._kicked = asyncio.Event()
        self._over = False

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over what a reload may change. The store reports the keys that need a restart."""
        self.output = within(self.output.directory, inventory.output)
        self.policy = inventory.retention
        return ()

    def kick(self) -> None:
        """Request a pass soon, because a picture could not be written."""
        self._kicked.set()

    async def run(self) -> None:
        """Make a pass at the start, every INTERVAL_S, and after `kick`, until cancelled.

        It never raises because of the disk.
        """
        try:
            await self._run()
        finally:
            self._over = True  # a pass that runs in its thread ends soon

    async def _run(self) -> None:
        while True:
            self._kicked.clear()
            deleted, freed = await asyncio.to_thread(self.sweep, time.time())
            if deleted:
                self._emit(RetentionDeleted(files=deleted, bytes=freed))
            await asyncio.sleep(FULL_DISK_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S - FULL_DISK_PAUSE_S):
                    await self._kicked.wait()

    def sweep(self, now: float) -> tuple[int, int]:
        """Make one pass (blocking). Returns (number of deleted files, their size in bytes)."""
        directory, deleted, freed = self.output.directory, 0, 0
        if not self.output.archive:
            return 0, 0
        try:
            free_bytes = shutil.disk_usage(directory).free
        except OSError:  # the directory does not exist yet, or is gone: polling reports that
            return 0, 0
        for file in choose(self._files(), self.policy, now=now, free_bytes=free_bytes):
            if self._over:
                break
            with contextlib.suppress(OSError):
                file.path.unlink()
                deleted, freed = deleted + 1, freed + file.bytes
                self._prune(file.path.parent, directory / file.camera)
        return deleted, freed

    def _files(self) -> Iterator[Archived]:
        ours = archive_regex(self.output.archive)
        for folder in _folders(self.output.directory):
            for root, _, names in os.walk(folder):
                if self._over:
                    return
                relative = os.path.relpath(root, folder)
                for name in names:
                    path = Path(root, name)
                    if name != "latest.jpg" and ours.fullmatch(
                        name if relative == "." else f"{relative}/{name}"
                    ):
                        with contextlib.suppress(OSError):
                            stat = path.stat(follow_symlinks=False)
                            yield Archived(stat.st_mtime, stat.st_size, folder.name, path)

    @staticmethod
    def _prune(folder: Path, top: Path) -> None:
        """Remove folders that became empty, up to the camera's folder."""
        while folder != top:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def _folders(directory: Path) -> list[Path]:
    """The folders of cameras, also of cameras that were removed from the inventory.

    Other folders are not from camserver.
    """
    with contextlib.suppress(OSError):
        return sorted(
            p
            for p in directory.iterdir()
            if re.fullmatch(CAMERA_ID, p.name) and (p / "latest.json").is_file()
        )
    return []
