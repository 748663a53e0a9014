"""A disk that writes down what is done to it: a FUSE file system with a trace.

    traced_disk.py BACKING MOUNTPOINT TRACE

TRACE gets one pickled call after another, in their order: (name, arguments). Files are named by the
number of their inode, folders and names by their path.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import mfusepy
from faulty_disk import FaultyDisk


class TracedDisk(FaultyDisk):
    """Passes every call on, then notes the ones that change something."""

    def __init__(self, backing: Path, trace: Path) -> None:
        super().__init__(backing, backing / "no faults")
        self._trace = trace.open("ab", buffering=0)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        fh = super().create(path, mode, fi)
        self._note("create", path, _inode(fh))
        return fh

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        written = super().write(path, data, offset, fh)
        self._note("write", _inode(fh), offset, data[:written])
        return written

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        super().fsync(path, datasync, fh)
        self._note("fsync", _inode(fh))
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        super().fsyncdir(path, datasync, fh)
        self._note("fsyncdir", path)
        return 0

    def rename(self, old: str, new: str, *_: Any) -> int:
        super().rename(old, new)
        self._note("rename", old, new)
        return 0

    def link(self, target: str, source: str) -> int:
        super().link(target, source)
        self._note("link", source, target)
        return 0

    def unlink(self, path: str) -> int:
        super().unlink(path)
        self._note("unlink", path)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        super().mkdir(path, mode)
        self._note("mkdir", path)
        return 0

    def _note(self, name: str, *arguments: Any) -> None:
        self._trace.write(pickle.dumps((name, arguments)))


def _inode(fh: int) -> int:
    return os.fstat(fh).st_ino


def main() -> None:
    backing, mountpoint, trace = (Path(argument) for argument in sys.argv[1:])
    mfusepy.FUSE(
        TracedDisk(backing, trace),
        str(mountpoint),
        foreground=True,
        nothreads=True,  # one call after another, so that the trace has their order
        default_permissions=True,
        attr_timeout=0,
        entry_timeout=0,
    )


if __name__ == "__main__":
    main()
