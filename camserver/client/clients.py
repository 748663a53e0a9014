"""Clients of the API for other programs: a plain one for threads and scripts, and one for asyncio.

    picture = SyncLeaseClient().latest("gate")      # picture.jpeg, picture.facts
    with SyncLeaseClient().lease("gate"):
        ...                                     # one session of the camera's device is ours
    async with LeaseClient().lease("gate"):
        ...

The lease lives as long as the connection. Leaving the block without an exception says that the
session was torn down in good order, which makes the device's cool-down a short one. A lease can be
withdrawn (its time is over; live view wants the session of a recorder with priority "poll"):
`next_notice()` or `withdrawn()` tell, and whoever holds it ends its session.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from camserver.client.exchange import (
    ANSWER_S,
    ApiRefusal,
    DaemonUnavailableError,
    Picture,
    connected,
    exchange,
    exchange_async,
    not_connected,
    refusal,
    went_away,
)
from camserver.errors import RtspBusy

__all__ = [
    "SyncLeaseClient",
    "LeaseClient",
    "Picture",
    "HeldLease",
    "AsyncHeldLease",
    "LeaseRequest",
    "LeaseAttempt",
    "Granted",
    "LeaseNotice",
    "DaemonUnavailableError",
    "ApiRefusal",
    "RtspBusy",
]

DEFAULT_SOCKET = Path("/run/camserver/camserver.sock")
MAX_LEASE_WAIT_S = 300.0
"""An inventory's lease_wait is no longer; nor is a camera's timeout."""
MAX_WORK_S = 2 * MAX_LEASE_WAIT_S + ANSWER_S
GIVE_BACK_S = 10.0
"""How long the daemon may take to say that a lease was given back."""
_CLEAN = b'{"end": "clean"}\n'
_GIVE_BACK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(_CLEAN), _CLEAN)
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a program asks for: `wait_s` None means the camera's lease_wait.

    `ttl_s` bounds a holder that hangs.

    `priority` is live, event or poll. `claim` is the generation of a lease that a daemon now gone
    had given.
    """

    camera: str
    wait_s: float | None = None
    priority: str = "live"
    label: str = ""
    ttl_s: float | None = None
    claim: int = 0

    def head(self) -> bytes:
        """The HTTP request, up to its body, which is open for as long as the lease is held."""
        query = {"priority": self.priority} | ({"label": self.label} if self.label else {})
        for name, number in (
            ("wait", self.wait_s),
            ("ttl", self.ttl_s),
            ("claim", self.claim or None),
        ):
            query |= {} if number is None else {name: str(number)}
        route = f"{_route(self.camera)}/lease?{urlencode(query)}"
        return (
            f"POST {route} HTTP/1.1\r\nHost: camserver\r\nConnection: close\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        ).encode()


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease that was given; `generation` tells it from others of the device."""

    camera: str
    device: str
    generation: int
    wait_ms: float


@dataclass(frozen=True, slots=True)
class LeaseNotice:
    """What the daemon says of a lease: `withdrawn`, and how many seconds are left.

    Or it is `gone`, and the lease with it.
    """

    state: str
    why: str = ""
    grace_s: float = 0.0


class HeldLease:
    """A lease that is ours until `give_back` or `close`, or until the daemon is gone.

    `fileno()` is for select(2).
    """

    def __init__(self, sock: socket.socket, granted: Granted, rest: bytes) -> None:
        self._sock = sock
        self._rest = rest
        self.granted = granted

    def fileno(self) -> int:
        """The connection; a process that inherits it keeps the lease, too."""
        return self._sock.fileno()

    def next_notice(self) -> LeaseNotice | None:
        """What the daemon has to say, None when it says nothing now."""
        while True:
            line, end, self._rest = self._rest.partition(b"\n")
            if not end:
                self._rest = line
                try:
                    data = self._sock.recv(4096, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return None
                except OSError:
                    data = b""
                if not data:
                    return LeaseNotice("gone")
                self._rest += data
            elif (notice := _notice(line)) is not None:
                return notice

    def give_back(self) -> None:
        """Say that the session was torn down in good order.

        Comes back when the lease is given back. Raises OSError.
        """
        self._sock.settimeout(GIVE_BACK_S)
        self._sock.sendall(_GIVE_BACK)
        while self._sock.recv(4096):
            pass
        self.close()

    def close(self) -> None:
        """Give the lease back without a word on how the session ended. Idempotent."""
        self._sock.close()


class LeaseAttempt:
    """A lease that was asked for. `fileno()` is for select(2); `answer` reads what has come."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self._sock = sock
        self._path = path
        self._read = b""

    def fileno(self) -> int:
        """The connection."""
        return self._sock.fileno()

    def answer(self, *, timeout_s: float = 0.0) -> HeldLease | None:
        """The lease, None while there is no whole answer.

        Raises RtspBusy, DaemonUnavailableError, ApiRefusal; it is closed then.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if (held := self._parse()) is not None:
                    return held
                self._sock.settimeout(max(0.0, deadline - time.monotonic()))
                data = self._sock.recv(65536)
            except (BlockingIOError, TimeoutError):
                return None
            except (OSError, ValueError):
                data = b""
            if not data:
                self.close()
                raise went_away(self._path)
            self._read += data

    def close(self) -> None:
        """Ask no longer. Idempotent."""
        self._sock.close()

    def _parse(self) -> HeldLease | None:
        head, end, body = self._read.partition(_HEAD_END)
        if not end:
            return None
        if _status(head) == 200:
            _, _, rest = body.partition(b"\n")  # the first chunk's size
            line, end, rest = rest.partition(b"\n")
            if not end:
                return None
            self._sock.setblocking(True)
            return HeldLease(self._sock, _granted(line), rest)
        if len(body) < _length(head):
            return None
        self.close()
        raise refusal(_status(head), body)


class SyncLeaseClient:
    """The daemon at `path`; default is $CAMSERVER_SOCKET, then the built-in one.

    One call at a time.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or Path(os.environ.get("CAMSERVER_SOCKET") or DEFAULT_SOCKET)

    @property
    def path(self) -> Path:
        """The daemon's socket."""
        return self._path

    def get(self, route: str) -> Any:
        """JSON of a read-only route. Raises DaemonUnavailableError, ApiRefusal."""
        return json.loads(exchange(self._path, "GET", route, ANSWER_S).body)

    def post(self, route: str) -> Any:
        """JSON of a route that does something. Raises DaemonUnavailableError, ApiRefusal."""
        return json.loads(exchange(self._path, "POST", route, MAX_WORK_S).body)

    def latest(self, camera: str) -> Picture:
        """The newest published picture, however old.

        Raises DaemonUnavailableError, ApiRefusal (404 when there is none yet).
        """
        return exchange(self._path, "GET", f"{_route(camera)}/latest.jpg", ANSWER_S).picture()

    def snapshot(self, camera: str) -> Picture:
        """A new picture, taken now under a lease and published as a poll's is.

        Raises DaemonUnavailableError, ApiRefusal, RtspBusy.
        """
        return exchange(self._path, "POST", f"{_route(camera)}/snapshot", MAX_WORK_S).picture()

    @contextmanager
    def lease(
        self,
        camera: str,
        *,
        wait_s: float | None = None,
        priority: str = "live",
        label: str = "",
        ttl_s: float | None = None,
    ) -> Iterator[HeldLease]:
        """A session of the camera's device for as long as the block runs.

        Raises RtspBusy, DaemonUnavailableError, ApiRefusal.
        """
        held = self.open_lease(LeaseRequest(camera, wait_s, priority, label, ttl_s))
        try:
            yield held
            with suppress(OSError):  # the daemon is gone, and the lease with it
                held.give_back()
        finally:
            held.close()

    def open_lease(self, request: LeaseRequest) -> HeldLease:
        """A lease that is held until it is closed.

        Raises RtspBusy, DaemonUnavailableError, ApiRefusal.
        """
        attempt = self.ask_for_lease(request)
        try:
            held = attempt.answer(
                timeout_s=(MAX_LEASE_WAIT_S if request.wait_s is None else request.wait_s)
                + ANSWER_S
            )
        except BaseException:
            attempt.close()
            raise
        if held is None:
            attempt.close()
            raise DaemonUnavailableError(f"{self._path}: the daemon does not answer")
        return held

    def ask_for_lease(self, request: LeaseRequest) -> LeaseAttempt:
        """The request alone, for select(2): `answer` says what became of it.

        Raises DaemonUnavailableError.
        """
        sock = connected(self._path)
        try:
            sock.sendall(request.head())
        except OSError:
            sock.close()
            raise went_away(self._path) from None
        return LeaseAttempt(sock, self._path)


class AsyncHeldLease:
    """A lease held by asyncio's client, within its `async with`."""

    def __init__(self, granted: Granted, reader: asyncio.StreamReader) -> None:
        self.granted = granted
        self.clean = True
        """Set it to False when a session was not torn down in good order.

        Then the long cool-down follows.
        """
        self._reader = reader
        self._notice: asyncio.Future[LeaseNotice] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen(), name=f"lease of {granted.camera}")

    async def withdrawn(self) -> LeaseNotice:
        """Comes back when the session has to be ended.

        The lease is withdrawn, or the daemon is gone.
        """
        return await asyncio.shield(self._notice)

    async def _listen(self) -> None:
        """Until the daemon's end of the connection."""
        with suppress(OSError):
            while line := await self._reader.readline():
                if (notice := _notice(line)) is not None and not self._notice.done():
                    self._notice.set_result(notice)
        if not self._notice.done():
            self._notice.set_result(LeaseNotice("gone"))


