"""Everything below the output directory: its lock, pictures, what is known of them, the archive.

The disk may hang, be full, or be gone. None of that delays a start, a reload or a stop for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from camserver.archive.build import Archive
from camserver.config import Inventory
from camserver.events import DiskWaited, Event, StoreCleaned
from camserver.host.threads import call_within
from camserver.model import Attempt
from camserver.storage import SnapshotStore
from camserver.storage.directory import OutputDirectory
from camserver.storage.outcomes import Outcomes, read_outcomes
from camserver.storage.publish import remove_temporary_files
from camserver.storage.published import published_event

REMEMBER_S = 2.0
"""How long a start or a reload waits for the latest.json of the cameras."""


class Output:
    """The output of one daemon."""

    def __init__(self, inventory: Inventory, emit: Callable[[Event], None]) -> None:
        self.directory = OutputDirectory(inventory.output.directory, emit)
        self.outcomes = Outcomes()
        self.archive = Archive(inventory, emit, lambda: self.directory.file_system)
        self.store = SnapshotStore(
            inventory.output,
            self.outcomes,
            file_system=lambda: self.directory.file_system,
            archived=self.archive.index.published,
        )
        self._emit = emit
        self._remembering: set[asyncio.Task[None]] = set()

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over what a reload may change. Returns the keys that need a restart."""
        parts = (self.store, self.outcomes, self.archive)
        return tuple(key for part in parts for key in part.configure(inventory))

    def writable(self) -> Path | None:
        """The directory. None while nothing may be written there."""
        return self.directory.path if self.directory.is_usable else None

    def jobs(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs beside the polls, by name."""
        return {"clean": self._clean(), "archive": self.archive.run()}

    async def remember(self, inventory: Inventory) -> None:
        """Read the newest pictures and attempts of an earlier run.

        It waits at most REMEMBER_S. What comes later is taken over then.
        """
        task = asyncio.create_task(self._remember(inventory), name="remember")
        self._remembering.add(task)
        task.add_done_callback(self._remembering.discard)
        done, _ = await asyncio.wait({task}, timeout=REMEMBER_S)
        if not done:
            self._emit(DiskWaited(what="latest.json of the cameras", limit_s=REMEMBER_S))

    async def deliver(self, attempt: Attempt, failures_before: int) -> Attempt:
        """Publish an attempt. Returns it, or one with result `storage`."""
        started = asyncio.get_running_loop().time()
        attempt, disk_full = await self.store.record(attempt, failures_before)
        if disk_full:
            self.archive.retention.kick()
        if attempt.snapshot is not None:
            store_s = asyncio.get_running_loop().time() - started
            self._emit(published_event(attempt.snapshot, store_s))
        return attempt

    async def close(self, grace_s: float) -> None:
        """Wait up to `grace_s` seconds for writes, and as long for the archive's index."""
        for task in self._remembering:
            task.cancel()
        await self.store.close(grace_s)
        await self.archive.index.close(grace_s)

    async def _remember(self, inventory: Inventory) -> None:
        cameras = [camera.id for camera in inventory.cameras]
        read = partial(read_outcomes, self.directory.path, cameras)
        self.outcomes.remember(await call_within(None, read, "read latest.json"))

    async def _clean(self) -> None:
        """Remove the temporary files of earlier runs."""
        clean = partial(remove_temporary_files, self.directory.path)
        if removed := await call_within(None, clean, "remove temporary files"):
            self._emit(StoreCleaned(files=removed))
