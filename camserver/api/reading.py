"""Routes that read: cameras, their newest pictures, leases, events. They change nothing, whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from aiohttp import web

from camserver.api.answers import Services, device_view, refusal
from camserver.api.stream import EventStream
from camserver.config import Camera


class Reading:
    """The read-only routes over `services` and the newest events."""

    def __init__(self, services: Services, events: EventStream) -> None:
        self._services = services
        self._events = events

    def routes(self) -> Iterator[web.RouteDef]:
        """For an application's router."""
        yield web.get("/healthz", self._healthz)
        yield web.get("/v1/openapi.json", self._description)
        yield web.get("/v1/cameras", self._cameras)
        yield web.get("/v1/cameras/{id}", self._camera)
        yield web.get("/v1/cameras/{id}/latest.jpg", self._latest)
        yield web.get("/v1/leases", self._leases)
        yield web.get("/v1/events", self._events.answer)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "cameras": len(self._services.cameras())})

    async def _description(self, _: web.Request) -> web.Response:
        return web.Response(body=(files("camserver.api") / "openapi.json").read_bytes(), content_type="application/json")

    async def _cameras(self, _: web.Request) -> web.Response:
        cameras = self._services.cameras()
        return web.json_response(await asyncio.to_thread(lambda: [self._facts(camera) for camera in cameras]))

    async def _camera(self, request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(self._facts, self._services.wanted(request)))

    async def _latest(self, request: web.Request) -> web.StreamResponse:
        path = self._services.folder(self._services.wanted(request).id) / "latest.jpg"
        if not await asyncio.to_thread(path.exists):
            raise refusal(web.HTTPNotFound, "no picture yet")
        return web.FileResponse(path, headers={"Cache-Control": "no-cache"})

    async def _leases(self, _: web.Request) -> web.Response:
        now = asyncio.get_running_loop().time()
        return web.json_response([device_view(device, now) for device in self._services.manager.statistics()])

    def _facts(self, camera: Camera) -> dict[str, Any]:
        """In a thread: a hung disk delays who asks, nobody else."""
        latest = None
        with contextlib.suppress(OSError, ValueError):
            latest = json.loads((self._services.folder(camera.id) / "latest.json").read_text())
        return {"id": camera.id, "name": camera.name, "device": camera.device, "interval_s": camera.interval_s,
                "max_sessions": camera.max_sessions, "latest": latest}
