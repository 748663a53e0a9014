"""The client for threads and scripts."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from camserver.client.exchange import (
    ANSWER_S,
    MAX_LEASE_WAIT_S,
    MAX_WORK_S,
    DaemonUnavailableError,
    Picture,
    connected,
    silent,
    went_away,
)
from camserver.client.exchange import exchange as ask
from camserver.client.latest import Age, JsonLines
from camserver.client.lease_exchange import (
    Granted,
    LeaseExchange,
    LeaseNotice,
    LeaseRequest,
    LeaseState,
    Right,
    route_of,
)
from camserver.errors import CamserverError

DEFAULT_SOCKET = Path("/run/camserver/camserver.sock")
GIVE_BACK_S = 10.0
"""Seconds that the daemon may take to confirm that a lease was given back."""


class HeldLease:
    """A lease that is held until `give_back` or `close`, or until the daemon is gone.

    `fileno()` is for select(2).
    """

    def __init__(self, sock: socket.socket, exchange: LeaseExchange, granted: Granted) -> None:
        self._sock = sock
        self._exchange = exchange
        self.granted = granted

    @property
    def right(self) -> Right | None:
        """The newest right that `next_notice` has read; None on a host that is in no fleet."""
        return self._exchange.right

    def fileno(self) -> int:
        """Return the connection's descriptor; a process that inherits it keeps the lease, too."""
        return self._sock.fileno()

    def next_notice(self) -> LeaseNotice | None:
        """Return the next notice of the daemon; None when there is none now. Does not block."""
        while True:
            try:
                if (notice := self._exchange.next_notice()) is not None:
                    return notice
                data = self._sock.recv(4096, socket.MSG_DONTWAIT)
                self._exchange.feed(data)
            except BlockingIOError:
                return None
            except (OSError, ValueError, LookupError):  # it is over, or says what makes no sense
                return LeaseNotice(LeaseState.GONE)

    def give_back(self) -> None:
        """Say that the session had a clean end, and wait until the lease is given back.

        Raises OSError.
        """
        self._sock.settimeout(GIVE_BACK_S)
        self._sock.sendall(self._exchange.end(clean=True))
        while self._sock.recv(4096):
            pass
        self.close()

    def close(self) -> None:
        """Give the lease back without saying how the session ended. Idempotent."""
        self._sock.close()


class LeaseAttempt:
    """A request for a lease. `fileno()` is for select(2); `answer` reads what has arrived."""

    def __init__(self, sock: socket.socket, exchange: LeaseExchange, path: Path) -> None:
        self._sock = sock
        self._exchange = exchange
        self._path = path

    def fileno(self) -> int:
        """Return the connection's descriptor."""
        return self._sock.fileno()

    def answer(self, *, timeout_s: float = 0.0) -> HeldLease | None:
        """Return the lease; None when there is no whole answer within `timeout_s`.

        Raises RtspBusy, DaemonUnavailableError, ApiRefusal; then the connection is closed.
        """
        deadline = time.monotonic() + timeout_s
        try:
            granted = self._granted(deadline)
        except (BlockingIOError, TimeoutError):
            return None
        except (OSError, ValueError, LookupError, TypeError):
            self.close()
            raise went_away(self._path) from None
        except CamserverError:
            self.close()
            raise
        self._sock.setblocking(True)
        return HeldLease(self._sock, self._exchange, granted)

    def _granted(self, deadline: float) -> Granted:
        while (granted := self._exchange.take_grant()) is None:
            self._sock.settimeout(max(0.0, deadline - time.monotonic()))
            data = self._sock.recv(65536)
            self._exchange.feed(data)
            if not data and self._exchange.take_grant() is None:
                raise went_away(self._path)
        return granted

    def close(self) -> None:
        """Withdraw the request. Idempotent."""
        self._sock.close()


class SyncLeaseClient:
    """The client for threads and scripts.

    `path` is the daemon's socket; the default is $CAMSERVER_SOCKET, then DEFAULT_SOCKET. Make one
    call at a time.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or Path(os.environ.get("CAMSERVER_SOCKET") or DEFAULT_SOCKET)

    @property
    def path(self) -> Path:
        """The daemon's socket."""
        return self._path

    def get(self, route: str) -> Any:
        """Return the JSON of a read-only route. Raises DaemonUnavailableError, ApiRefusal."""
        return json.loads(ask(self._path, "GET", route, ANSWER_S).body)

    def post(self, route: str) -> Any:
        """Return the JSON of a POST route. Raises DaemonUnavailableError, ApiRefusal."""
        return json.loads(ask(self._path, "POST", route, MAX_WORK_S).body)

    def latest(
        self,
        camera: str,
        *,
        max_age: float | str | None = None,
        wait: float | str | None = None,
        stale_ok: bool = False,
    ) -> Picture:
        """Return the newest published picture; with `max_age`, one that is no older than that.

        If there is none, one is taken, and the call waits for it: at most `wait`, by default as
        long as one poll may take. With `stale_ok` it then returns the old one. Times are in
        seconds, or texts such as "5s".

        Raises DaemonUnavailableError, ApiRefusal (404 when there is no picture yet, 503 when there
        is none that is young enough; `data` says why).
        """
        age = Age(max_age, wait, stale_ok)
        return ask(
            self._path, "GET", age.route(f"{route_of(camera)}/latest.jpg"), age.limit_s
        ).picture()

    def latest_of(
        self,
        cameras: str = "*",
        *,
        max_age: float | str | None = None,
        wait: float | str | None = None,
        stale_ok: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Yield the facts of the newest picture of each camera, as soon as they are known.

        `cameras` are patterns of ids such as "gate*,door". The other arguments are as for `latest`.
        The facts have the keys of latest.json, `age_s` and `file`; or `error`, when there is no
        picture that is young enough.

        Raises DaemonUnavailableError, ApiRefusal.
        """
        age = Age(max_age, wait, stale_ok)
        lines = JsonLines(age.route("/v1/latest", cameras=cameras))
        with connected(self._path) as sock:
            sock.settimeout(age.limit_s)
            try:
                sock.sendall(lines.request)
                while not lines.is_whole:
                    lines.feed(data := sock.recv(1 << 16))
                    while (said := lines.take()) is not None:
                        yield said
                    if not data and not lines.is_whole:
                        raise went_away(self._path)
            except TimeoutError:
                raise silent(self._path, age.limit_s) from None
            except (OSError, ValueError):
                raise went_away(self._path) from None

    def snapshot(self, camera: str) -> Picture:
        """Take a picture now under a lease, and return it. It is published like a poll's picture.

        Raises DaemonUnavailableError, ApiRefusal, RtspBusy.
        """
        return ask(self._path, "POST", f"{route_of(camera)}/snapshot", MAX_WORK_S).picture()

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
        """Hold a lease of the camera's device while the block runs.

        Raises RtspBusy, DaemonUnavailableError, ApiRefusal.
        """
        held = self.open_lease(LeaseRequest(camera, wait_s, priority, label, ttl_s))
        try:
            yield held
            with suppress(OSError):  # the daemon is gone; so is the lease
                held.give_back()
        finally:
            held.close()

    def open_lease(self, request: LeaseRequest) -> HeldLease:
        """Wait for a lease, and return it; the caller must close it.

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
        """Send the request without waiting; `LeaseAttempt.answer` returns the result.

        Raises DaemonUnavailableError.
        """
        exchange = LeaseExchange(request)
        sock = connected(self._path)
        try:
            sock.sendall(exchange.request())
        except OSError:
            sock.close()
            raise went_away(self._path) from None
        return LeaseAttempt(sock, exchange, self._path)
