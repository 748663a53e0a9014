"""Lists of archived pictures: those of a camera on one day."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from camserver.archive.database import ArchivedPicture
from camserver.archive.index import ArchiveIndex, IndexUnavailable
from camserver.archive.scan import look, walk
from camserver.config import Inventory
from camserver.config.output import OutputTable
from camserver.storage.naming import ArchiveNames, archive_name, archive_regex, within

MAX_PICTURES = 20_000
"""The most pictures of one day that are returned: the newest. One every 5 s is fewer (17,280)."""
_DAYS = frozenset("Ymdjy")


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a time zone, from its first moment to that of the next day, in ms since 1970."""

    begin: datetime

    @classmethod
    def of(cls, day: date, timezone: str) -> Day:
        """A day in a time zone."""
        return cls(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(timezone)))

    @property
    def first_ms(self) -> int:
        """The first moment."""
        return round(self.begin.timestamp() * 1000)

    @property
    def end_ms(self) -> int:
        """The first moment of the next day."""
        return round((self.begin + timedelta(days=1)).timestamp() * 1000)


class ArchiveListing:
    """The pictures below `output.directory`. Without a complete index it looks at the files."""

    def __init__(self, output: OutputTable, index: ArchiveIndex | None = None) -> None:
        self.output = output
        self._index = index

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over what a reload may change. The store reports the keys that need a restart."""
        self.output = within(self.output.directory, inventory.output)
        return ()

    def path(self, camera: str, relative: str) -> Path | None:
        """The file of a picture. The call blocks.

        None when the archive's pattern can't give this name, or when there is no such file.
        """
        if not self.output.archive or not archive_regex(self.output.archive).fullmatch(relative):
            return None
        path = self.output.directory / camera / relative
        return path if path.is_file() and not path.is_symlink() else None

    async def indexed(self, camera: str, day: date) -> list[ArchivedPicture] | None:
        """The pictures of one day, oldest first, from the index. None when it can't answer."""
        index = self._index
        if index is None or not index.scan.complete or not self.output.archive:
            return None
        wanted = Day.of(day, self.output.timezone)
        try:
            return await index.ask(
                lambda database: database.between(
                    camera, wanted.first_ms, wanted.end_ms, MAX_PICTURES
                )
            )
        except IndexUnavailable:
            return None

    def walked(self, camera: str, day: date) -> list[ArchivedPicture]:
        """The pictures of one day, oldest first, from the files. The call blocks."""
        if not self.output.archive:
            return []
        names = ArchiveNames(self.output.archive, self.output.timezone)
        wanted = Day.of(day, self.output.timezone)
        folder = self._folder(wanted.begin)
        found = (
            look(self.output.directory, names, camera, path)
            for path in walk(self.output.directory / camera, names, below=folder)
        )
        of_day = [p for p in found if p and wanted.first_ms <= p.taken_ms < wanted.end_ms]
        return sorted(of_day, key=lambda picture: picture.taken_ms)[-MAX_PICTURES:]

    def _folder(self, day: datetime) -> str:
        """The folder of a day: the leading parts of the pattern that depend only on the date."""
        folders = []
        for part in self.output.archive.split("/")[:-1]:
            if not set(re.findall("%(.)", part)) <= _DAYS:
                break
            folders.append(archive_name(part, day) + "/")
        return "".join(folders)
