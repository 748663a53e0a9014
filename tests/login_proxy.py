"""A proxy in front of a third-party RTSP server. It counts the logins that the server refuses."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from camserver.rtsp.messages import MessageParser, Request, Response


class LoginProxy:
    """Forwards all data unchanged. UDP media do not pass through it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self.refused_logins = 0
        """The number of 401 answers to requests with a login."""
        self.connections = 0

    async def __aenter__(self) -> LoginProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        with_login: deque[bool] = deque()  # matched by order, because VLC's 401 has no CSeq
        requests, answers = MessageParser(), MessageParser()

        def sent(data: bytes) -> None:
            for message in requests.feed(data):
                if isinstance(message, Request):
                    with_login.append(bool(message.headers.get("Authorization")))

        def answered(data: bytes) -> None:
            for message in answers.feed(data):
                if isinstance(message, Response) and with_login:
                    self.refused_logins += with_login.popleft() and message.status == 401

        async def pump(
            source: asyncio.StreamReader, sink: asyncio.StreamWriter, look: Callable[[bytes], None]
        ) -> None:
            try:
                while data := await source.read(65536):
                    look(data)
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, far_writer, sent), pump(far_reader, writer, answered))
