"""`/v1/events`: domain events as server-sent events (WHATWG HTML, 9.2), for many listeners.

Each event is serialised once, into a ring buffer. Each listener reads on from its own position, a
few times a second at most. So a thousand listeners cost little. A listener that does not read costs
nothing: it misses events, and then gets the event "lost".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import Callable

from aiohttp import web

from camserver.api.listener import cut_off
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


class EventStream:
    """A listener of the event bus, and the handler of the route.

    `scrub` removes secrets from texts.
    """

    def __init__(self, scrub: Callable[[str], str], clock: WallClock = utc_now) -> None:
        self._scrub = scrub
        self._clock = clock
        # (number, camera, bytes to send)
        self._kept: deque[tuple[int, str, bytes]] = deque(maxlen=KEPT)
        self._last = 0
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        """Serialise one event and wake the listeners."""
        data = {
            key: self._scrub(value) if isinstance(value, str) else value
            for key, value in as_data(event).items()
        }
        data = {
            "event": data.pop("event"),
            "at": rfc3339(self._clock()),
            "text": self._scrub(event.text),
            **data,
        }
        self._last += 1
        text = (
            f"id: {self._last}\nevent: {data['event']}\ndata:"
            f" {json.dumps(data, ensure_ascii=False, default=str)}\n\n"
        )
        self._kept.append((self._last, event.camera, text.encode()))
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
        with contextlib.suppress(ConnectionError), cut_off(request):
            await response.write(b"retry: 2000\n\n")
            while True:
                chunk, seen = self._since(seen, camera)
                if not chunk and seen == self._last:
                    chunk = await self._silence()
                async with asyncio.timeout(STALL_S):
                    await response.write(chunk)
                if seen == self._last:
                    await asyncio.sleep(PACE_S)
        return response

    def _since(self, seen: int, camera: str | None) -> tuple[bytes, int]:
        """Return what to send to a listener that has seen event `seen`, and its new position."""
        if seen == self._last:
            return b"", seen
        first = self._kept[0][0]
        parts, size = [b"event: lost\ndata: {}\n\n"] if seen < first - 1 else [], 0
        for number, of, text in itertools.islice(self._kept, max(0, seen - first + 1), None):
            seen = number
            if camera is None or camera == of:
                parts.append(text)
                size += len(text)
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
