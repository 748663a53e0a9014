"""One RTSP connection: it sends requests, and receives answers and interleaved packets.

It does not know sessions or pictures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from camserver.pace import Pace
from camserver.rtsp.messages import (
    Headers,
    HttpAnswerError,
    Interleaved,
    Message,
    MessageParser,
    Request,
    Response,
    RtspProtocolError,
)

PacketListener = Callable[[int, bytes], None]
MAX_UNASKED = 1000
"""The most messages of a connection, beside packets, that nobody asked for."""


class ConnectionClosed(Exception):  # noqa: N818 - no fault, but how a connection ended
    """Raised when the connection ended before an answer came. The text says how it ended.

    `by_camera`: the camera closed it in good order. `unparsable`: the camera's bytes are not RTSP.
    """

    def __init__(self, why: str, *, by_camera: bool = False, unparsable: bool = False) -> None:
        self.by_camera = by_camera
        self.unparsable = unparsable
        super().__init__(why)


class RtspConnection(asyncio.Protocol):
    """The client's side of a connection. `closed` is done when the transport is proven closed."""

    def __init__(self) -> None:
        self.on_packet: PacketListener | None = None
        self.on_end: Callable[[], None] | None = None
        self.closed = asyncio.get_running_loop().create_future()
        self.end: ConnectionClosed | None = None  # how it ended, None while it is open
        self._parser = MessageParser()
        self._pace = Pace()
        self._next_turn: asyncio.TimerHandle | None = None  # when there is more to process
        self._unasked = 0
        self._ending: ConnectionClosed | None = None  # the end, when more is to be processed
        self._ours = False  # whether we have closed the connection
        # By CSeq, the oldest first. None instead of an answer: the connection has ended
        self._answers: dict[int, asyncio.Future[Response | None]] = {}
        self._number = 0
        self._transport: asyncio.Transport | None = None

    # ---- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport of the new connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass on answers and packets, and answer the camera's own requests."""
        self._parser.add(data)
        self._pace.received(len(data))
        if self._next_turn is None:
            self._take()

    def _take(self) -> None:
        """Process messages for one turn. The rest is processed in later turns.

        Until then nothing more is read, so a flood delays no other task. The end of the connection
        counts after what came before it.
        """
        self._next_turn = None
        if self._transport is None or self.end is not None:
            return
        self._pace.begin()
        more = False
        try:
            for message in self._parser.messages():
                self._message(message)
                if self._pace.turn_is_over:
                    more = True
                    break
        except RtspProtocolError as error:
            self._end(
                ConnectionClosed(
                    str(error)
                    if isinstance(error, HttpAnswerError)
                    else f"what it sent is no RTSP: {error}",
                    unparsable=True,
                )
            )
            self.abort()
            return
        except BaseException:  # a bug of ours: the session must not wait for its deadline
            self._end(ConnectionClosed("internal fault"))
            self.abort()
            raise
        pause_s = self._pace.end()
        if more or pause_s > 0:
            self._read(on=False)
            self._next_turn = asyncio.get_running_loop().call_later(pause_s, self._take)
        elif self._ending is not None:
            self._end(self._ending)
        else:
            self._read(on=True)

    def _read(self, *, on: bool) -> None:
        """Let the transport read, or not. It has no effect when it is so already."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.resume_reading if on else self._transport.pause_reading)()

    def _end_after_rest(self, end: ConnectionClosed) -> None:
        """End the connection when what came before is processed."""
        if self._ending is None:
            self._ending = end
        if self._ours or self._transport is None:
            self._end(self._ending)
        elif self._next_turn is None:
            self._take()

    def _message(self, message: Message) -> None:
        if isinstance(message, Interleaved):
            if self.on_packet is not None:
                self.on_packet(message.channel, message.payload)
        elif isinstance(message, Response):
            # 1xx says that the answer will come (RFC 2326, 7.1.1)
            number = self._answered(message) if message.status >= 200 else 0
            waiter = self._answers.pop(number, None)
            if waiter is None:
                self._count_unasked()
            elif not waiter.done():
                waiter.set_result(message)
        else:
            self._count_unasked()
            self._answer(message)

    def _count_unasked(self) -> None:
        self._unasked += 1
        if self._unasked > MAX_UNASKED:
            raise RtspProtocolError(f"more than {MAX_UNASKED} messages that nobody asked for")

    def _answered(self, response: Response) -> int:
        """The CSeq of the request that a response answers. 0 when no request waits.

        Some cameras answer with CSeq 0, without CSeq, or with CSeq twice. If the CSeq is not of one
        of our requests, the response answers the oldest waiting request. If that request was
        already answered, the response is a repeat.
        """
        text = response.headers.get("CSeq").split(",")[0].strip()
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if 0 < number <= self._number:
            return number
        return next(iter(self._answers), 0)

    def pause_writing(self) -> None:
        """Close the connection: the camera sends requests, but does not read the answers."""
        self._end(ConnectionClosed("the camera does not read what it asked for"))
        self.abort()

    def eof_received(self) -> None:
        """Process the rest and close, because the camera closed its side.

        Data that came before still counts: TLS does not wait while reading is paused.
        """
        self._end_after_rest(ConnectionClosed("the camera closed the connection", by_camera=True))

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the transport is closed, by the camera or by us."""
        self._end_after_rest(
            ConnectionClosed(
                f"the connection broke ({type(error).__name__})"
                if error
                else "the connection was closed"
            )
        )
        if not self.closed.done():
            self.closed.set_result(None)

    # ---- requests

    async def request(self, method: str, uri: str, headers: dict[str, str]) -> Response:
        """Send a request and wait for its answer. Raises ConnectionClosed."""
        if self.end is not None or self._transport is None:
            raise self._ended()
        waiter: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        number = self._send(method, uri, headers, waiter)
        try:
            response = await waiter
        finally:
            self._answers.pop(number, None)
        if response is None:
            raise self._ended()
        return response

    def _ended(self) -> ConnectionClosed:
        """How the connection ended, as a new exception.

        A traceback of `end` itself would refer to this connection, which refers to `end`.
        """
        end = self.end or ConnectionClosed("not connected")
        return ConnectionClosed(str(end), by_camera=end.by_camera, unparsable=end.unparsable)

    def ask(
        self, method: str, uri: str, headers: dict[str, str], answered: Callable[[Response], None]
    ) -> None:
        """Send a request without waiting.

        `answered` is called when the answer comes. It is never called if none comes.
        """

        def done(waiter: asyncio.Future[Response | None]) -> None:
            response = None if waiter.cancelled() else waiter.result()
            if response is not None:
                answered(response)

        waiter: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(done)
        self._send(method, uri, headers, waiter)

    def _send(
        self,
        method: str,
        uri: str,
        headers: dict[str, str],
        waiter: asyncio.Future[Response | None],
    ) -> int:
        self._number += 1
        number = self._number
        fields = Headers()
        fields["CSeq"] = str(number)
        for name, value in headers.items():
            fields[name] = value
        self._answers[number] = waiter
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(Request(method, uri, fields).encode())
        return number

    @property
    def stray_bytes(self) -> int:
        """The number of received bytes that are not RTSP."""
        return self._parser.stray_bytes_total

    @property
    def local_host(self) -> str:
        """The local address of the connection. Empty when not connected."""
        return (
            str(self._transport.get_extra_info("sockname")[0])
            if self._transport is not None
            else ""
        )

    @property
    def remote_host(self) -> str:
        """The camera's address. Empty when not connected."""
        return (
            str(self._transport.get_extra_info("peername")[0])
            if self._transport is not None
            else ""
        )

    def close(self) -> None:
        """Start to close the transport. `closed` is done when it is closed."""
        self._ours = True
        if self._transport is None:
            self.connection_lost(None)
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close the transport without sending the data that waits in its buffer."""
        self._ours = True
        if self._transport is not None:
            self._transport.abort()

    def _answer(self, request: Request) -> None:
        fields = Headers()
        fields["CSeq"] = request.headers.get("CSeq", "0")
        if self._transport is not None and not self._transport.is_closing():
            known = request.method in ("OPTIONS", "GET_PARAMETER", "SET_PARAMETER", "ANNOUNCE")
            self._transport.write(Response(200 if known else 501, fields).encode())

    def _end(self, end: ConnectionClosed) -> None:
        if self.end is not None:
            return
        self.end = end
        for waiter in self._answers.values():
            if not waiter.done():
                waiter.set_result(None)
        # The listeners refer to this connection: without them its memory comes free at once
        on_end, self.on_end, self.on_packet = self.on_end, None, None
        if on_end is not None:
            on_end()
