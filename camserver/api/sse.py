"""`/v1/events`: domain events as server-sent events (WHATWG HTML, 9.2), for many listeners.

Events are kept in a ring buffer. An event is serialised when the first listener needs it, once for
all: mostly nobody listens. Each listener reads on from its own position, a few times a second at
most. So a thousand listeners cost little. A listener that does not read costs nothing: it misses
events, and then gets the event "lost".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from aiohttp import web

from camserver.api.listener import cut_off
from camserver.api.responses import ASKED_BY_HOST
from camserver.events import Event, as_data
from camserver.host.clock import WallClock, rfc3339, utc_now

KEPT = 512
PACE_S = 0.2
"""Seconds between two writes to a listener, at least."""
SLICE_BYTES = 32 * 1024
"""About how much is given to a connection at a time.

So a listener needs about this much memory, in addition to the ring buffer that all share.
"""
STALL_S = 20.0
"""Seconds without progress after which a listener is cut off."""
HEARTBEAT_S = 15.0
"""Seconds between comments while there is no event: proxies and browsers close idle streams."""


@dataclass(slots=True)
class Kept:
    """One event, which is serialised when it is needed."""

    number: int
    camera: str
    make: Callable[[], dict[str, Any]] | None
    host: str = ""
    """The other host that has said it. Empty: this one."""
    _text: bytes = b""

    @property
    def text(self) -> bytes:
        """What a listener gets."""
        if self.make is not None:
            data, self.make = self.make(), None
            said = json.dumps(data, ensure_ascii=False, default=str)
            text = f"id: {self.number}\nevent: {data['event']}\ndata: {said}\n\n"
            self._text = text.encode(errors="replace")
        return self._text


class EventStream:
    """A listener of the event bus, and the handler of the route.

    `scrubber` gives a function that removes the secrets of this moment from texts. Later there may
    be others.
    """

    def __init__(
        self, scrubber: Callable[[], Callable[[str], str]], clock: WallClock = utc_now
    ) -> None:
        self._scrubber = scrubber
        self._clock = clock
        self.listeners = 0
        """Who listens now, besides other hosts of a fleet."""
        self._kept: deque[Kept] = deque(maxlen=KEPT)
        self._last = 0
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        """Keep one event and wake the listeners."""
        self._keep(event.camera, partial(_data, event, self._clock(), self._scrubber()))

    def add(self, host: str, data: dict[str, Any]) -> None:
        """Add an event that another host of the fleet has said.

        Raises ValueError for what is no event.
        """
        if not re.fullmatch(r"[a-z0-9.-]{1,64}", str(data.get("event", ""))):
            raise ValueError("no event")
        said = data | {"from_host": host}
        self._keep(str(data.get("camera", "")), lambda: said, host)

    def _keep(self, camera: str, make: Callable[[], dict[str, Any]], host: str = "") -> None:
        self._last += 1
        self._kept.append(Kept(self._last, camera, make, host))
        self._news.set()
        self._news = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for /v1/events; `?camera=` selects the events of one camera.

        With Last-Event-ID the stream continues where a broken connection ended.
        """
        camera = request.query.get("camera")
        said = request.headers.get("Last-Event-ID", "")
        seen = (
            int(said)
            if said.isascii() and said.isdigit() and len(said) < 16 and int(said) <= self._last
            else self._last
        )
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(request)
        # A host of a fleet hears what this host says, not what others say
        only_own = ASKED_BY_HOST in request
        with contextlib.suppress(ConnectionError), cut_off(request), self._listening(only_own):
            await response.write(b"retry: 2000\n\n")
            while True:
                chunk, seen = self._since(seen, camera, only_own=only_own)
                if not chunk and seen == self._last:
                    chunk = await self._silence()
                async with asyncio.timeout(STALL_S):
                    await response.write(chunk)
                if seen == self._last or not chunk:
                    await asyncio.sleep(PACE_S)
        return response

    @contextlib.contextmanager
    def _listening(self, by_host: bool) -> Iterator[None]:
        self.listeners += not by_host
        try:
            yield
        finally:
            self.listeners -= not by_host

    def _since(self, seen: int, camera: str | None, *, only_own: bool = False) -> tuple[bytes, int]:
        """Return what to send to a listener that has seen event `seen`, and its new position."""
        if seen == self._last:
            return b"", seen
        first = self._kept[0].number
        parts, size = [b"event: lost\ndata: {}\n\n"] if seen < first - 1 else [], 0
        for kept in itertools.islice(self._kept, max(0, seen - first + 1), None):
            seen = kept.number
            if camera in (None, kept.camera) and not (only_own and kept.host):
                parts.append(kept.text)
                size += len(kept.text)
                if size >= SLICE_BYTES:
                    break
        return b"".join(parts), seen

    async def _silence(self) -> bytes:
        """Wait for an event, and return b""; after HEARTBEAT_S return a heartbeat comment."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._news.wait()
        except TimeoutError:
            return b": still here\n\n"
        return b""


def _data(event: Event, at: datetime, scrub: Callable[[str], str]) -> dict[str, Any]:
    data = {
        key: scrub(value) if isinstance(value, str) else value
        for key, value in as_data(event).items()
    }
    return {"event": data.pop("event"), "at": rfc3339(at), "text": scrub(event.text), **data}
