"""One request and its answer on the daemon's socket, blocking or in asyncio.

Errors say what can go wrong with it.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.message import Message
from pathlib import Path
from typing import Any

from camserver.errors import CamserverError, RtspBusy, SessionHolder

ANSWER_S = 15.0
"""How long the daemon may take to answer what needs no camera."""
FACTS_HEADER = "X-Camserver-Facts"
"""JSON, beside a picture: the facts of this very picture, with the keys of latest.json."""


class DaemonUnavailableError(CamserverError):
    """Raised when nobody answers on the socket.

    `forbidden`: a daemon may be there, but this user may not ask it.
    """

    def __init__(self, text: str, *, forbidden: bool = False) -> None:
        self.forbidden = forbidden
        super().__init__(text)


class ApiRefusal(CamserverError):  # noqa: N818 - it is an answer
    """Raised when the daemon refuses; `status` is HTTP's, `data` what it says."""

    def __init__(self, status: int, data: dict[str, Any]) -> None:
        self.status = status
        self.data = data
        super().__init__(str(data.get("error", f"status {status}")))


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole JPEG and its facts, with the keys of latest.json.

    Captured_at, source, width, height, ...
    """

    jpeg: bytes
    facts: dict[str, Any]

    @property
    def captured_at(self) -> datetime | None:
        """When the camera's picture was taken, in UTC.

        None when nothing tells (a daemon older than this client).
        """
        moment = self.facts.get("captured_at")
        return None if moment is None else datetime.fromisoformat(moment)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon answered; a refusal is raised, it is no answer."""

    headers: Message
    body: bytes

    def picture(self) -> Picture:
        """The body as a picture; without facts when the daemon is older than they are."""
        try:
            facts = json.loads(self.headers.get(FACTS_HEADER, "{}"))
        except ValueError:
            facts = {}
        return Picture(self.body, facts if isinstance(facts, dict) else {})


def exchange(path: Path, method: str, route: str, limit_s: float) -> Answer:
    """One request; blocks. Raises DaemonUnavailableError, ApiRefusal, RtspBusy."""
    connection = http.client.HTTPConnection("camserver")
    connection.sock = connected(path)
    connection.sock.settimeout(limit_s)
    try:
        connection.request(method, route)
        return _read(connection.getresponse())
    except TimeoutError:
        raise _silent(path, limit_s) from None
    except (OSError, http.client.HTTPException):
        raise went_away(path) from None
    finally:
        connection.close()


async def exchange_async(path: Path, method: str, route: str, limit_s: float) -> Answer:
    """The same in asyncio; cancelling it ends the request.

    Raises DaemonUnavailableError, ApiRefusal, RtspBusy.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError as error:
        raise not_connected(path, error) from None
    try:
        writer.write(
            f"{method} {route} HTTP/1.1\r\nHost: camserver\r\nConnection: close\r\nContent-Length:"
            " 0\r\n\r\n".encode()
        )
        async with asyncio.timeout(limit_s):
            data = await reader.read()
    except TimeoutError:
        raise _silent(path, limit_s) from None
    except OSError:
        raise went_away(path) from None
    finally:
        writer.close()
    try:
        # It needs makefile() alone
        response = http.client.HTTPResponse(_Received(data))  # type: ignore[arg-type]
        response.begin()
        return _read(response)
    except http.client.HTTPException:
        raise went_away(path) from None


class _Received:
    """Bytes that have come, as http.client reads them from a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _read(response: http.client.HTTPResponse) -> Answer:
    body = response.read()
    if "Content-Length" not in response.headers:  # http.client takes a head that was cut off
        raise http.client.IncompleteRead(body)
    if response.status != 200:
        raise refusal(response.status, body)
    return Answer(response.headers, body)


def connected(path: Path) -> socket.socket:
    """A connection to the daemon. Raises DaemonUnavailableError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(ANSWER_S)
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise not_connected(path, error) from None
    return sock


def not_connected(path: Path, error: OSError) -> DaemonUnavailableError:
    """Why there is no connection, and what helps."""
    if isinstance(error, PermissionError):
        return DaemonUnavailableError(
            f"{path}: permission denied: only root and the group camserver may ask the daemon; "
            "join it (sudo usermod -aG camserver USER, then log in again)",
            forbidden=True,
        )
    return DaemonUnavailableError(f"{path}: no daemon answers ({error.strerror or error})")


def went_away(path: Path) -> DaemonUnavailableError:
    """The connection ended before the answer did."""
    return DaemonUnavailableError(f"{path}: the daemon went away")


def _silent(path: Path, limit_s: float) -> DaemonUnavailableError:
    return DaemonUnavailableError(f"{path}: the daemon did not answer within {limit_s:g} s")


def refusal(status: int, body: bytes) -> CamserverError:
    """What an answer with this status means: RtspBusy for 409, else ApiRefusal."""
    try:
        data = json.loads(body)
    except ValueError:
        data = {}
    refused = ApiRefusal(status, data if isinstance(data, dict) else {})
    return _busy(refused) if status == 409 else refused


def _busy(refused: ApiRefusal) -> RtspBusy:
    """A 409, with who holds the device's sessions as far as the answer says it."""
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
