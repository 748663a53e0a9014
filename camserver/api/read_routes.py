"""Routes that only read: cameras, their pictures, leases, events, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from camserver.api.listener import cut_off
from camserver.api.metrics import Metrics
from camserver.api.responses import ASKED_BY_HOST, Services, device_view, refusal
from camserver.api.sse import EventStream
from camserver.api.thumbnails import WIDTHS, Thumbnails, ThumbnailsBusy
from camserver.archive.listing import ArchiveListing
from camserver.client.exchange import FACTS_HEADER
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.freshness import FreshnessLimits
from camserver.host.files import open_regular, read_regular
from camserver.host.tasks import SingleFlight
from camserver.host.threads import DaemonThreads
from camserver.polling.entry import CameraPolling
from camserver.storage.published import facts_beside, facts_within

THREADS = 2
"""Threads that read files.

The loop's own threads are for publishing. A hundred clients may have to wait; cameras must not.
"""
SENDING = 32
"""Pictures that are sent to one address at the same time, at most.

Each picture is in memory until its client has received it.
"""
FACTS_PAUSES_S = (0.02, 0.1, 0.3)
"""Pauses, in seconds, to wait for the latest.json that belongs to a new latest.jpg.

After them the answer has only the facts that the JPEG itself contains.
"""
SEND_S = 60.0
"""Seconds that a client may take to receive one picture; then it is cut off."""
OF_OWNER = ("latest", "age_s", "polling")
"""What only the host knows that polls a camera."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReadRoutes:
    """The read-only routes."""

    services: Services
    events: EventStream
    metrics: Metrics
    archive: ArchiveListing
    thumbnails: Thumbnails
    threads: DaemonThreads = field(default_factory=lambda: DaemonThreads(THREADS, "http"))
    sending: Counter[str] = field(default_factory=Counter)
    listings: SingleFlight[tuple[str, date], bytes] = field(default_factory=SingleFlight)
    """Days that are being listed: requests for the same day share one answer."""

    def close(self) -> None:
        """Start no new reads. A read that runs in a thread ends soon."""
        self.threads.shutdown(wait=False)

    async def _read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes for an application's router."""
        yield web.get("/healthz", self._healthz)
        yield web.get("/metrics", self.metrics.answer)
        yield web.get("/v1/openapi.json", self._description)
        yield web.get("/v1/cameras", self._cameras)
        yield web.get("/v1/cameras/{id}", self._camera)
        yield web.get("/v1/cameras/{id}/latest.jpg", self._latest)
        yield web.get("/v1/cameras/{id}/archive", self._archive_of_a_day)
        yield web.get("/v1/cameras/{id}/archive/{path:.+}", self._archived)
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
        body = await self._read(lambda: json.dumps(facts).encode())
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
            owner = fleet.owner_of(view["device"])
            views.append(theirs.get((owner, view["device"]), view) | {"host": owner})
        return web.json_response(views)

    async def _fleet(self, _: web.Request) -> web.Response:
        if self.services.fleet is None:
            raise refusal(web.HTTPNotFound, "this host is on its own: it has no [fleet] table")
        return web.json_response(self.services.fleet.view())

    # ---- pictures

    async def _latest(self, request: web.Request) -> web.StreamResponse:
        path = self.services.folder(self.services.wanted(request).id) / "latest.jpg"
        return await self._picture(request, path, "no-cache")

    async def _archive_of_a_day(self, request: web.Request) -> web.Response:
        camera = self.services.wanted(request)
        try:
            day = date.fromisoformat(request.query.get("day", ""))
            day + timedelta(days=1)
        except (ValueError, OverflowError):
            raise refusal(web.HTTPBadRequest, "day: expected a date, e.g. 2026-01-04") from None
        body = await self.listings.do(
            (camera.id, day), lambda: self._list(camera.id, day), "list a day"
        )
        return web.Response(body=body, content_type="application/json")

    async def _list(self, camera: str, day: date) -> bytes:
        pictures = await self.archive.indexed(camera, day)
        if pictures is None:
            pictures = await self._read(lambda: self.archive.walked(camera, day))
        rows = [{"path": p.path, "taken_at": p.taken_ms / 1000, "bytes": p.bytes} for p in pictures]
        return await self._read(lambda: json.dumps(rows).encode())

    async def _archived(self, request: web.Request) -> web.StreamResponse:
        camera, relative = self.services.wanted(request).id, request.match_info["path"]
        path = await self._read(lambda: self.archive.path(camera, relative))
        if path is None:
            raise refusal(web.HTTPNotFound, "no such picture in the archive")
        return await self._picture(request, path, "max-age=86400, immutable")

    async def _picture(self, request: web.Request, path: Path, caching: str) -> web.StreamResponse:
        """Answer with a JPEG, or a smaller one (`?width=`); both take conditional requests."""
        width = _width(request) if "width" in request.query else None
        try:
            stat = await self._read(path.stat)
            headers = {"Cache-Control": caching, "Content-Type": "image/jpeg"}
            response: web.StreamResponse
            if _has_it(request, _etag(stat, width), stat.st_mtime):
                response = _marked(web.Response(status=304, headers=headers), stat, width)
            elif width is None:
                response = await self._whole(request, path, headers)
            else:
                body = await self.thumbnails.get(
                    path, stat.st_mtime_ns, width, partial(self._read, partial(read_regular, path))
                )
                response = _marked(web.Response(body=body, headers=headers), stat, width)
        except OSError:
            raise refusal(web.HTTPNotFound, "no picture yet") from None
        except ThumbnailsBusy as error:
            raise refusal(web.HTTPServiceUnavailable, str(error)) from None
        except CameraError as error:
            raise refusal(web.HTTPBadGateway, str(error)) from None
        return response

    async def _load(self, path: Path) -> tuple[os.stat_result, bytes, dict[str, Any]]:
        """Return a picture and its facts.

        latest.json is written a moment after latest.jpg, so this waits for it.
        """
        for pause_s in FACTS_PAUSES_S:
            stat, jpeg, facts = await self._read(partial(_load, path))
            if facts is not None:
                return stat, jpeg, facts
            await asyncio.sleep(pause_s)
        return stat, jpeg, await self._read(partial(facts_within, jpeg))

    @contextlib.contextmanager
    def _turn(self, address: str) -> Iterator[None]:
        if self.sending[address] >= SENDING:
            raise refusal(
                web.HTTPServiceUnavailable,
                f"{SENDING} pictures are on their way to {address or 'you'} already",
            )
        self.sending[address] += 1
        try:
            yield
        finally:
            self.sending[address] -= 1
            if not self.sending[address]:
                del self.sending[address]

    async def _whole(
        self, request: web.Request, path: Path, headers: dict[str, str]
    ) -> web.StreamResponse:
        """Send a whole picture, which is read in a thread.

        The framework would use sendfile(2), which blocks the event loop while a disk is slow.
        """
        with self._turn(request.remote or ""):
            stat, jpeg, facts = await self._load(path)
            headers |= {FACTS_HEADER: json.dumps(facts)}
            response = _marked(web.StreamResponse(headers=headers), stat, None)
            response.content_length = len(jpeg)
            with contextlib.suppress(ConnectionError), cut_off(request):
                async with asyncio.timeout(SEND_S):
                    await response.prepare(request)
                    if request.method != "HEAD":
                        await response.write(jpeg)
                    await response.write_eof()
            return response


