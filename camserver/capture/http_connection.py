"""One connection to a camera's web server. It gets its bytes in turns, and has an account."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Self, cast
from urllib.parse import quote, urljoin, urlsplit

from camserver.capture.paced import PacedProtocol, PacedTransport
from camserver.config.urls import HTTP_PORTS
from camserver.header_text import bytes_of
from camserver.http.reader import Answer, HttpReader

REST_S = 0.5
"""How long to wait for what hardly matters, or may not come: the body of a refusal, and the rest of
a picture that is longer than the head says.
"""
USER_AGENT = "camserver"


class ConnectionBrokeError(Exception):
    """Raised when there is no answer: the camera closed the connection, or what came is nonsense.

    The text says which, for a person.
    """

    def __init__(self, text: str, *, is_nonsense: bool = False) -> None:
        self.is_nonsense = is_nonsense
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Address:
    """A URL, taken apart. `target` goes out as it was written."""

    url: str
    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Take a URL apart. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in HTTP_PORTS or not parts.hostname:
            raise ValueError("no http:// or https:// URL")
        _, _, rest = url.partition("://")
        begin = min((rest.find(c) for c in "/?#" if c in rest), default=len(rest))
        target = rest[begin:].partition("#")[0]
        return cls(
            url,
            parts.scheme,
            parts.hostname,
            parts.port or HTTP_PORTS[parts.scheme],
            _visible(target if target.startswith("/") else f"/{target}"),
        )

    def follow(self, location: str) -> Address:
        """The address to which an answer redirects. Raises ValueError."""
        return Address.of(urljoin(self.url, location))

    @property
    def server(self) -> tuple[str, str, int]:
        """(scheme, host, port): what a connection, a nonce and a habit belong to."""
        return self.scheme, self.host, self.port

    @property
    def name(self) -> str:
        """host:port, as the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTP_PORTS[self.scheme] else f"{host}:{self.port}"


class HttpConnection(asyncio.Protocol):
    """A connection, between `open` and `close`."""

    def __init__(self) -> None:
        self.reader = HttpReader()
        self._transport: PacedTransport | None = None
        self._answered: asyncio.Future[None] | None = None
        self._closed = asyncio.get_running_loop().create_future()
        self._has_ended = False
        self._cut_short: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, address: Address, tls: ssl.SSLContext | None) -> Self:
        """Connect. Raises OSError."""
        _, protocol = await asyncio.get_running_loop().create_connection(
            lambda: PacedProtocol(cls()), address.host, address.port, ssl=tls
        )
        return cast("Self", protocol.inner)

    @property
    def is_closed(self) -> bool:
        """Whether the camera has closed it, or is about to: its end has come."""
        return self._closed.done() or self._has_ended

    async def wait_closed(self, limit_s: float | None = None) -> None:
        """Wait until it is closed, or for `limit_s` seconds."""
        await asyncio.wait({self._closed}, timeout=limit_s)

    async def get(self, address: Address, headers: dict[str, str]) -> Answer:
        """Send a GET and return its answer. Raises ConnectionBrokeError."""
        fields = {
            "Host": address.name,
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        request = self.reader.request(address.target, [*(fields | headers).items()])
        self._answered = asyncio.get_running_loop().create_future()
        if self._transport is None or self.is_closed:
            raise ConnectionBrokeError("the camera closed the connection")
        self._transport.write(request)
        try:
            await self._answered
        finally:
            if self._cut_short is not None:
                self._cut_short.cancel()
                self._cut_short = None
        assert self.reader.answer is not None  # noqa: S101 - that is what was waited for
        return self.reader.answer

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("PacedTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        try:
            self.reader.feed(data)
        except ValueError as error:
            self._end(ConnectionBrokeError(str(error), is_nonsense=True))
            self.close()
            return
        self._look()

    def eof_received(self) -> bool:
        """The camera sends no more: what came is the answer."""
        self._has_ended = True
        self.reader.end()
        self._look()
        return False

    def connection_lost(self, _: Exception | None) -> None:
        """What came is the answer, if that is possible."""
        self.reader.end()
        self._look()
        self._end(ConnectionBrokeError("the camera closed the connection"))
        if not self._closed.done():
            self._closed.set_result(None)

    def _look(self) -> None:
        """Say that the answer is there, or wait for it no longer than it may take."""
        head = self.reader.head
        if head is None:
            return
        if self.reader.answer is not None:
            self._end(None)
        elif self.reader.goes_on or (head.status != 200 and self._cut_short is None):
            self._wait_for_rest()

    def _wait_for_rest(self) -> None:
        if self._cut_short is not None:
            self._cut_short.cancel()
        self._cut_short = asyncio.get_running_loop().call_later(REST_S, self._end_rest)

    def _end_rest(self) -> None:
        self.reader.end()
        self._look()

    def _end(self, error: Exception | None) -> None:
        if self._answered is None or self._answered.done():
            return
        if error is None:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(error)


def _visible(target: str) -> str:
    """`target`, with the characters escaped that a request line cannot have, and no others."""
    return "".join(c if "!" <= c <= "~" else quote(bytes_of(c), safe="") for c in target)
