"""Reads the archive: the pictures of a camera on one day. Calls block, so use a thread."""

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
"""The most pictures of one day that are returned: the newest. One every 5 s is fewer (17,280)."""
_DAYS = frozenset("Ymdjy")


@dataclass(frozen=True, slots=True)
class Picture:
    """One archived picture.

    `path` is relative to the camera's folder. `taken_at` is in seconds since the epoch.
    """

    path: str
    taken_at: float
    bytes: int


class Archive:
    """The pictures below `output.directory`."""

    def __init__(self, output: OutputTable) -> None:
        self.output = output

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over what a reload may change. The store reports the keys that need a restart."""
        self.output = within(self.output.directory, inventory.output)
        return ()

    def path(self, camera: str, relative: str) -> Path | None:
        """The file of a picture.

        None when the archive's pattern can't give this name, or when there is no such file.
        """
        if not self.output.archive or not archive_regex(self.output.archive).fullmatch(relative):
            return None
        path = self.output.directory / camera / relative
        return path if path.is_file() and not path.is_symlink() else None

    def pictures(self, camera: str, day: date) -> list[Picture]:
        """The pictures of one day in the archive's time zone, oldest first."""
        zone = ZoneInfo(self.output.timezone)
        begin = datetime(day.year, day.month, day.day, tzinfo=zone)
        first, last = begin.timestamp(), (begin + timedelta(days=1)).timestamp()
        found = [p for p in self._walk(camera, self._folder(begin)) if first <= p.taken_at < last]
        return sorted(found, key=lambda p: p.taken_at)[-MAX_PICTURES:]

    def _folder(self, day: datetime) -> str:
        """The folder of a day: the leading parts of the pattern that depend only on the date."""
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
