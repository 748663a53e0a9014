"""A disk with faults: a FUSE file system that passes everything on, and fails where it is told.

    faulty_disk.py BACKING MOUNTPOINT FAULTS

FAULTS is a file with one fault a line, which is read again at every call:

    write EIO            every write fails
    fsync,rename EROFS   flushing and renaming fail
    write hang gate      writes below a path with "gate" wait until the line is gone
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

import mfusepy

CHANGES = "create,write,truncate,fsync,fsyncdir,rename,unlink,mkdir,rmdir,chmod,utimens,link"
"""All calls that change something: what a disk refuses that has become read-only."""


HANG_S = 120.0
"""The longest hang: a test that was killed must leave no process."""
CALLS = frozenset(
    (*CHANGES.split(","), "open", "read", "readdir", "readlink", "getattr", "statfs", "symlink")
)


class FaultyDisk(mfusepy.Operations):
    """The calls of FUSE. Each of CALLS begins with the faults."""

    use_ns = True

    def __init__(self, backing: Path, faults: Path) -> None:
        self._backing = backing
        self._faults = faults

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name not in CALLS:
            return method

        def call(path: str, *arguments: Any) -> Any:
            self._fail(name, path)
            return method(path, *arguments)

        return call

    def _fail(self, op: str, path: str) -> None:
        end = time.monotonic() + HANG_S
        while fault := self._fault(op, path):
            if fault != "hang" or time.monotonic() > end:
                raise mfusepy.FuseOSError(getattr(errno, fault, errno.EIO))
            time.sleep(0.02)

    def _fault(self, op: str, path: str) -> str:
        try:
            lines = self._faults.read_text().splitlines()
        except FileNotFoundError:
            return ""
        for line in lines:
            ops, fault, *below = line.split()
            if op in ops.split(",") and all(part in path for part in below):
                return fault
        return ""

    def _at(self, path: str) -> str:
        return str(self._backing) + path

    def access(self, path: str, amode: int) -> int:
        if not os.access(self._at(path), amode):
            raise mfusepy.FuseOSError(errno.EACCES)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._at(path), uid, gid)
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def flush(self, path: str, fh: int) -> int:
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        return 0

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        st = os.lstat(self._at(path))
        times = {name: getattr(st, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_ino")
        return times | {name: getattr(st, name) for name in names}

    def link(self, target: str, source: str) -> int:
        os.link(self._at(source), self._at(target))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def rename(self, old: str, new: str, *_: Any) -> int:
        os.rename(self._at(old), self._at(new))
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        st = os.statvfs(self._at(path))
        names = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files")
        return {name: getattr(st, name) for name in (*names, "f_frsize", "f_namemax")}

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._at(target))
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path), length)
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        os.utime(self._at(path), ns=times)
        return 0

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)


def main() -> None:
    backing, mountpoint, faults = (Path(argument) for argument in sys.argv[1:])
    mfusepy.FUSE(
        FaultyDisk(backing, faults),
        str(mountpoint),
        foreground=True,
        default_permissions=True,
        attr_timeout=0,
        entry_timeout=0,
    )


if __name__ == "__main__":
    main()
