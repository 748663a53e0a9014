"""Routes that read: cameras, their pictures, leases, events, metrics. They change nothing, whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from camserver.api.answers import Services, device_view, refusal
from camserver.api.metrics import Metrics
from camserver.api.stream import EventStream
from camserver.api.thumbnails import WIDTHS, Thumbnails
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.polling import CameraPolling
from camserver.storage.archive import Archive


@dataclass(frozen=True, slots=True)
class Reading:
    """The read-only routes, over what the daemon knows."""

    services: Services
    events: EventStream
    metrics: Metrics
    archive: Archive
    thumbnails: Thumbnails

    def routes(self) -> Iterator[web.RouteDef]:
        """For an application's router."""
        yield web.get("/healthz", self._healthz)
        yield web.get("/metrics", self.metrics.answer)
        yield web.get("/v1/openapi.json", self._description)
        yield web.get("/v1/cameras", self._cameras)
        yield web.get("/v1/cameras/{id}", self._camera)
        yield web.get("/v1/cameras/{id}/latest.jpg", self._latest)
        yield web.get("/v1/cameras/{id}/archive", self._archive_of_a_day)
        yield web.get("/v1/cameras/{id}/archive/{path:.+}", self._archived)
        yield web.get("/v1/leases", self._leases)
        yield web.get("/v1/events", self.events.answer, allow_head=False)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "cameras": len(self.services.cameras())})

    async def _description(self, _: web.Request) -> web.Response:
        return web.Response(body=(files("camserver.api") / "openapi.json").read_bytes(), content_type="application/json")

    # ---- cameras

    async def _cameras(self, _: web.Request) -> web.Response:
        cameras, polling = self.services.cameras(), self._polling()
        return web.json_response(await asyncio.to_thread(lambda: [self._facts(c, polling.get(c.id)) for c in cameras]))

    async def _camera(self, request: web.Request) -> web.Response:
        camera = self.services.wanted(request)
        return web.json_response(await asyncio.to_thread(self._facts, camera, self._polling().get(camera.id)))

    def _polling(self) -> dict[str, CameraPolling]:
        return {c.camera: c for c in self.services.polling()}

    def _facts(self, camera: Camera, polling: CameraPolling | None) -> dict[str, Any]:
        """In a thread: a hung disk delays who asks, nobody else."""
        latest = None
        with contextlib.suppress(OSError, ValueError):
            latest = json.loads((self.services.folder(camera.id) / "latest.json").read_text())
        return {"id": camera.id, "name": camera.name, "device": camera.device, "interval_s": camera.interval_s,
                "max_sessions": camera.max_sessions, "go2rtc": camera.go2rtc, "latest": latest,
                "polling": polling and {"running": polling.running, "due_in_s": round(polling.due_in_s, 3),
                                        "failures": polling.failures, "skipped": polling.skipped,
                                        "results": {result.value: n for result, n in polling.results.items()}}}

    async def _leases(self, _: web.Request) -> web.Response:
        now = asyncio.get_running_loop().time()
        return web.json_response([device_view(device, now) for device in self.services.manager.statistics()])

    # ---- pictures

    async def _latest(self, request: web.Request) -> web.StreamResponse:
        path = self.services.folder(self.services.wanted(request).id) / "latest.jpg"
        return await self._picture(request, path, "no-cache")

    async def _archive_of_a_day(self, request: web.Request) -> web.Response:
        camera = self.services.wanted(request)
        try:
            day = date.fromisoformat(request.query.get("day", ""))
        except ValueError:
            raise refusal(web.HTTPBadRequest, "day: expected a date, e.g. 2026-01-04") from None
        pictures = await asyncio.to_thread(self.archive.pictures, camera.id, day)
        return web.json_response([{"path": p.path, "taken_at": round(p.taken_at, 3), "bytes": p.bytes} for p in pictures])

    async def _archived(self, request: web.Request) -> web.StreamResponse:
        path = await asyncio.to_thread(self.archive.path, self.services.wanted(request).id, request.match_info["path"])
        if path is None:
            raise refusal(web.HTTPNotFound, "no such picture in the archive")
        return await self._picture(request, path, "max-age=86400, immutable")

    async def _picture(self, request: web.Request, path: Path, caching: str) -> web.StreamResponse:
        """A JPEG as it is, or made smaller (`?width=`); conditional requests work for both."""
        try:
            stat = await asyncio.to_thread(path.stat)
            if "width" not in request.query:
                return web.FileResponse(path, headers={"Cache-Control": caching})
            width = _width(request)
            etag = f"{stat.st_mtime_ns:x}-{stat.st_size:x}-{width}"
            response = web.Response(content_type="image/jpeg", headers={"Cache-Control": caching})
            response.etag, response.last_modified = etag, stat.st_mtime
            if any(known.value in (etag, "*") for known in request.if_none_match or ()):
                response.set_status(304)
            else:
                response.body = await self.thumbnails.get(path, stat.st_mtime_ns, width)
            return response
        except OSError:
            raise refusal(web.HTTPNotFound, "no picture yet") from None
        except CameraError as error:
            raise refusal(web.HTTPBadGateway, str(error)) from None


def _width(request: web.Request) -> int:
    text = request.query["width"]
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= WIDTHS[-1]):
        raise refusal(web.HTTPBadRequest, f"width: expected a number of pixels from 1 to {WIDTHS[-1]}")
    return int(text)
