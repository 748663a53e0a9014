"""The file with the clocks of the last pass. It is not in the index, which may be made again.

Calls block.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from camserver.archive.clock_guard import ClockRecord, Clocks
from camserver.host.clock import boot_time
from camserver.host.files import read_regular

MAX_BYTES = 4096


class ClockFile:
    """Keeps the record in memory, too: a disk that takes nothing must not make it forgotten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._record: ClockRecord | None = None

    def load(self) -> ClockRecord | None:
        """The record. None when there is none."""
        if self._record is None:
            with contextlib.suppress(OSError, ValueError, RecursionError):
                self._record = ClockRecord.load(json.loads(read_regular(self._path, MAX_BYTES)))
        return self._record

    def save(self, record: ClockRecord) -> None:
        """Keep a record."""
        self._record = record
        temporary = self._path.with_name(self._path.name + ".tmp")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(record.stored()))
            temporary.replace(self._path)


def clock_file_beside(index: Path) -> Path:
    """The path of the clock file of an index."""
    return index.with_name(index.name + ".clock")


def clocks_of_this_machine(runtime: Path) -> Callable[[], Clocks]:
    """A function that reads the clocks.

    In its sandbox the daemon can't see the id of the boot. Then a file in the folder `runtime`,
    which a reboot empties, stands in for it.
    """
    boot_id = _boot_id(runtime)
    return lambda: Clocks(time.time(), boot_time(), boot_id)


def _boot_id(runtime: Path) -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    path = runtime / "camserver.boot"
    with contextlib.suppress(OSError):
        return read_regular(path, MAX_BYTES).decode(errors="replace")
    new = f"{os.getpid()} {uuid.uuid4().hex}"
    with contextlib.suppress(OSError):
        path.write_text(new)
    return new
