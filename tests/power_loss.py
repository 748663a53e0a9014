"""What may be on a disk after the power was lost, by the trace of what was done to it.

The model: a name is on the disk for sure when its folder was flushed after it. Of later changes to
the names of one folder the disk has some, in their order. Changes to different folders have no
order. The content of a file is on the disk for sure when the file was flushed after it was written;
otherwise half of it is there.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

Call = tuple[str, tuple[Any, ...]]


@dataclass(eq=False)
class File:
    """A file's content as programs see it, and as it was when it was flushed."""

    content: bytes = b""
    flushed: bytes | None = None

    def after_loss(self) -> bytes:
        return self.content[: len(self.content) // 2] if self.flushed is None else self.flushed


@dataclass
class Folder:
    """The names that are on the disk for sure, and the changes after them."""

    sure: dict[str, File | None] = field(default_factory=dict)
    changes: list[dict[str, File | None]] = field(default_factory=list)

    def names(self, changes: int | None = None) -> dict[str, File | None]:
        """The files by name after so many changes (all: as programs see them). None: a folder."""
        found = dict(self.sure)
        for change in self.changes[:changes]:
            for name, file in change.items():
                if file is REMOVED:
                    found.pop(name, None)
                else:
                    found[name] = file
        return found


REMOVED = File()


class Disk:
    """The state of a disk, call by call."""

    def __init__(self) -> None:
        self.folders: dict[str, Folder] = {"/": Folder()}
        self._files: dict[int, File] = {}

    def apply(self, call: Call) -> None:
        name, arguments = call
        getattr(self, f"_{name}")(*arguments)

    def after_loss(self, below: str) -> Iterator[dict[str, bytes]]:
        """All states of the files below a folder, as path -> content."""
        chosen = {
            path: folder
            for path, folder in self.folders.items()
            if (path + "/").startswith(below + "/") or below.startswith(path)
        }
        for counts in itertools.product(
            *(range(len(folder.changes) + 1) for folder in chosen.values())
        ):
            names = {
                path: folder.names(count)
                for (path, folder), count in zip(chosen.items(), counts, strict=True)
            }
            yield {
                _join(path, name): file.after_loss()
                for path, found in names.items()
                for name, file in found.items()
                if file is not None and _is_reached(path, names)
            }

    def _create(self, path: str, inode: int) -> None:
        self._files[inode] = File()
        self._change(path, self._files[inode])

    def _write(self, inode: int, offset: int, data: bytes) -> None:
        file = self._files[inode]
        file.content = file.content[:offset].ljust(offset, b"\0") + data

    def _fsync(self, inode: int) -> None:
        self._files[inode].flushed = self._files[inode].content

    def _fsyncdir(self, path: str) -> None:
        folder = self.folders[path]
        folder.sure, folder.changes = folder.names(), []

    def _mkdir(self, path: str) -> None:
        self._change(path, None)
        self.folders[path] = Folder()

    def _link(self, source: str, target: str) -> None:
        self._change(target, self._file(source))

    def _unlink(self, path: str) -> None:
        self._change(path, REMOVED)

    def _rename(self, old: str, new: str) -> None:
        folder, old_name = _split(old)
        to_folder, new_name = _split(new)
        assert folder == to_folder, "files are renamed in their folder only"
        self.folders[folder].changes.append({old_name: REMOVED, new_name: self._file(old)})

    def _file(self, path: str) -> File | None:
        folder, name = _split(path)
        return self.folders[folder].names()[name]

    def _change(self, path: str, file: File | None) -> None:
        folder, name = _split(path)
        self.folders[folder].changes.append({name: file})


def read_trace(path: Path) -> list[Call]:
    calls: list[Call] = []
    with path.open("rb") as file:
        while True:
            try:
                calls.append(pickle.load(file))  # noqa: S301 - the trace of our own test
            except EOFError:
                return calls


def _is_reached(path: str, names: dict[str, dict[str, File | None]]) -> bool:
    """Whether all parents of a folder have its name."""
    while path != "/":
        path, name = _split(path)
        if name not in names[path]:
            return False
    return True


def _split(path: str) -> tuple[str, str]:
    pure = PurePosixPath(path)
    return str(pure.parent), pure.name


def _join(folder: str, name: str) -> str:
    return str(PurePosixPath(folder) / name)
