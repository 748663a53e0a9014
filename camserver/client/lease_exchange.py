"""The HTTP of one lease, without I/O: the request that stays open, its answer, later notices.

The daemon answers with lines of JSON. The first line grants the lease. A second line may say that
the lease is withdrawn. The request's body stays open while the lease is held.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote, urlencode

import h11

from camserver.client.exchange import (
    CLAIM_BY_SECRET,
    CLAIM_HEADER,
    RIGHT_HEADER,
    TELL_RIGHT,
    refusal,
)

_CLEAN = b'{"end": "clean"}\n'


def route_of(camera: str) -> str:
    """Return the API's path of a camera."""
    return f"/v1/cameras/{quote(camera, safe='')}"


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A request for a lease.

    `wait_s` None means the camera's lease_wait. `ttl_s` limits a holder that hangs. `priority` is
    live, event or poll. `claim` is that of a lease that an earlier daemon granted (Granted.claim);
    empty claims none.
    """

    camera: str
    wait_s: float | None = None
    priority: str = "live"
    label: str = ""
    ttl_s: float | None = None
    claim: str = field(default="", repr=False)

    def target(self) -> str:
        """Return the path and the query of the HTTP request."""
        query = {"priority": self.priority} | ({"label": self.label} if self.label else {})
        for name, value in (("wait", self.wait_s), ("ttl", self.ttl_s), ("claim", self.claim)):
            query |= {} if value in (None, "") else {name: str(value)}
        return f"{route_of(self.camera)}/lease?{urlencode(query)}"


@dataclass(frozen=True, slots=True)
class Granted:
    """A granted lease; `generation` tells it from other leases of the device.

    `claim` is a secret: whoever has it, and is the same user, can take the lease again from the
    next daemon. An older daemon gave no secret: then it is the generation.
    """

    camera: str
    device: str
    generation: int
    wait_ms: float
    claim: str = field(default="", repr=False)


class LeaseState(StrEnum):
    """What a notice says of a lease."""

    WITHDRAWN = "withdrawn"  # its holder has to end the session
    GONE = "gone"  # the daemon is gone, and the lease with it


@dataclass(frozen=True, slots=True)
class LeaseNotice:
    """A notice about a granted lease.

    `state` is "withdrawn", and `grace_s` seconds are left; or it is "gone": the connection to the
    daemon is closed, and the lease is over.
    """

    state: LeaseState
    why: str = ""
    grace_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Right:
    """Until when a program may have its session, in a fleet of hosts (CLOCK_BOOTTIME, seconds).

    The program begins to end its session at `end_at`, and has ended it at `until`.
    """

    end_at: float
    until: float


class LeaseExchange:
    """One lease, from its request to its end. Feed it received bytes, send the bytes it returns."""

    def __init__(self, request: LeaseRequest) -> None:
        self.right: Right | None = None
        """The newest one that the daemon has told. None: the host is not in a fleet."""
        self._request = request
        self._http = h11.Connection(h11.CLIENT)
        self._status = 0
        self._body = b""
        self._over = False

    def request(self) -> bytes:
        """Return the HTTP request, without its body."""
        headers = [
            ("Host", "camserver"),
            ("Connection", "close"),
            ("Transfer-Encoding", "chunked"),
            (CLAIM_HEADER, CLAIM_BY_SECRET),
            (RIGHT_HEADER, TELL_RIGHT),
        ]
        head = h11.Request(method="POST", target=self._request.target(), headers=headers)
        return self._http.send(head) or b""

    def feed(self, data: bytes) -> None:
        """Take bytes from the daemon, b"" when it has closed. Raises ValueError for no HTTP."""
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                match event:
                    case h11.Response():
                        self._status = event.status_code
                    case h11.Data():
                        self._body += event.data
                    case h11.EndOfMessage() | h11.ConnectionClosed():
                        self._over = True
                        return
                    case _:  # NEED_DATA, PAUSED
                        return
        except h11.RemoteProtocolError as error:
            self._over = True
            raise ValueError(f"no HTTP: {error}") from None

    def take_grant(self) -> Granted | None:
        """Return the lease, once; None while there is no whole answer.

        Raises RtspBusy and ApiRefusal, and ValueError, LookupError or TypeError for JSON that is
        not a grant.
        """
        if self._status not in (0, 200) and self._over:
            raise refusal(self._status, self._body)
        if self._status != 200 or (line := self._line()) is None:
            return None
        data = json.loads(line)
        if "until" in data:
            self.right = Right(float(data["end_at"]), float(data["until"]))
        return Granted(
            data["camera"],
            data["device"],
            data["generation"],
            data["wait_ms"],
            str(data.get("claim") or data["generation"]),
        )

    def next_notice(self) -> LeaseNotice | None:
        """Return the next notice about a granted lease; None when there is none now.

        Raises ValueError and LookupError for a line that makes no sense.
        """
        while (line := self._line()) is not None:
            data = json.loads(line)
            if data["state"] != "right":
                grace_s = float(data.get("grace_s", 0.0))
                return LeaseNotice(LeaseState(data["state"]), str(data.get("why", "")), grace_s)
            self.right = Right(float(data["end_at"]), float(data["until"]))
        return LeaseNotice(LeaseState.GONE) if self._over else None

    def end(self, *, clean: bool) -> bytes:
        """Return the bytes that give the lease back; none the second time.

        `clean`: the session had a clean end.
        """
        if self._http.our_state is not h11.SEND_BODY:
            return b""
        said = self._http.send(h11.Data(data=_CLEAN)) if clean else b""
        return (said or b"") + (self._http.send(h11.EndOfMessage()) or b"")

    def _line(self) -> bytes | None:
        line, end, rest = self._body.partition(b"\n")
        if not end:
            return None
        self._body = rest
        return line
