"""Smaller pictures for the wall.

Each is made once for its picture and width, in a separate worker, and kept in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from cachetools import LRUCache

from camserver.capture.decoder import Decoder
from camserver.errors import CamserverError
from camserver.host.tasks import SingleFlight

WIDTHS = (160, 320, 480, 640, 960, 1280)
MAX_KEPT_BYTES = 64 * 1024 * 1024
LIMIT_S = 10.0
MAKING = 2
"""Pictures that are read and made smaller at the same time. Each is in memory as a whole."""
MAX_WAITING = 256
"""Other ones that may wait for their turn."""

Key = tuple[Path, int, int]
"""The file, its modification time in nanoseconds, the width in pixels."""


class ThumbnailsBusy(CamserverError):  # noqa: N818 - the name states the condition
    """Raised when too many other pictures are being made smaller."""


class Thumbnails:
    """A cache of JPEGs by file, modification time and width.

    Requests for the same one at the same time share one decoding.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._kept: LRUCache[Key, bytes] = LRUCache(MAX_KEPT_BYTES, getsizeof=len)
        self._making = SingleFlight[Key, bytes]()
        self._turns = asyncio.Semaphore(MAKING)
        self._waiting = 0

    async def get(
        self, path: Path, modified_ns: int, width: int, read: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """Return `path` as a JPEG; its width in pixels is limited to `width`.

        `width` is first rounded up to one of WIDTHS. `read` returns the bytes of the file.

        Raises CameraError, OSError, ThumbnailsBusy.
        """
        width = next((w for w in WIDTHS if w >= width), WIDTHS[-1])
        key = path, modified_ns, width
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        if self._waiting >= MAX_WAITING:
            raise ThumbnailsBusy(f"{MAX_WAITING} pictures are waiting to be made smaller")
        self._waiting += 1
        try:
            return await self._making.do(
                key, lambda: self._make(key, read), f"thumbnail {path.parent.name}"
            )
        finally:
            self._waiting -= 1

    async def _make(self, key: Key, read: Callable[[], Awaitable[bytes]]) -> bytes:
        _, _, width = key
        deadline = asyncio.get_running_loop().time() + LIMIT_S
        try:
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        except TimeoutError:
            raise ThumbnailsBusy(f"no turn within {LIMIT_S:g} s") from None
        try:
            still = await self._decoder.inspect(await read(), width=width, deadline=deadline)
        finally:
            self._turns.release()
        with suppress(ValueError):  # one JPEG is larger than the whole cache
            self._kept[key] = still.jpeg
        return still.jpeg
