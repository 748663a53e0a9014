"""Routes that read: cameras, leases, the fleet, events, metrics, and those of pictures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from aiohttp import web

from camserver.api.metrics import Metrics
from camserver.api.pictures import PictureRoutes
from camserver.api.responses import ASKED_BY_HOST, Services, device_view, refusal
from camserver.api.sse import EventStream
from camserver.config import Camera
from camserver.freshness import FreshnessLimits
from camserver.leases.http_device import box_of
from camserver.polling.entry import CameraPolling

OF_OWNER = ("latest", "age_s", "polling")
"""What only the host knows that polls a camera."""


@dataclass(frozen=True, slots=True)
class ReadRoutes:
    """The routes that read. With `max_age` one may have a picture taken first."""

    services: Services
    events: EventStream
    metrics: Metrics
    pictures: PictureRoutes

    def close(self) -> None:
        """Start no new reads. A read that runs in a thread ends soon."""
        self.pictures.close()

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes for an application's router."""
        yield web.get("/healthz", self._healthz)
        yield web.get("/metrics", self.metrics.answer)
        yield web.get("/v1/openapi.json", self._description)
        yield web.get("/v1/cameras", self._cameras)
        yield web.get("/v1/cameras/{id}", self._camera)
        yield from self.pictures.routes()
        yield web.get("/v1/leases", self._leases)
        yield web.get("/v1/fleet", self._fleet)
        yield web.get("/v1/events", self.events.answer, allow_head=False)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "cameras": len(self.services.cameras())})

    async def _description(self, _: web.Request) -> web.Response:
        return web.Response(
            body=(files("camserver.api") / "openapi.json").read_bytes(),
            content_type="application/json",
        )

    # ---- cameras

    async def _cameras(self, request: web.Request) -> web.Response:
        polling, cameras = self._polling(), self.services.cameras()
        others: dict[str, dict[str, Any]] = {}
        if ASKED_BY_HOST in request:
            cameras = tuple(camera for camera in cameras if self.services.polls_here(camera))
        elif self.services.fleet is not None:
            others = await self.services.fleet.cameras()
        facts = [self._facts(c, polling.get(c.id), others.get(c.id)) for c in cameras]
        body = await self.pictures.read(lambda: json.dumps(facts).encode())
        return web.Response(body=body, content_type="application/json")

    async def _camera(self, request: web.Request) -> web.Response:
        camera = self.services.wanted(request)
        return web.json_response(self._facts(camera, self._polling().get(camera.id)))

    def _polling(self) -> dict[str, CameraPolling]:
        return {c.camera: c for c in self.services.polling()}

    def _facts(
        self,
        camera: Camera,
        polling: CameraPolling | None,
        of_owner: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return a camera as JSON values. `of_owner` is what the host says that polls it."""
        is_here = self.services.polls_here(camera)
        if of_owner is not None and not is_here:
            known = {key: of_owner[key] for key in OF_OWNER if key in of_owner}
            return self._facts(camera, None) | known | {"from_owner": True}
        outcome = self.services.outcomes.get(camera.id)
        age_s = self.services.outcomes.age_s(camera.id)
        return {
            "id": camera.id,
            "name": camera.name,
            "address": camera.address,
            "device": camera.device,
            "interval_s": camera.interval_s,
            **asdict(FreshnessLimits.of(camera.interval_s)),
            "max_sessions": camera.max_sessions,
            "go2rtc": camera.go2rtc,
            "host": self.services.fleet and self.services.fleet.owner_of(camera.device),
            "polled_here": is_here,
            "from_owner": is_here,
            "latest": outcome and outcome.latest(camera.id),
            "age_s": None if age_s is None else round(age_s, 3),
            "polling": polling
            and {
                "running": polling.running,
                "due_in_s": round(polling.due_in_s, 3),
                "failures": polling.failures,
                "skipped": polling.skipped,
                "results": {result.value: n for result, n in polling.results.items()},
            },
        }

    async def _leases(self, request: web.Request) -> web.Response:
        now, fleet = asyncio.get_running_loop().time(), self.services.fleet
        mine = [device_view(device, now) for device in self.services.manager.statistics()]
        if fleet is None or ASKED_BY_HOST in request:
            return web.json_response(mine)
        theirs, views = await fleet.leases(), []
        for view in mine:
            owner = fleet.owner_of(box_of(view["device"]))
            views.append(theirs.get((owner, view["device"]), view) | {"host": owner})
        return web.json_response(views)

    async def _fleet(self, _: web.Request) -> web.Response:
        if self.services.fleet is None:
            raise refusal(web.HTTPNotFound, "this host is on its own: it has no [fleet] table")
        return web.json_response(self.services.fleet.view())
