"""File operations that a wrong kind of file can't block, and that a crash can't undo.

Opening a FIFO blocks until a program writes to it. So only regular files are read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class NotRegularFileError(OSError):
    """Raised when a path is a FIFO, a socket or a device."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not a regular file")
        self.strerror = "it is not a regular file"


def open_regular(path: Path, flags: int, mode: int = 0o644) -> int:
    """Open a regular file without blocking, and return its descriptor.

    Raises OSError, which is a NotRegularFileError for a FIFO, a socket or a device.
    """
    # With O_NONBLOCK the open of a FIFO does not wait for the other side; ENXIO: there is none
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if path.exists() and not path.is_file():
            raise NotRegularFileError(path) from error
        raise
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotRegularFileError(path)


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file. Raises OSError, also when it has more than `most` bytes."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def fsync_folder(folder: Path) -> None:
    """Flush the names of a folder to the disk, after a rename or link. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def file_system_of(path: Path) -> int:
    """The file system (st_dev) of `path`, or of its nearest parent that exists. Raises OSError."""
    while True:
        try:
            return path.stat().st_dev
        except FileNotFoundError:
            if path == path.parent:
                raise
            path = path.parent