def _load(path: Path) -> tuple[os.stat_result, bytes, dict[str, Any] | None]:
    """Return a picture, and its facts, or None while latest.json does not have them yet."""
    # `stat` and `jpeg` are of one file, even if another is renamed over it meanwhile.
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        stat, jpeg = os.fstat(file.fileno()), file.read()
    if path.name != "latest.jpg":  # a picture of the archive
        return stat, jpeg, facts_within(jpeg)
    latest_json = b""
    with contextlib.suppress(OSError):
        latest_json = read_regular(path.with_name("latest.json"))
    return stat, jpeg, facts_beside(jpeg, latest_json)


def _etag(stat: os.stat_result, width: int | None) -> str:
    return f"{stat.st_mtime_ns:x}-{stat.st_size:x}" + (f"-{width}" if width else "")


Answer = TypeVar("Answer", bound=web.StreamResponse)


def _marked(response: Answer, stat: os.stat_result, width: int | None) -> Answer:
    response.etag, response.last_modified = _etag(stat, width), stat.st_mtime
    return response


def _has_it(request: web.Request, etag: str, modified: float) -> bool:
    """Return whether the client's copy is up to date (RFC 9110, 13.1)."""
    known, since = request.if_none_match, request.if_modified_since
    if known:
        return any(tag.value in (etag, "*") for tag in known)
    return since is not None and int(modified) <= since.timestamp()


def _width(request: web.Request) -> int:
    text = request.query["width"]
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= WIDTHS[-1]):
        raise refusal(
            web.HTTPBadRequest, f"width: expected a number of pixels from 1 to {WIDTHS[-1]}"
        )
    return int(text)
