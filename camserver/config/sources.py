"""The files that an inventory was read from, and whether they are still the same.

People change files in many ways: an editor replaces one, `git` or `rsync` replaces a folder, a link
is switched to another folder. So a file is the same only if its file system, its number, its size
and its times are the same. Calls block.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Stamp = tuple[int, int, int, int, int]
"""st_dev, st_ino, st_size, st_mtime_ns, st_ctime_ns."""


@dataclass(frozen=True, slots=True)
class InventorySources:
    """The inventory at `path`, the patterns of its `include`, and its files with passwords.

    `stamps` has every file that was read, with None for one that does not exist.
    """

    path: Path
    includes: tuple[str, ...] = ()
    passwords: tuple[Path, ...] = ()
    stamps: Mapping[Path, Stamp | None] = field(default_factory=dict)

    def now(self) -> dict[Path, Stamp | None]:
        """The stamps of the files that would be read now."""
        paths = dict.fromkeys((self.path, *self._included(), *self.passwords))
        return {path: stamp_at(path) for path in paths}

    @property
    def youngest_s(self) -> float:
        """How many seconds ago the newest change of a file was."""
        newest = max((stamp[3] for stamp in self.stamps.values() if stamp), default=0)
        return time.time() - newest / 1e9

    @property
    def have_changed(self) -> bool:
        """Whether reading the files again could give something else."""
        return self.now() != dict(self.stamps)

    def folders(self) -> dict[Path, tuple[int, int]]:
        """The folders in which changes are noticed, with st_dev and st_ino.

        The parents are among them: a folder may be removed and made again.
        """
        # realpath, because resolve() raises RuntimeError for links that lead in a circle
        folders = {self.path.absolute().parent, Path(os.path.realpath(self.path)).parent}
        for pattern in self.includes:
            folders.add(included_folder(self.path, pattern))
        folders |= {Path(os.path.realpath(folder)) for folder in folders}
        folders |= {folder.parent for folder in folders}
        found = {}
        for folder in folders:
            try:
                stat = folder.stat()
            except OSError:
                continue
            if folder.is_dir():
                found[folder] = stat.st_dev, stat.st_ino
        return found

    def _included(self) -> Iterator[Path]:
        for pattern in self.includes:
            try:
                yield from included_paths(self.path, pattern)
            except (ValueError, OSError, RuntimeError):
                continue


def included_folder(inventory: Path, pattern: str) -> Path:
    """The folder of an include pattern. It may contain wildcards itself."""
    root, relative = _root(inventory, pattern)
    return (root / relative).parent


def included_paths(inventory: Path, pattern: str) -> list[Path]:
    """The files that a pattern of `include` names now, sorted.

    Raises ValueError or OSError for a pattern that is none.
    """
    root, relative = _root(inventory, pattern)
    return sorted(root.glob(_glob(relative))) if relative else []


def stamp_of(stat: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def stamp_at(path: Path) -> Stamp | None:
    """The stamp of the file at a path. None when there is no file."""
    try:
        return stamp_of(path.stat())
    except OSError:
        return None


def _root(inventory: Path, pattern: str) -> tuple[Path, str]:
    if Path(pattern).is_absolute():
        return Path("/"), pattern.lstrip("/")
    return inventory.absolute().parent, pattern


def _glob(pattern: str) -> str:
    """`pattern`, after a check. Raises ValueError where ** is only a part of a name.

    Python refuses such a pattern until 3.12. Later versions treat ** as *.
    """
    if any("**" in part and part != "**" for part in pattern.split("/")):
        raise ValueError(pattern)
    return pattern
