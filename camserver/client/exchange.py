"""One request and its answer on the daemon's socket, blocking or in asyncio.

Errors say what can go wrong with it.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import h11

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

    headers: dict[str, str]
    """By their lower-case names."""
    body: bytes

    def picture(self) -> Picture:
        """The body as a picture; without facts when the daemon is older than they are."""
        try:
            facts = json.loads(self.headers.get(FACTS_HEADER.lower(), "{}"))
        except ValueError:
            facts = {}
        return Picture(self.body, facts if isinstance(facts, dict) else {})


class Exchange:
    """One request and its answer, without I/O."""

    def __init__(self, method: str, route: str) -> None:
        self._http = h11.Connection(h11.CLIENT)
        headers = [("Host", "camserver"), ("Connection", "close"), ("Content-Length", "0")]
        head = self._http.send(h11.Request(method=method, target=route, headers=headers))
        self.request = (head or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        """What to send."""
        self._response: h11.Response | None = None
        self._body = bytearray()

    def feed(self, data: bytes) -> Answer | None:
        """What came from the daemon, b"" when it has closed; the answer when it is whole.

        Raises ApiRefusal and RtspBusy, and ValueError for what is no whole HTTP.
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
        if "content-length" not in headers:  # it ended with the connection: nobody knows where
            raise ValueError("cut off")
        if response.status_code != 200:
            raise refusal(response.status_code, body)
        return Answer(headers, body)


def exchange(path: Path, method: str, route: str, limit_s: float) -> Answer:
    """One request; blocks. Raises DaemonUnavailableError, ApiRefusal, RtspBusy."""
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
            raise _silent(path, limit_s) from None
        except (OSError, ValueError):
            raise went_away(path) from None


async def exchange_async(path: Path, method: str, route: str, limit_s: float) -> Answer:
    """The same in asyncio; cancelling it ends the request.

    Raises DaemonUnavailableError, ApiRefusal, RtspBusy.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError as error:
        raise not_connected(path, error) from None
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
        raise _silent(path, limit_s) from None
    except (OSError, ValueError):
        raise went_away(path) from None
    finally:
        writer.close()


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
