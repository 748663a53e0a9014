"""A TCP link that can be cut in one direction or both, as a network would be.

What is sent into a cut is not lost: TCP sends it again, so it arrives when the cut is over. Nobody
gets an error meanwhile.
"""

from __future__ import annotations

import asyncio


class CutLink:
    """A proxy in front of a port of this machine."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._open = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.heal()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self, *directions: str) -> None:
        """Let nothing through: of "requests", of "answers", or of both."""
        for direction in directions or self._open:
            self._open[direction].clear()

    def heal(self) -> None:
        """Let everything through."""
        for event in self._open.values():
            event.set()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            # The answer to SYN passes both directions
            for event in self._open.values():
                await event.wait()
            back, forth = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, forth, self._open["requests"]))
                group.create_task(self._pump(back, writer, self._open["answers"]))
        except* OSError:
            pass
        finally:
            for end in (writer, forth):
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event
    ) -> None:
        while True:
            data = await reader.read(65536)
            await is_open.wait()
            if not data:
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
