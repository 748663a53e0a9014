"""The reload of the inventory: when a file changes, at SIGHUP, or on request.

An inventory is applied completely or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from watchfiles import awatch

from camserver.config import Inventory, load_inventory
from camserver.errors import InventoryError
from camserver.events import Event, InventoryLoaded, InventoryRefused, InventoryUnwatched
from camserver.host import notify


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
        self._requested = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._folders_changed = asyncio.Event()

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
                inventory = await asyncio.to_thread(load_inventory, self._path)
            except InventoryError as error:
                for fault in error.faults:
                    self._emit(InventoryRefused(fault=fault))
                return error.faults
            finally:
                notify.notify("READY=1")
            old, self.inventory = self.inventory, inventory
            if inventory.directories != old.directories:
                self._folders_changed.set()
            await self._apply(old, inventory)
            self._emit(InventoryLoaded(cameras=len(inventory.cameras)))
            return ()

    async def watch(self) -> None:
        """Request a reload when the inventory or an included file changes, until cancelled.

        Editors replace files instead of writing to them, so the folders are watched.
        """
        while True:
            self._folders_changed.clear()
            folders = [d for d in self.inventory.directories if d.is_dir()]
            ours = {f.absolute() for f in self.inventory.files} | {
                f.resolve() for f in self.inventory.files
            }
            try:
                async for changes in awatch(
                    *folders, recursive=False, debounce=400, stop_event=self._folders_changed
                ):
                    if any(p.endswith(".toml") or Path(p) in ours for _, p in changes):
                        self._requested.set()
            except (OSError, RuntimeError) as error:
                # watchfiles raises RuntimeError when no inotify watch is left.
                self._emit(InventoryUnwatched(reason=str(error)))
                return
            # The folders are others now. Changes there before the watch begins were not seen.
            self._requested.set()
