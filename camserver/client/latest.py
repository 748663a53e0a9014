"""Requests for pictures that are young enough, without I/O: routes, and answers line by line."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import h11

from camserver.client.exchange import ANSWER_S, MAX_WORK_S, head_of, refusal

RELAYED_S = 90.0
"""How much longer than `wait` the answer may take: in a fleet, another host may be asked."""


@dataclass(frozen=True, slots=True)
class Age:
    """How old a picture may be, and what to do for a newer one.

    Times are in seconds, or texts such as "5s". `max_age` None: any age will do.
    """

    max_age: float | str | None = None
    wait: float | str | None = None
    stale_ok: bool = False

    def route(self, path: str, **query: str) -> str:
        """Return `path` with the query parameters."""
        given = {"max_age": self.max_age, "wait": self.wait, **query}
        found = {name: str(value) for name, value in given.items() if value is not None}
        found |= {"stale": "ok"} if self.stale_ok else {}
        return f"{path}?{urlencode(found)}" if found else path

    @property
    def limit_s(self) -> float:
        """How long the answer may take."""
        if self.max_age is None:
            return ANSWER_S
        return self.wait + RELAYED_S if isinstance(self.wait, (int, float)) else MAX_WORK_S


class JsonLines:
    """One GET whose answer is a JSON object in each line, without I/O."""

    def __init__(self, route: str) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self.request = head_of(self._http, "GET", route)
        """The bytes to send."""
        self._status = 0
        self._body = b""
        self._lines: deque[dict[str, Any]] = deque()
        self.is_whole = False

    def take(self) -> dict[str, Any] | None:
        """Return the next line. None: there is none now, or none any more (`is_whole`)."""
        return self._lines.popleft() if self._lines else None

    def feed(self, data: bytes) -> None:
        """Take bytes from the daemon, b"" when it has closed.

        Raises ApiRefusal and RtspBusy, and ValueError for HTTP that is invalid or cut off.
        """
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                match event:
                    case h11.Response():
                        self._status = event.status_code
                        headers = {name for name, _ in event.headers}
                        if not headers & {b"content-length", b"transfer-encoding"}:
                            raise ValueError("may be cut off")
                    case h11.Data():
                        self._body += event.data
                    case h11.EndOfMessage():
                        self.is_whole = True
                        break
                    case _:
                        break
        except h11.RemoteProtocolError as error:
            raise ValueError(f"no HTTP: {error}") from None
        if self._status == 200:
            self._split()
        elif self.is_whole:
            raise refusal(self._status, self._body)

    def _split(self) -> None:
        *lines, self._body = self._body.split(b"\n")
        for line in lines:
            said = json.loads(line)
            if not isinstance(said, dict):
                raise ValueError("no JSON object")  # noqa: TRY004 - invalid data, no wrong call
            self._lines.append(said)
