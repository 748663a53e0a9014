"""Compares the index with the files: adds what is missing, removes what is gone.

The scan goes through each camera's files in the order of their paths, which is the order of the
index, too. So it needs little memory, it can stop after any step, and it can go on from there after
a restart. Calls block.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from camserver.archive.database import (
    LAST_PATH,
    ArchiveDatabase,
    ArchivedPicture,
    thinned_prefix,
)
from camserver.config.model import CAMERA_ID
from camserver.host.files import open_regular
from camserver.storage.exif import captured_at
from camserver.storage.naming import ArchiveNames

STEP_FILES = 1000
STEP_ROWS = 4 * STEP_FILES
MAX_MS = 2**52
"""No picture was taken after it: a name may have any digits."""
EXIF_BYTES = 64 * 1024
"""The part of a JPEG that contains its EXIF."""
RESERVED = {"latest.jpg"}


@dataclass(frozen=True, slots=True)
class ScanPosition:
    """Where a scan is: after the file `path` of `camera`. Both are empty at the beginning."""

    camera: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class ScanStep:
    """What one step found. `taken_ms` are the times of the pictures that were added."""

    position: ScanPosition
    removed: int = 0
    taken_ms: tuple[int, ...] = ()

    @property
    def added(self) -> int:
        """The number of pictures that were added."""
        return len(self.taken_ms)


def camera_folders(directory: Path) -> list[str]:
    """The names of the folders of cameras, also of cameras that left the inventory.

    Other folders are not from camserver.
    """
    with contextlib.suppress(OSError):
        return sorted(
            path.name
            for path in directory.iterdir()
            if re.fullmatch(CAMERA_ID, path.name) and (path / "latest.json").is_file()
        )
    return []


def walk(top: Path, names: ArchiveNames, after: str = "", below: str = "") -> Iterator[str]:
    """Yield the paths of archived pictures below `top`, sorted, that come after `after`.

    The paths are relative to `top`. Folders are as deep as the names have them. Raises OSError for
    a folder that can't be read.
    """
    entries = []
    try:
        with os.scandir(top / below) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    entries.append(entry.name + "/")
                elif entry.is_file(follow_symlinks=False):
                    entries.append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    entries.sort()
    for name in filter(_is_text, entries):
        path = below + name
        if name.endswith("/"):
            # All paths in the folder come before `after` when the last possible one does
            if path.count("/") <= names.depth and path + LAST_PATH > after:
                yield from walk(top, names, after, path)
        elif path > after and path not in RESERVED and names.match(path):
            yield path


def _is_text(name: str) -> bool:
    """Whether a file name is valid UTF-8, as all names of camserver are."""
    return name.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in name)


class ArchiveScan:
    """One comparison of all files with the index."""

    def __init__(
        self,
        directory: Path,
        names: ArchiveNames,
        position: ScanPosition = ScanPosition(),
        *,
        folders: Callable[[Path], list[str]] = camera_folders,
    ) -> None:
        self._directory = directory
        self._names = names
        self._start = position
        self._folders = folders

    def steps(self, database: ArchiveDatabase) -> Iterator[ScanStep]:
        """Make one step for each value. Raises sqlite3.Error, OSError.

        A camera whose folders can't be read is left as it is.
        """
        with os.scandir(self._directory):
            pass  # when the whole directory can't be read, all pictures would seem to be gone
        known = {name for name, totals in database.totals().items() if totals.pictures}
        for camera in sorted({*self._folders(self._directory), *known}):
            if camera < self._start.camera:
                continue
            after = self._start.path if camera == self._start.camera else ""
            try:
                yield from self._camera(database, camera, after)
            except OSError:
                yield ScanStep(ScanPosition(camera, LAST_PATH))

    def _camera(self, database: ArchiveDatabase, camera: str, after: str) -> Iterator[ScanStep]:
        """Go through files and rows side by side, in the order of paths."""
        paths = walk(self._directory / camera, self._names, after)
        while True:
            chunk = list(islice(paths, STEP_FILES))
            last = chunk[-1] if len(chunk) == STEP_FILES else None
            while True:
                rows = database.sizes(camera, after, last, STEP_ROWS)
                if len(rows) < STEP_ROWS:
                    break
                after = next(reversed(rows))  # many rows without files: some at a time
                yield self._compare(database, camera, after, chunk, rows)
                chunk = [path for path in chunk if path > after]
            yield self._compare(database, camera, LAST_PATH if last is None else last, chunk, rows)
            if last is None:
                return
            after = last

    def _compare(
        self,
        database: ArchiveDatabase,
        camera: str,
        end: str,
        paths: list[str],
        rows: dict[str, int],
    ) -> ScanStep:
        """Compare files and rows up to `end`."""
        listed = {path for path in paths if path <= end}
        found = [
            picture
            for path in sorted(listed)
            if path not in rows
            and (picture := look(self._directory, self._names, camera, path)) is not None
        ]
        gone = [
            ArchivedPicture(camera, path, 0, size)
            for path, size in rows.items()
            # A picture may have been published after its folder was listed
            if path not in listed and _is_gone(self._directory / camera / path)
        ]
        if found:
            database.add(found)
            database.forget_facts(thinned_prefix(camera))  # older ones may have come
        if gone:
            database.remove(gone)
        return ScanStep(
            ScanPosition(camera, end), len(gone), tuple(picture.taken_ms for picture in found)
        )


def _is_gone(path: Path) -> bool:
    """Whether a file does not exist. Raises OSError when the disk does not say."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def look(directory: Path, names: ArchiveNames, camera: str, path: str) -> ArchivedPicture | None:
    """The row of a file. None when the file is gone meanwhile.

    The time comes from the name, or from the EXIF, or from the file system, in this order.
    """
    match = names.match(path)
    file = directory / camera / path
    try:
        stat = file.stat(follow_symlinks=False)
    except OSError:
        return None
    taken_at = None if match is None else names.taken_at(match)
    if taken_at is None:
        taken_at = exif_time(file)
    if taken_at is None:
        taken_at = stat.st_mtime
    taken_ms = round(max(-MAX_MS, min(MAX_MS, taken_at * 1000)))
    return ArchivedPicture(camera, path, taken_ms, stat.st_size)


def oldest_files(
    directory: Path, names: ArchiveNames, keep_last: Callable[[str], int]
) -> Iterator[ArchivedPicture]:
    """Yield archived pictures without the index, oldest first, but not the newest of a camera.

    `keep_last` says how many pictures of a camera are kept. It needs names in the order of time.
    """
    if not names.are_chronological:
        return iter(())

    def of(camera: str) -> Iterator[ArchivedPicture]:
        newer: deque[str] = deque()
        with contextlib.suppress(OSError):  # other cameras' pictures go
            for path in walk(directory / camera, names):
                newer.append(path)
                if len(newer) > keep_last(camera):
                    picture = look(directory, names, camera, newer.popleft())
                    if picture is not None:
                        yield picture

    return heapq.merge(
        *(of(camera) for camera in camera_folders(directory)), key=lambda p: p.taken_ms
    )


def exif_time(file: Path) -> float | None:
    """The capture time in a picture, in seconds since 1970. None when it has none."""
    with contextlib.suppress(OSError), os.fdopen(open_regular(file, os.O_RDONLY), "rb") as opened:
        moment = captured_at(opened.read(EXIF_BYTES))
        return None if moment is None else moment.timestamp()
    return None
