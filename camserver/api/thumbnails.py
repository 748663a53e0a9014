"""Smaller pictures for the wall.

Made once for each picture and width, in a worker of their own, kept in memory.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path

from camserver.capture.decoder import Decoder
from camserver.errors import CameraError

WIDTHS = (160, 320, 480, 640, 960, 1280)
MAX_KEPT_BYTES = 64 * 1024 * 1024
LIMIT_S = 10.0


class Thumbnails:
    """JPEGs by file, moment and width.

    One request makes what others at the same time wait for, too.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._kept: OrderedDict[tuple[Path, int, int], bytes] = OrderedDict()
        self._kept_bytes = 0
        self._making: dict[tuple[Path, int, int], asyncio.Task[bytes]] = {}

    async def get(
        self, path: Path, modified_ns: int, width: int, read: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """`path` as JPEG at most `width` pixels wide; of WIDTHS the next greater.

        `read` gives the file.

        Raises CameraError, OSError.
        """
        width = next((w for w in WIDTHS if w >= width), WIDTHS[-1])
        key = path, modified_ns, width
        if (jpeg := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return jpeg
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(
                self._make(width, read), name=f"thumbnail {path.parent.name}"
            )
            task.add_done_callback(lambda done: self._made(key, done))
        return await asyncio.shield(task)

    async def _make(self, width: int, read: Callable[[], Awaitable[bytes]]) -> bytes:
        still = await self._decoder.inspect(
            await read(), width=width, deadline=asyncio.get_running_loop().time() + LIMIT_S
        )
        return still.jpeg

    def _made(self, key: tuple[Path, int, int], task: asyncio.Task[bytes]) -> None:
        del self._making[key]
        if task.cancelled() or isinstance(task.exception(), CameraError | OSError):
            return
        self._kept[key] = task.result()
        self._kept_bytes += len(task.result())
        while self._kept_bytes > MAX_KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])
