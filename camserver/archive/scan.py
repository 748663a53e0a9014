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
    """What one step found. `newest_ms` is the time of the newest picture that was added."""

    position: ScanPosition
    added: int
    removed: int
    newest_ms: int | None


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

    The paths are relative to `top`. A folder that can't be read gives nothing.
    """
    entries = []
    with contextlib.suppress(OSError), os.scandir(top / below) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                entries.append(entry.name + "/")
            elif entry.is_file(follow_symlinks=False):
                entries.append(entry.name)
    entries.sort()
    for name in entries:
        path = below + name
        if name.endswith("/"):
            # All paths in the folder come before `after` when the last possible one does
            if path + LAST_PATH > after:
                yield from walk(top, names, after, path)
        elif path > after and path not in RESERVED and names.match(path) and _is_text(name):
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
        """Make one step for each value. Raises sqlite3.Error."""
        for camera in self._folders(self._directory):
            if camera < self._start.camera:
                continue
            after = self._start.path if camera == self._start.camera else ""
            paths = walk(self._directory / camera, self._names, after)
            while True:
                chunk = list(islice(paths, STEP_FILES))
                yield self._compare(database, camera, after, chunk)
                if len(chunk) < STEP_FILES:
                    break
                after = chunk[-1]

    def _compare(
        self, database: ArchiveDatabase, camera: str, after: str, paths: list[str]
    ) -> ScanStep:
        """Compare the files after `after` with the rows. The last chunk of a camera is short."""
        last = paths[-1] if len(paths) == STEP_FILES else None
        rows = database.sizes(camera, after, last)
        found = [
            picture
            for path in paths
            if path not in rows
            and (picture := look(self._directory, self._names, camera, path)) is not None
        ]
        listed = set(paths)
        gone = [
            ArchivedPicture(camera, path, 0, size)
            for path, size in rows.items()
            # A picture may have been published after its folder was listed
            if path not in listed and not os.path.lexists(self._directory / camera / path)
        ]
        if found:
            database.add(found)
            database.forget_facts(thinned_prefix(camera))  # older ones may have come
        if gone:
            database.remove(gone)
        return ScanStep(
            ScanPosition(camera, LAST_PATH if last is None else last),
            len(found),
            len(gone),
            max((picture.taken_ms for picture in found), default=None),
        )


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
    return ArchivedPicture(camera, path, round(taken_at * 1000), stat.st_size)


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
