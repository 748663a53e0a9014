"""One worker process: what is said to it, and its end. Parent's side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

FRAME = struct.Struct(">II")
"""The head of a message: size of the JSON header and size of the blob, both in bytes.

The JSON object and the blob follow.
"""
MAX_HEADER_BYTES = 64 * 1024
MAX_BLOB_BYTES = 64 * 1024 * 1024
BUFFER_BYTES = 256 * 1024
"""How much of a reply the reader holds, as much as asyncio reads at once."""
IDLE_S = 60.0
"""A worker that is idle for this long is ended. The next job starts a new one."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of a job: `data` is plain JSON, `blob` the bytes that belong to it."""

    data: dict[str, Any]
    blob: bytes


class Worker:
    """A worker process, by our end of the socket that it serves.

    Its process id stays its own until `died` has returned and it was reaped, while the process
    lives from which it was forked.
    """

    def __init__(
        self,
        pid: int,
        parent_pid: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.pid = pid
        self.parent_pid = parent_pid
        self.has_answered = False
        self.reaping: asyncio.Task[int | None] | None = None
        """Waits for its death, then for its exit status. None: it is not ended yet."""
        self._reader = reader
        self._writer = writer
        self._died = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._pidfd = os.pidfd_open(pid)
        try:
            asyncio.get_running_loop().add_reader(self._pidfd, self._on_death)
        except OSError:  # such as: too many watches of epoll(7)
            os.close(self._pidfd)
            raise

    @classmethod
    async def connected(cls, pid: int, parent_pid: int, channel: socket.socket) -> Self:
        """The worker `pid`, which serves the other end of `channel`. Raises OSError."""
        reader, writer = await asyncio.open_unix_connection(sock=channel, limit=BUFFER_BYTES)
        try:
            return cls(pid, parent_pid, reader, writer)
        except OSError:
            writer.close()
            raise

    async def exchange(self, data: dict[str, Any], blob: bytes) -> Reply:
        """Let it do one job.

        Raises EOFError or OSError when it dies, ValueError when its reply makes no sense.
        """
        header = json.dumps(data).encode()
        # Not writelines: from Python 3.12 on, an empty part of it is never sent. It keeps the loop
        # busy, and the socket open (https://github.com/python/cpython/issues/155888).
        self._writer.write(FRAME.pack(len(header), len(blob)) + header)
        self._writer.write(blob)
        await self._writer.drain()
        header_bytes, blob_bytes = FRAME.unpack(await self._reader.readexactly(FRAME.size))
        if header_bytes > MAX_HEADER_BYTES or blob_bytes > MAX_BLOB_BYTES:
            raise ValueError("reply over the limit")
        try:
            reply = json.loads(await self._reader.readexactly(header_bytes))
        except RecursionError:
            raise ValueError("reply is too deep") from None
        if not isinstance(reply, dict):
            # ValueError, like every other kind of broken reply
            raise ValueError("reply is no object")  # noqa: TRY004
        return Reply(reply, await self._reader.readexactly(blob_bytes))

    def retire_later(self, retire: Callable[[Worker], None]) -> None:
        """Call `retire` when it has been idle for IDLE_S."""
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, retire, self)

    def keep(self) -> None:
        """It is not idle any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send(self, number: int) -> None:
        """Send a signal. A worker that is dead gets none."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    @property
    def has_died(self) -> bool:
        """Whether it has died."""
        return self._died.is_set()

    async def died(self) -> None:
        """Wait until it has died.

        The kernel says so after it has closed all descriptors of the process.
        """
        await self._died.wait()

    def close(self) -> None:
        """Free what we hold of a dead worker."""
        self._writer.transport.abort()
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_death(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._died.set()