class LeaseClient:
    """The same for asyncio. Calls may run beside one another."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or Path(os.environ.get("CAMSERVER_SOCKET") or DEFAULT_SOCKET)

    async def latest(self, camera: str) -> Picture:
        """The newest published picture, however old.

        Raises DaemonUnavailableError, ApiRefusal (404 when there is none yet).
        """
        return (
            await exchange_async(self._path, "GET", f"{_route(camera)}/latest.jpg", ANSWER_S)
        ).picture()

    async def snapshot(self, camera: str) -> Picture:
        """A new picture, taken now under a lease and published as a poll's is.

        Raises DaemonUnavailableError, ApiRefusal, RtspBusy.
        """
        return (
            await exchange_async(self._path, "POST", f"{_route(camera)}/snapshot", MAX_WORK_S)
        ).picture()

    @asynccontextmanager
    async def lease(
        self,
        camera: str,
        *,
        wait_s: float | None = None,
        priority: str = "live",
        label: str = "",
        ttl_s: float | None = None,
    ) -> AsyncIterator[AsyncHeldLease]:
        """A session of the camera's device for as long as the block runs.

        Raises RtspBusy, DaemonUnavailableError, ApiRefusal.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._path))
        except OSError as error:
            raise not_connected(self._path, error) from None
        try:
            writer.write(LeaseRequest(camera, wait_s, priority, label, ttl_s).head())
            try:
                async with asyncio.timeout(
                    (MAX_LEASE_WAIT_S if wait_s is None else wait_s) + ANSWER_S
                ):
                    head = await reader.readuntil(_HEAD_END)
                    if (status := _status(head)) != 200:
                        raise refusal(status, await reader.read())
                    # The first chunk's size
                    await reader.readline()
                    granted = _granted(await reader.readline())
            except (asyncio.IncompleteReadError, OSError, ValueError):
                # TimeoutError is an OSError
                raise DaemonUnavailableError(f"{self._path}: the daemon does not answer") from None
            held = AsyncHeldLease(granted, reader)
            try:
                yield held
                writer.write(_GIVE_BACK if held.clean else b"0\r\n\r\n")
                # Two halves of one thing
                await asyncio.wait({held._listening}, timeout=GIVE_BACK_S)  # noqa: SLF001
            finally:
                held._listening.cancel()  # noqa: SLF001
        finally:
            writer.close()


def _route(camera: str) -> str:
    return f"/v1/cameras/{quote(camera, safe='')}"


def _status(head: bytes) -> int:
    """Raises ValueError for what is no HTTP."""
    version, status, *_ = [*head.split(b" ", 2), b""]
    if not version.startswith(b"HTTP/1."):
        raise ValueError("no HTTP")
    return int(status)


def _length(head: bytes) -> int:
    return next(
        (
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ),
        0,
    )


def _granted(line: bytes) -> Granted:
    data = json.loads(line)
    return Granted(data["camera"], data["device"], data["generation"], data["wait_ms"])


def _notice(line: bytes) -> LeaseNotice | None:
    """What a line says; those between, of HTTP's chunks, say nothing."""
    if not line.startswith(b"{"):
        return None
    data = json.loads(line)
    return LeaseNotice(
        str(data["state"]), str(data.get("why", "")), float(data.get("grace_s", 0.0))
    )
