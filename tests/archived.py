"""Archives of empty files, their rows, and an index that runs, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from stored import MOMENT

from camserver.archive.database import ArchiveDatabase, ArchivedPicture
from camserver.archive.index import ArchiveIndex
from camserver.archive.scan import ArchiveScan
from camserver.events import Event
from camserver.storage.naming import ArchiveNames, archive_name

PATTERN = "%Y/%m/%d/%H%M%S.%LZ.jpg"
NAMES = ArchiveNames(PATTERN, "UTC")


def row(camera: str, second: int, size: int = 10) -> ArchivedPicture:
    moment = MOMENT + timedelta(seconds=second)
    return ArchivedPicture(
        camera, archive_name(PATTERN, moment), round(moment.timestamp() * 1000), size
    )


def write(directory: Path, pictures: list[ArchivedPicture]) -> None:
    """Empty files of the right size, as published pictures."""
    for picture in pictures:
        path = directory / picture.camera / picture.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(picture.bytes))
        (directory / picture.camera / "latest.json").touch()


def rows_of(database: ArchiveDatabase, camera: str) -> list[ArchivedPicture]:
    return list(database.oldest(camera, 0, 2**62))


def scan(directory: Path, database: ArchiveDatabase, **options: Any) -> tuple[int, int]:
    steps = list(ArchiveScan(directory, NAMES, **options).steps(database))
    return sum(step.added for step in steps), sum(step.removed for step in steps)


class Running:
    """An index with its jobs, on `directory`."""

    def __init__(self, directory: Path) -> None:
        self.events: list[Event] = []
        self.index = ArchiveIndex(directory / "index", directory, NAMES, self.events.append)
        self._job: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ArchiveIndex:
        self._job = asyncio.create_task(self.index.run())
        return self.index

    async def __aexit__(self, *_: object) -> None:
        assert self._job is not None
        self._job.cancel()
        await asyncio.wait({self._job})
        await self.index.close(60)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def names_of(events: list[Event]) -> list[str]:
    return [event.EVENT for event in events]
