"""Routes of pictures: the newest one and its facts, and the archive."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from camserver.api.listener import cut_off
from camserver.api.many import latest_of_many
from camserver.api.max_age import ensure
from camserver.api.responses import Services, refusal
from camserver.api.thumbnails import WIDTHS, Thumbnails, ThumbnailsBusy
from camserver.api.turns import Turns
from camserver.archive.listing import ArchiveListing
from camserver.client.exchange import FACTS_HEADER
from camserver.errors import CameraError
from camserver.host.files import open_regular, read_regular
from camserver.host.tasks import SingleFlight
from camserver.host.threads import DaemonThreads
from camserver.storage.published import facts_beside, facts_within

THREADS = 2
"""Threads that read files.

Publishing has its own threads. A hundred clients may have to wait; cameras must not.
"""
FACTS_PAUSES_S = (0.02, 0.1, 0.3)
"""Pauses, in seconds, to wait for the latest.json that belongs to a new latest.jpg.

After them the answer has only the facts that the JPEG itself contains.
"""
SEND_S = 60.0
"""Seconds that a client may take to receive one picture; then it is cut off."""
CAPTURED_HEADER = "X-Captured-At"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PictureRoutes:
    """The routes of pictures."""

    services: Services
    archive: ArchiveListing
    thumbnails: Thumbnails
    threads: DaemonThreads = field(default_factory=lambda: DaemonThreads(THREADS, "http"))
    turns: Turns = field(default_factory=Turns)
    listings: SingleFlight[tuple[str, date], bytes] = field(default_factory=SingleFlight)
    """Days that are being listed: requests for the same day share one answer."""

    def close(self) -> None:
        """Start no new reads. A read that runs in a thread ends soon."""
        self.threads.shutdown(wait=False)

    async def read(self, work: Callable[[], T]) -> T:
        """Return what `work` returns. It runs in a thread: it reads files, or takes long."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes for an application's router."""
        yield web.get("/v1/latest", self._latest_of_many, allow_head=False)
        yield web.get("/v1/cameras/{id}/latest.jpg", self._latest)
        yield web.get("/v1/cameras/{id}/latest.json", self._latest_facts)
        yield web.get("/v1/cameras/{id}/archive", self._archive_of_a_day)
        yield web.get("/v1/cameras/{id}/archive/{path:.+}", self._archived)

    async def _latest(self, request: web.Request) -> web.StreamResponse:
        camera = self.services.wanted(request)
        await ensure(self.services, request, camera)
        path = self.services.folder(camera.id) / "latest.jpg"
        return await self._picture(request, path, "no-cache", camera.id)

    async def _latest_of_many(self, request: web.Request) -> web.StreamResponse:
        return await latest_of_many(self.services, request)

    async def _latest_facts(self, request: web.Request) -> web.Response:
        camera = self.services.wanted(request)
        await ensure(self.services, request, camera)
        known = self.services.outcomes.get(camera.id)
        if known is None:
            raise refusal(web.HTTPNotFound, "no picture yet")
        headers = {"Cache-Control": "no-cache"}
        headers |= self._age_headers(camera.id, known.picture["captured_at"])
        return web.json_response(known.latest(camera.id), headers=headers)

    def _age_headers(self, camera: str, captured_at: str | None) -> dict[str, str]:
        """Return the headers that say when a camera's picture was captured."""
        age_s = self.services.outcomes.age_of(camera, captured_at)
        if captured_at is None or age_s is None:
            return {}
        return {CAPTURED_HEADER: captured_at, "Age": str(int(age_s))}

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
            pictures = await self.read(lambda: self.archive.walked(camera, day))
        rows = [{"path": p.path, "taken_at": p.taken_ms / 1000, "bytes": p.bytes} for p in pictures]
        return await self.read(lambda: json.dumps(rows).encode())

    async def _archived(self, request: web.Request) -> web.StreamResponse:
        camera, relative = self.services.wanted(request).id, request.match_info["path"]
        path = await self.read(lambda: self.archive.path(camera, relative))
        if path is None:
            raise refusal(web.HTTPNotFound, "no such picture in the archive")
        return await self._picture(request, path, "max-age=86400, immutable")

    async def _picture(
        self, request: web.Request, path: Path, caching: str, latest_of: str = ""
    ) -> web.StreamResponse:
        """Answer with a JPEG, or a smaller one (`?width=`); both take conditional requests.

        `latest_of` is the camera whose newest picture it is, or "" for a picture of the archive.
        """
        width = _width(request) if "width" in request.query else None
        headers = {"Cache-Control": caching, "Content-Type": "image/jpeg"}
        # Asked before the file is: so it is never newer than the file
        if latest_of and (known := self.services.outcomes.get(latest_of)) is not None:
            headers |= self._age_headers(latest_of, known.picture["captured_at"])
        try:
            stat = await self.read(path.stat)
            response: web.StreamResponse
            if _has_it(request, _etag(stat, width), stat.st_mtime):
                response = _marked(web.Response(status=304, headers=headers), stat, width)
            elif width is None:
                response = await self._whole(request, path, headers, latest_of)
            else:
                body = await self.thumbnails.get(
                    path, stat.st_mtime_ns, width, partial(self.read, partial(read_regular, path))
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
            stat, jpeg, facts = await self.read(partial(_load, path))
            if facts is not None:
                return stat, jpeg, facts
            await asyncio.sleep(pause_s)
        return stat, jpeg, await self.read(partial(facts_within, jpeg))

    async def _whole(
        self, request: web.Request, path: Path, headers: dict[str, str], latest_of: str
    ) -> web.StreamResponse:
        """Send a whole picture, which is read in a thread.

        The framework would use sendfile(2), which blocks the event loop while a disk is slow.
        """
        async with self.turns.turn(request.remote or ""):
            stat, jpeg, facts = await self._load(path)
            headers |= {FACTS_HEADER: json.dumps(facts)}
            if latest_of:
                headers |= self._age_headers(latest_of, facts["captured_at"])
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
