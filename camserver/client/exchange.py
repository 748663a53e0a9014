"""One request and its answer on the daemon's socket, blocking or in asyncio, and its errors."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import h11

from camserver.errors import CamserverError, RtspBusy, SessionHolder

FULL_AGAIN_S = 0.05
ANSWER_S = 15.0
"""Seconds that the daemon may take to answer a request that needs no camera."""
MAX_LEASE_WAIT_S = 300.0
"""Seconds; an inventory's lease_wait and a camera's timeout are never longer."""
MAX_WORK_S = 2 * MAX_LEASE_WAIT_S + ANSWER_S
CLAIM_HEADER, CLAIM_BY_SECRET = "X-Camserver-Claim", "secret"
"""A client that keeps the secret of its lease says so. Others claim by the generation."""
RIGHT_HEADER, TELL_RIGHT = "X-Camserver-Right", "tell"
"""A client that wants to know until when its host may have sessions, in a fleet, says so."""
FACTS_HEADER = "X-Camserver-Facts"
"""The HTTP header with the facts of the picture in the body: JSON, with the keys of latest.json."""


class DaemonUnavailableError(CamserverError):
    """Raised when no daemon answers on the socket.

    `forbidden` means that a daemon may be there, but this user has no permission to ask it.
    """

    def __init__(self, text: str, *, forbidden: bool = False) -> None:
        self.forbidden = forbidden
        super().__init__(text)


class ApiRefusal(CamserverError):  # noqa: N818 - it is an answer
    """Raised when the daemon refuses; `status` is the HTTP status, `data` the JSON body."""

    def __init__(self, status: int, data: dict[str, Any]) -> None:
        self.status = status
        self.data = data
        super().__init__(str(data.get("error") or data.get("detail") or f"status {status}"))


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole JPEG and its facts, with the keys of latest.json: captured_at, source, width, ..."""

    jpeg: bytes
    facts: dict[str, Any]

    @property
    def captured_at(self) -> datetime | None:
        """The time at which the picture was captured, in UTC.

        None when the facts do not have it (the daemon is older than this client).
        """
        moment = self.facts.get("captured_at")
        return None if moment is None else datetime.fromisoformat(moment)


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer of the daemon; a refusal is raised instead."""

    headers: dict[str, str]
    """Values by lower-case name."""
    body: bytes

    def picture(self) -> Picture:
        """Return the body as a picture; it has no facts when the daemon is too old to send them."""
        try:
            facts = json.loads(self.headers.get(FACTS_HEADER.lower(), "{}"))
        except ValueError:
            facts = {}
        return Picture(self.body, facts if isinstance(facts, dict) else {})


class Exchange:
    """One request and its answer, without I/O."""

    def __init__(self, method: str, route: str) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self.request = head_of(self._http, method, route)
        """The bytes to send."""
        self._response: h11.Response | None = None
        self._body = bytearray()

    def feed(self, data: bytes) -> Answer | None:
        """Take bytes from the daemon, b"" when it has closed. Return the answer once it is whole.

        Raises ApiRefusal and RtspBusy, and ValueError for HTTP that is invalid or cut off.
        """
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                match event:
                    case h11.Response():
                        self._response = event
                    case h11.Data():
                        self._body += event.data
                    case h11.EndOfMessage() if self._response is not None:
                        return self._answer(self._response)
                    case _:
                        return None
        except h11.RemoteProtocolError as error:
            raise ValueError(f"no HTTP: {error}") from None

    def _answer(self, response: h11.Response) -> Answer:
        body = bytes(self._body)
        headers = {name.decode(): value.decode() for name, value in response.headers}
        # Without it the body ends with the connection, and may be cut off.
        if "content-length" not in headers:
            raise ValueError("cut off")
        if response.status_code != 200:
            raise refusal(response.status_code, body)
        return Answer(headers, body)


def head_of(http: h11.Connection, method: str, route: str) -> bytes:
    """Return the bytes of a request without a body."""
    headers = [("Host", "camserver"), ("Connection", "close"), ("Content-Length", "0")]
    head = http.send(h11.Request(method=method, target=route, headers=headers))
    return (head or b"") + (http.send(h11.EndOfMessage()) or b"")


def exchange(path: Path, method: str, route: str, limit_s: float) -> Answer:
    """Send one request and return its answer; each read blocks for at most `limit_s` seconds.

    Raises DaemonUnavailableError, ApiRefusal, RtspBusy.
    """
    one = Exchange(method, route)
    with connected(path) as sock:
        sock.settimeout(limit_s)
        try:
            sock.sendall(one.request)
            while True:
                data = sock.recv(1 << 20)
                if (answer := one.feed(data)) is not None:
                    return answer
                if not data:
                    raise went_away(path)
        except TimeoutError:
            raise silent(path, limit_s) from None
        except (OSError, ValueError):
            raise went_away(path) from None


async def exchange_async(path: Path, method: str, route: str, limit_s: float) -> Answer:
    """Send one request in asyncio and return its answer; cancelling it ends the request.

    Raises DaemonUnavailableError (also after `limit_s` seconds), ApiRefusal, RtspBusy.
    """
    reader, writer = await opened(path)
    one = Exchange(method, route)
    try:
        writer.write(one.request)
        async with asyncio.timeout(limit_s):
            while True:
                data = await reader.read(1 << 20)
                if (answer := one.feed(data)) is not None:
                    return answer
                if not data:
                    raise went_away(path)
    except TimeoutError:
        raise silent(path, limit_s) from None
    except (OSError, ValueError):
        raise went_away(path) from None
    finally:
        writer.close()


def connected(path: Path) -> socket.socket:
    """Open a connection to the daemon. Raises DaemonUnavailableError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        # A blocking connect waits while the socket's queue is full; the option limits the wait
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(ANSWER_S), 0))
        sock.connect(str(path))
        sock.settimeout(ANSWER_S)
    except OSError as error:
        sock.close()
        raise not_connected(path, error) from None
    return sock


