"""Reading the archive: which pictures of a camera there are on a day. Blocking: for threads."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from camserver.config import Inventory
from camserver.config.model import OutputTable
from camserver.storage.naming import archive_name, archive_regex, within

MAX_PICTURES = 20_000
"""Of one day, the newest; a picture every five seconds is less."""
_DAYS = frozenset("Ymdjy")


@dataclass(frozen=True, slots=True)
class Picture:
    """One archived picture.

    `path` below the camera's folder, `taken_at` in seconds since the epoch.
    """

    path: str
    taken_at: float
    bytes: int


class Archive:
    """The pictures below `output.directory`."""

    def __init__(self, output: OutputTable) -> None:
        self.output = output

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over what a reload may change. The store tells what needs a restart."""
        self.output = within(self.output.directory, inventory.output)
        return ()

    def path(self, camera: str, relative: str) -> Path | None:
        """The file of a picture.

        None for what the archive's pattern could not have named, or is not there.
        """
        if not self.output.archive or not archive_regex(self.output.archive).fullmatch(relative):
            return None
        path = self.output.directory / camera / relative
        return path if path.is_file() and not path.is_symlink() else None

    def pictures(self, camera: str, day: date) -> list[Picture]:
        """Those of one day of the archive's time zone, oldest first."""
        zone = ZoneInfo(self.output.timezone)
        begin = datetime(day.year, day.month, day.day, tzinfo=zone)
        first, last = begin.timestamp(), (begin + timedelta(days=1)).timestamp()
        found = [p for p in self._walk(camera, self._folder(begin)) if first <= p.taken_at < last]
        return sorted(found, key=lambda p: p.taken_at)[-MAX_PICTURES:]

    def _folder(self, day: datetime) -> str:
        """Where a day's pictures are: as much of the pattern as names nothing but days."""
        folders = []
        for part in self.output.archive.split("/")[:-1]:
            if not set(re.findall("%(.)", part)) <= _DAYS:
                break
            folders.append(part)
        return archive_name("/".join(folders), day)

    def _walk(self, camera: str, below: str) -> Iterator[Picture]:
        if not self.output.archive:
            return
        ours = archive_regex(self.output.archive)
        top = self.output.directory / camera
        for root, _, names in os.walk(top / below):
            relative = os.path.relpath(root, top)
            for name in names:
                path = name if relative == "." else f"{relative}/{name}"
                if ours.fullmatch(path):
                    with contextlib.suppress(OSError):
                        stat = Path(root, name).stat(follow_symlinks=False)
                        yield Picture(path, stat.st_mtime, stat.st_size)
