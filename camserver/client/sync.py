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
    DaemonUnavailableError,
    Picture,
    connected,
    went_away,
)
from camserver.client.exchange import exchange as ask
from camserver.client.lease_exchange import (
    Granted,
    LeaseExchange,
    LeaseNotice,
    LeaseRequest,
    route_of,
)
from camserver.errors import CamserverError

DEFAULT_SOCKET = Path("/run/camserver/camserver.sock")
MAX_LEASE_WAIT_S = 300.0
"""An inventory's lease_wait is no longer; nor is a camera's timeout."""
MAX_WORK_S = 2 * MAX_LEASE_WAIT_S + ANSWER_S
GIVE_BACK_S = 10.0
"""How long the daemon may take to say that a lease was given back."""


class HeldLease:
    """A lease that is ours until `give_back` or `close`, or until the daemon is gone.

    `fileno()` is for select(2).
    """

    def __init__(self, sock: socket.socket, exchange: LeaseExchange, granted: Granted) -> None:
        self._sock = sock
        self._exchange = exchange
        self.granted = granted

    def fileno(self) -> int:
        """The connection; a process that inherits it keeps the lease, too."""
        return self._sock.fileno()

    def next_notice(self) -> LeaseNotice | None:
        """What the daemon has to say, None when it says nothing now."""
        while True:
            try:
                if (notice := self._exchange.next_notice()) is not None:
                    return notice
                data = self._sock.recv(4096, socket.MSG_DONTWAIT)
                self._exchange.feed(data)
            except BlockingIOError:
                return None
            except (OSError, ValueError, LookupError):  # it is over, or says what makes no sense
                return LeaseNotice("gone")

    def give_back(self) -> None:
        """Say that the session was torn down in good order.

        Comes back when the lease is given back. Raises OSError.
        """
        self._sock.settimeout(GIVE_BACK_S)
        self._sock.sendall(self._exchange.end(clean=True))
        while self._sock.recv(4096):
            pass
        self.close()

    def close(self) -> None:
        """Give the lease back without a word on how the session ended. Idempotent."""
        self._sock.close()


class LeaseAttempt:
    """A lease that was asked for. `fileno()` is for select(2); `answer` reads what has come."""

    def __init__(self, sock: socket.socket, exchange: LeaseExchange, path: Path) -> None:
        self._sock = sock
        self._exchange = exchange
        self._path = path

    def fileno(self) -> int:
        """The connection."""
        return self._sock.fileno()

    def answer(self, *, timeout_s: float = 0.0) -> HeldLease | None:
        """The lease, None while there is no whole answer.

        Raises RtspBusy, DaemonUnavailableError, ApiRefusal; it is closed then.
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
        """Ask no longer. Idempotent."""
        self._sock.close()


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
        return json.loads(ask(self._path, "GET", route, ANSWER_S).body)

    def post(self, route: str) -> Any:
        """JSON of a route that does something. Raises DaemonUnavailableError, ApiRefusal."""
        return json.loads(ask(self._path, "POST", route, MAX_WORK_S).body)

    def latest(self, camera: str) -> Picture:
        """The newest published picture, however old.

        Raises DaemonUnavailableError, ApiRefusal (404 when there is none yet).
        """
        return ask(self._path, "GET", f"{route_of(camera)}/latest.jpg", ANSWER_S).picture()

    def snapshot(self, camera: str) -> Picture:
        """A new picture, taken now under a lease and published as a poll's is.

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
        exchange = LeaseExchange(request)
        sock = connected(self._path)
        try:
            sock.sendall(exchange.request())
        except OSError:
            sock.close()
            raise went_away(self._path) from None
        return LeaseAttempt(sock, exchange, self._path)
