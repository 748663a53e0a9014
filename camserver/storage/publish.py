"""The files of one camera's folder: written whole, under the right name, and flushed.

A picture is written once and gets two names. It is written to a temporary file in the camera's
folder, flushed, linked into the archive and renamed to latest.jpg. So a reader never sees a partial
file. A crash leaves at most a temporary file, which the next start removes.

With `fsync = true` the file is flushed before it gets its names. New folders and the archive's name
are flushed before latest.jpg is replaced. latest.jpg and latest.json share one flush of their
folder, after both.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from camserver.config.output import OutputTable
from camserver.host.files import file_system_of, fsync_folder
from camserver.storage.naming import archive_name, numbered

TEMPORARY = ".camserver-{}.tmp"
# The errors of link(2) on file systems without hard links, for example vfat and some SMB mounts
NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
RUN = uuid.uuid4().hex[:12]
"""The name of this process in temporary files. Process numbers are used again."""
_counter = itertools.count()


class CameraFolder:
    """Writes below `path`, the folder of one camera. The calls block, and raise OSError."""

    def __init__(self, path: Path, output: OutputTable) -> None:
        self.path = path
        self._output = output
        # The archive's name of the newest picture, and the number for the next one of this name
        self._next_number = "", 0

    def use(self, output: OutputTable) -> None:
        """Use another table for the next picture. This call does not block."""
        self._output = output

    def publish(self, jpeg: bytes, captured_at: datetime, *, file_system: int | None) -> str | None:
        """Replace latest.jpg. Returns the picture's name in the archive, or None without one.

        `file_system`: the st_dev on which it must be, or None for any.
        """
        check_file_system(self.path.parent, file_system)
        make_folders(self.path, fsync=self._output.fsync)
        name = None
        with self._temporary(jpeg) as temporary:
            if self._output.archive:
                name = self._archive(temporary, jpeg, captured_at)
            try:
                temporary.replace(self.path / "latest.jpg")
            except OSError:
                if name is not None:  # the index does not get a picture that was not published
                    _remove(self.path / name)
                raise
        return name

    def write_facts(self, latest_json: bytes, *, file_system: int | None) -> None:
        """Replace latest.json, and flush the names of both files."""
        check_file_system(self.path.parent, file_system)
        make_folders(self.path, fsync=self._output.fsync)
        with self._temporary(latest_json) as temporary:
            temporary.replace(self.path / "latest.json")
        if self._output.fsync:
            fsync_folder(self.path)

    def _archive(self, temporary: Path, jpeg: bytes, captured_at: datetime) -> str:
        """Give the picture a free name in the archive, and return the name."""
        zone = ZoneInfo(self._output.timezone)
        base = archive_name(self._output.archive, captured_at.astimezone(zone))
        make_folders((self.path / base).parent, fsync=self._output.fsync)

        def taken(number: int) -> bool:
            return os.path.lexists(self.path / numbered(base, number))

        # A coarse pattern gives thousands of pictures the same name: the search must be short
        known, number = self._next_number
        number = number if known == base else free_number(taken, 0)
        while not self._link(temporary, self.path / numbered(base, number), jpeg):
            number = free_number(taken, number + 1)
        self._next_number = base, number + 1
        name = numbered(base, number)
        if self._output.fsync:
            try:
                fsync_folder((self.path / name).parent)
            except OSError:  # the index does not get a picture that was not published
                _remove(self.path / name)
                raise
        return name

    def _link(self, temporary: Path, path: Path, jpeg: bytes) -> bool:
        """Give the picture the name `path`. False when the name is taken."""
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            if os.path.lexists(path):
                return False
            with self._temporary(jpeg) as copy:
                copy.replace(path)
        return True

    @contextlib.contextmanager
    def _temporary(self, data: bytes) -> Iterator[Path]:
        """A new file with `data`, flushed. It is removed when it gets no other name."""
        path = self.path / TEMPORARY.format(f"{RUN}-{next(_counter)}")
        try:
            with path.open("xb", buffering=0) as file:
                _write_all(file.fileno(), data)
                if self._output.fsync:
                    os.fsync(file.fileno())
            yield path
        except BaseException:
            _remove(path)
            raise


def check_file_system(directory: Path, expected: int | None) -> None:
    """Raise OSError when the disk of `directory` was unmounted, or another one was mounted."""
    if expected is not None and file_system_of(directory) != expected:
        raise OSError(errno.ENODEV, "its disk was unmounted, or another one was mounted")


def make_folders(folder: Path, *, fsync: bool) -> None:
    """Create `folder` and its parents, and flush the names of new ones. The call blocks.

    Raises OSError.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        if fsync:
            try:
                fsync_folder(new.parent)
            except OSError:  # the next picture must flush it
                with contextlib.suppress(OSError):
                    new.rmdir()
                raise


def free_number(taken: Callable[[int], bool], first: int) -> int:
    """A number from `first` on that is not taken, in a logarithmic number of questions.

    It is the first free one when the taken numbers have no gap.
    """
    if not taken(first):
        return first
    low, step = first, 1
    while taken(low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if taken(middle) else (low, middle)
    return high


def remove_temporary_files(directory: Path) -> int:
    """Remove the temporary files of earlier processes. Returns their number. The call blocks."""
    removed = 0
    with contextlib.suppress(OSError):
        for path in directory.glob("*/" + TEMPORARY.format("*")):
            if not path.match(TEMPORARY.format(f"{RUN}-*")):
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed += 1
    return removed


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
