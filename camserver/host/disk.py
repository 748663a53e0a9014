"""Measures the free space of a disk. A hung disk does not block the caller."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

LIMIT_S = 1.0


class Disk:
    """Measures in its own thread. While that thread hangs, no other thread is started."""

    def __init__(self) -> None:
        self._measuring: asyncio.Future[tuple[int, int] | None] | None = None

    async def usage(self, directory: Path) -> tuple[int, int] | None:
        """(free, total) in bytes. None on an OSError, or when there is no answer within LIMIT_S."""
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.get_running_loop().create_future()
            threading.Thread(
                target=_measure,
                args=(directory, asyncio.get_running_loop(), self._measuring),
                name="disk",
                daemon=True,
            ).start()
        done, _ = await asyncio.wait({self._measuring}, timeout=LIMIT_S)
        return self._measuring.result() if done else None


def _measure(
    directory: Path, loop: asyncio.AbstractEventLoop, told: asyncio.Future[tuple[int, int] | None]
) -> None:
    try:
        usage = shutil.disk_usage(directory)
        found = usage.free, usage.total
    except OSError:
        found = None

    def tell() -> None:
        if not told.done():
            told.set_result(found)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop is closed, so no task waits for the answer
        return