async def opened(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to the daemon. Raises DaemonUnavailableError."""
    loop = asyncio.get_running_loop()
    end = loop.time() + ANSWER_S
    while True:
        try:
            return await asyncio.open_unix_connection(str(path))
        except OSError as error:
            is_full = isinstance(error, BlockingIOError)  # the socket's queue
            if not is_full or loop.time() > end:
                raise not_connected(path, error) from None
        await asyncio.sleep(FULL_AGAIN_S)


def not_connected(path: Path, error: OSError) -> DaemonUnavailableError:
    """Return the error that says why there is no connection, and what helps."""
    if isinstance(error, PermissionError):
        return DaemonUnavailableError(
            f"{path}: permission denied: only root and the group camserver may ask the daemon; "
            "join it (sudo usermod -aG camserver USER, then log in again)",
            forbidden=True,
        )
    return DaemonUnavailableError(f"{path}: no daemon answers ({error.strerror or error})")


def went_away(path: Path) -> DaemonUnavailableError:
    """Return the error for a connection that ended before the answer was whole."""
    return DaemonUnavailableError(f"{path}: the daemon went away")


def silent(path: Path, limit_s: float) -> DaemonUnavailableError:
    """Return the error for a daemon that does not answer in time."""
    return DaemonUnavailableError(f"{path}: the daemon did not answer within {limit_s:g} s")


def refusal(status: int, body: bytes) -> CamserverError:
    """Return the error for an answer with this status: RtspBusy for 409, else ApiRefusal."""
    try:
        data = json.loads(body)
    except ValueError:
        data = {}
    refused = ApiRefusal(status, data if isinstance(data, dict) else {})
    return _busy(refused) if status == 409 else refused


def _busy(refused: ApiRefusal) -> RtspBusy:
    """Return the error for a 409, with the holders of the device's sessions, if it lists them."""
    data = refused.data
    holders = []
    with suppress(KeyError, TypeError, ValueError):
        holders = [
            SessionHolder(str(h["holder"]), str(h["label"] or h["holder"]), float(h["for_s"]))
            for h in data["held"]
        ]
    waiting, most = data.get("waiting"), data.get("max_sessions")
    return RtspBusy(
        str(refused),
        holders=tuple(holders),
        waiting=len(waiting) if isinstance(waiting, list) else 0,
        max_sessions=most if isinstance(most, int) else 0,
    )
