"""Archive: the index, retention and lists together, as the daemon uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from camserver.archive.clock_file import clocks_of_this_machine
from camserver.archive.index import ArchiveIndex
from camserver.archive.listing import ArchiveListing
from camserver.archive.retention import Retention
from camserver.config import Inventory
from camserver.config.output import OutputTable
from camserver.events import Event
from camserver.storage.naming import ArchiveNames


@dataclass(frozen=True, slots=True)
class ArchiveStatistics:
    """The archive at the last pass. `held`: nothing is deleted by age, the clock is in doubt."""

    pictures: int
    bytes: int
    index_is_up: bool
    index_is_complete: bool
    held: bool


class Archive:
    """The archive of a daemon. `file_system` is as for SnapshotStore."""

    def __init__(
        self,
        inventory: Inventory,
        emit: Callable[[Event], None],
        file_system: Callable[[], int | None],
    ) -> None:
        output = inventory.output
        self.index = ArchiveIndex(
            output.index_path, output.directory, _names(output), emit, file_system=file_system
        )
        self.retention = Retention(
            self.index, inventory, emit, clocks_of_this_machine(inventory.api.socket.parent)
        )
        self.listing = ArchiveListing(output, self.index)

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over what a reload may change. Returns the keys that need a restart."""
        self.index.names = _names(inventory.output)
        self.retention.configure(inventory)
        self.listing.configure(inventory)
        running = self.listing.output.index_path
        return () if running == self.index.path else ("output.index",)

    def statistics(self) -> ArchiveStatistics:
        """Frozen statistics for the metrics."""
        totals = self.retention.totals
        return ArchiveStatistics(
            totals.pictures,
            totals.bytes,
            self.index.is_up,
            self.index.scan.complete,
            self.retention.held is not None,
        )

    async def run(self) -> None:
        """Keep the index and run retention, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.index.run(), name="archive index")
            group.create_task(self.retention.run(), name="retention")


def _names(output: OutputTable) -> ArchiveNames | None:
    return ArchiveNames(output.archive, output.timezone) if output.archive else None
