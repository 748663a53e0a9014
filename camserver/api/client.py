"""Clients of the API for other programs: a plain one for threads and scripts, and one for asyncio.

    with SyncLeaseClient().lease("gate"):
        ...                                     # one session of the camera's device is ours
    async with LeaseClient().lease("gate"):
        ...

The lease lives as long as the connection. Leaving the block without an exception says that the session was torn down in
good order, which makes the device's cool-down a short one.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from camserver.errors import CamserverError, RtspBusy

DEFAULT_SOCKET = Path("/run/camserver/camserver.sock")
CLEAN = b'{"end": "clean"}\n'


class NoDaemon(CamserverError):  # noqa: N818 - it says what is the case
    """Raised when nobody answers on the socket."""


class ApiRefusal(CamserverError):  # noqa: N818 - it is an answer
    """Raised when the daemon refuses; `status` is HTTP's, `data` what it says."""

    def __init__(self, status: int, data: dict[str, Any]) -> None:
        self.status = status
        self.data = data
        super().__init__(str(data.get("error", f"status {status}")))


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease that was given; `generation` tells it from others of the device."""

    camera: str
    device: str
    generation: int
    wait_ms: float


class HeldLease:
    """A lease that is ours until `give_back` or `close`, or until the daemon is gone: then reading `fileno()` ends."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self.granted = _granted(response.readline())

    def fileno(self) -> int:
        """The connection, for select(2)."""
        return int(self._connection.sock.fileno())

    def alive(self) -> bool:
        """Whether the daemon still holds its end; reads what it says, which is nothing while the lease lives."""
        try:
            return bool(self._connection.sock.recv(4096, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def give_back(self) -> None:
        """Say that the session was torn down in good order; comes back when the lease is given back."""
        self._connection.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(CLEAN), CLEAN))
        self._response.read()
        self.close()

    def close(self) -> None:
        """Give the lease back without a word on how the session ended. Idempotent."""
        self._response.close()
        self._connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("camserver")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


class SyncLeaseClient:
    """The daemon at `path`; default is $CAMSERVER_SOCKET, then the built-in one. One call at a time."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or Path(os.environ.get("CAMSERVER_SOCKET") or DEFAULT_SOCKET)

    def get(self, route: str) -> Any:
        """JSON of a read-only route. Raises NoDaemon, ApiRefusal."""
        return self._json("GET", route)

    def post(self, route: str) -> Any:
        """JSON of a route that does something. Raises NoDaemon, ApiRefusal."""
        return self._json("POST", route)

    def snapshot(self, camera: str) -> bytes:
        """A fresh JPEG, taken under a lease. Raises NoDaemon, ApiRefusal, RtspBusy."""
        return self._bytes("POST", f"/v1/cameras/{quote(camera, safe='')}/snapshot")

    @contextmanager
    def lease(self, camera: str, *, wait_s: float | None = None, priority: str = "live", label: str = "") -> Iterator[Granted]:
        """A session of the camera's device for as long as the block runs. Raises RtspBusy, NoDaemon, ApiRefusal."""
        held = self.open_lease(camera, wait_s=wait_s, priority=priority, label=label)
        try:
            yield held.granted
            with suppress(OSError, http.client.HTTPException):      # the daemon is gone, and the lease with it
                held.give_back()
        finally:
            held.close()

    def open_lease(self, camera: str, *, wait_s: float | None = None, priority: str = "live", label: str = "",
                   claim: int = 0) -> HeldLease:
        """A lease that is held until it is closed; `claim` is the generation of one that a daemon now gone had given.

        Raises RtspBusy, NoDaemon, ApiRefusal.
        """
        connection = self._connect()
        try:
            connection.putrequest("POST", _lease_route(camera, wait_s, priority, label, claim))
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            response = connection.getresponse()
            if response.status == 200:
                return HeldLease(connection, response)
            body = response.read()
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            raise NoDaemon(f"{self._path}: the daemon went away") from None
        except BaseException:
            connection.close()
            raise
        connection.close()
        raise _error(response.status, body)

    def _connect(self) -> _UnixConnection:
        connection = _UnixConnection(self._path)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise NoDaemon(f"{self._path}: no daemon answers ({error.strerror})") from None
        return connection

    def _json(self, method: str, route: str) -> Any:
        return json.loads(self._bytes(method, route))

    def _bytes(self, method: str, route: str) -> bytes:
        connection = self._connect()
        try:
            connection.request(method, route)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            raise NoDaemon(f"{self._path}: the daemon went away") from None
        finally:
            connection.close()
        if response.status != 200:
            raise _error(response.status, body)
        return body


class LeaseClient:
    """The same for asyncio, leases only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or Path(os.environ.get("CAMSERVER_SOCKET") or DEFAULT_SOCKET)

    @asynccontextmanager
    async def lease(self, camera: str, *, wait_s: float | None = None, priority: str = "live",
                    label: str = "") -> AsyncIterator[Granted]:
        """A session of the camera's device for as long as the block runs. Raises RtspBusy, NoDaemon, ApiRefusal."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._path))
        except OSError as error:
            raise NoDaemon(f"{self._path}: no daemon answers ({error.strerror})") from None
        try:
            route = _lease_route(camera, wait_s, priority, label)
            writer.write(f"POST {route} HTTP/1.1\r\nHost: camserver\r\nConnection: close\r\n".encode()
                         + b"Transfer-Encoding: chunked\r\n\r\n")
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                if status != 200:
                    raise _error(status, await _plain_body(reader, head))
                await reader.readline()                                  # the chunk's size
                granted = _granted(await reader.readline())
            except (asyncio.IncompleteReadError, ValueError, IndexError):
                raise NoDaemon(f"{self._path}: the daemon went away") from None
            yield granted
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(CLEAN), CLEAN))
            await reader.read()         # the daemon's end of it: from then on it is given back
        finally:
            writer.close()


async def _plain_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return await reader.readexactly(length)


def _lease_route(camera: str, wait_s: float | None, priority: str, label: str, claim: int = 0) -> str:
    query = {"priority": priority} | ({"label": label} if label else {}) | ({} if wait_s is None else {"wait": f"{wait_s:g}"})
    query |= {"claim": str(claim)} if claim else {}
    return f"/v1/cameras/{quote(camera, safe='')}/lease?{urlencode(query)}"


def _granted(line: bytes) -> Granted:
    data = json.loads(line)
    return Granted(data["camera"], data["device"], data["generation"], data["wait_ms"])


def _error(status: int, body: bytes) -> CamserverError:
    try:
        data = json.loads(body)
    except ValueError:
        data = {}
    refusal = ApiRefusal(status, data if isinstance(data, dict) else {})
    return RtspBusy(str(refusal)) if status == 409 else refusal
