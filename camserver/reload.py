"""The reload of the inventory: when a file changes, at SIGHUP, or on request.

An inventory is applied completely or not at all. Files that are being written are waited for: what
was read must still be there SETTLE_S later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from watchfiles import awatch

from camserver.config import Inventory, load_inventory
from camserver.config.sources import InventorySources
from camserver.errors import InventoryError
from camserver.events import (
    CamerasRemoved,
    Event,
    InventoryLoaded,
    InventoryRefused,
    InventoryUnwatched,
)
from camserver.host import memory, notify
from camserver.host.threads import DaemonThreads, call_within

SETTLE_S = 0.2
SETTLE_LIMIT_S = 10.0
"""How long files that change all the time are read again."""
REMOVAL_S = 3.0
"""How old the newest change must be when cameras would be removed."""
LOAD_S = 30.0
"""How long the disk may take to give the inventory."""
LOOK_S = 10.0
"""How often the files are looked at, although nothing was noticed. It costs one stat(2) a file."""
STEP_MS = 200
"""How often the watching thread looks for news. watchfiles' default wakes it 20 times a second."""
NAMED = 20
"""The most removed cameras that a warning names."""


class InventoryReloader:
    """The owner of the running inventory; it reads the files again and applies the result."""

    def __init__(
        self,
        path: Path,
        inventory: Inventory,
        apply: Callable[[Inventory, Inventory], Awaitable[None]],
        emit: Callable[[Event], None],
    ) -> None:
        """`apply` gets the old inventory and the new one, and configures the daemon's parts."""
        self.inventory = inventory
        self._path = path
        self._apply = apply
        self._emit = emit
        self._read = inventory.sources  # what was read last, also when it was refused
        self._requested = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._thread = DaemonThreads(1, "inventory")
        self._looking: asyncio.Future[tuple[bool, dict[Path, tuple[int, int]]]] | None = None

    def request(self) -> None:
        """Ask `run` for a reload."""
        self._requested.set()

    async def run(self) -> None:
        """Reload whenever it is requested, until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            await self.reload()

    async def reload(self) -> tuple[str, ...]:
        """Read the inventory and apply it, or return its faults; then the old one stays."""
        async with self._reloading:
            notify.reloading()
            try:
                inventory = await self._load()
            except InventoryError as error:
                self._read = error.sources or self._read
                for fault in error.faults:
                    self._emit(InventoryRefused(fault=fault))
                return error.faults
            finally:
                notify.notify("READY=1")
            old, self.inventory = self.inventory, inventory
            self._say_removed(old, inventory)
            await self._apply(old, inventory)
            self._emit(InventoryLoaded(cameras=len(inventory.cameras)))
            return ()

    async def _load(self) -> Inventory:
        """The inventory, which has settled. Raises InventoryError."""
        try:
            running = self.inventory
            # Here, not in the thread: a disk that hangs must not end the collections of garbage
            with memory.collections_paused():
                inventory = await call_within(
                    LOAD_S, lambda: _settled(self._path, running), "inventory"
                )
        except TimeoutError:
            raise InventoryError(
                (f"{self._path}: cannot be read: the disk did not answer within {LOAD_S:g} s",)
            ) from None
        self._read = inventory.sources
        if not inventory.cameras and not inventory.disabled and self.inventory.cameras:
            raise InventoryError(
                (
                    f"{self._path}: there is no [[camera]] entry any more: if this is meant,"
                    " restart camserver",
                ),
                inventory.sources,
            )
        return inventory

    def _say_removed(self, old: Inventory, new: Inventory) -> None:
        present = {camera.id for camera in new.cameras}
        removed = [camera.id for camera in old.cameras if camera.id not in present]
        if removed:
            more = f" and {len(removed) - NAMED} more" if len(removed) > NAMED else ""
            self._emit(CamerasRemoved(cameras=", ".join(removed[:NAMED]) + more))

    async def watch(self) -> None:
        """Request a reload when the files change, until cancelled.

        inotify only wakes this job. What counts is whether the files are those that were read.
        """
        told = False
        while True:
            changed, folders = await self._look()
            if changed and not self._reloading.locked():
                self._requested.set()
            try:
                await _something_changes(self._read, list(folders))
                told = False
            except (OSError, RuntimeError) as error:
                # watchfiles raises RuntimeError when no inotify watch is left
                if not told:
                    self._emit(InventoryUnwatched(reason=str(error), every_s=LOOK_S))
                told = True
                await asyncio.sleep(LOOK_S)

    async def _look(self) -> tuple[bool, dict[Path, tuple[int, int]]]:
        """Whether the files have changed, and the folders to watch.

        A look that hangs has a thread: there is only one. It counts as no change.
        """
        sources = self._read
        if self._looking is None:
            self._looking = asyncio.wrap_future(
                self._thread.submit(lambda: (sources.have_changed, sources.folders()))
            )
        done, _ = await asyncio.wait({self._looking}, timeout=LOAD_S)
        if not done:
            return False, {}
        looking, self._looking = self._looking, None
        try:
            return looking.result()
        except (OSError, RuntimeError, ValueError):
            return False, {}


async def _something_changes(sources: InventorySources, folders: list[Path]) -> None:
    """Return when a file of the folders may have changed, and after LOOK_S in any case.

    Editors replace files instead of writing to them, so the folders are watched. Raises OSError or
    RuntimeError when they can't be watched.
    """
    ours = {str(path) for path in (*folders, *sources.stamps)}
    stop = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(LOOK_S, stop.set)
    try:
        async for changes in awatch(
            *folders,
            recursive=False,
            debounce=STEP_MS,
            step=STEP_MS,
            rust_timeout=0,  # `stop` ends it
            stop_event=stop,
        ):
            if any(
                path in ours or path.endswith(".toml") or Path(path).name.startswith("..")
                for _, path in changes
            ):
                return
    finally:
        timer.cancel()


def _settled(path: Path, running: Inventory) -> Inventory:
    """Read the inventory until two looks agree. The call blocks. Raises InventoryError.

    When cameras would be removed, the files must be REMOVAL_S old: a copy may have stalled.
    """
    end = time.monotonic() + SETTLE_LIMIT_S
    present = {camera.id for camera in running.cameras}
    while time.monotonic() < end:
        try:
            inventory = _sharing(load_inventory(path), running)
        except InventoryError as error:
            faulty: InventorySources | None = error.sources
            time.sleep(SETTLE_S)
            if faulty is None or not faulty.have_changed:
                raise
            continue
        time.sleep(SETTLE_S)
        removes = present - {camera.id for camera in inventory.cameras}
        is_young = removes and 0 <= inventory.sources.youngest_s < REMOVAL_S
        if not is_young and not inventory.sources.have_changed:
            return inventory
    raise InventoryError((f"{path}: changes all the time; it is read again later",))


def _sharing(new: Inventory, running: Inventory) -> Inventory:
    """A new inventory with the running one's objects for the cameras that are unchanged.

    Then hardly any new object lives on after a reload. A camera with rules of its own for the
    archive is always new: which of its keys are given counts, and equal rules do not tell that.
    """
    known = {camera.id: camera for camera in running.cameras if camera.retention is None}
    cameras = ((camera, known.get(camera.id)) for camera in new.cameras)
    return replace(
        new,
        cameras=tuple(
            old
            if old == camera and camera.retention is None and old.health == camera.health
            else camera
            for camera, old in cameras
        ),
    )
