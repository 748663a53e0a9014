"""The newest pictures of many cameras in one answer: one JSON line for each, when it is known.

A line has the facts of the picture, its age and its file, or says why there is none that is young
enough. In a fleet, each host answers for the cameras that it polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from fnmatch import translate

from aiohttp import web

from camserver.api.captures import passed_on
from camserver.api.max_age import AgeLimit, facts_of_missing, missed
from camserver.api.responses import ASKED_BY_HOST, Services, refusal
from camserver.config import Camera
from camserver.polling.on_demand import ASK_AGAIN_S, NotFresh

SEND_S = 60.0
"""Seconds that a client may take to receive one line; then it is cut off."""
MAX_PATTERN_CHARS, MAX_PATTERNS = 1000, 50
AT_ONCE, MATCHED_AT_ONCE = 50, 500
"""Lines that are made, and cameras that are looked at, in one turn of the event loop."""


async def latest_of_many(services: Services, request: web.Request) -> web.StreamResponse:
    """Answer for the cameras that the request names. Raises 400, 404."""
    answer = _Answer(services, request, AgeLimit.of(request))
    cameras = await _chosen(services, request)
    response = answer.response
    await response.prepare(request)
    try:
        async with asyncio.TaskGroup() as group:
            for host, of_host in answer.by_host(cameras).items():
                if host:
                    group.create_task(answer.ask_host(host, of_host), name=f"latest of {host}")
                    continue
                for camera in await answer.send_known(of_host):
                    group.create_task(answer.send_when_fresh(camera), name=f"latest {camera.id}")
        await response.write_eof()
    except* ConnectionError:  # the client has left, or did not read
        pass
    return response


class _Answer:
    """One answer, line by line."""

    def __init__(self, services: Services, request: web.Request, limit: AgeLimit | None) -> None:
        self._services = services
        self._request = request
        self._limit = limit
        self._sending = asyncio.Lock()
        self.response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-cache"}
        )

    def by_host(self, cameras: Iterable[Camera]) -> dict[str, list[Camera]]:
        """Return the cameras by the host of the fleet that polls them; "" is this host."""
        fleet, found = self._services.fleet, defaultdict[str, list[Camera]](list)
        for camera in cameras:
            is_here = fleet is None or fleet.owns(camera.device) or ASKED_BY_HOST in self._request
            found["" if is_here or fleet is None else fleet.owner_of(camera.device)].append(camera)
        return found

    async def send_known(self, cameras: list[Camera]) -> list[Camera]:
        """Send what needs no new picture. Return the other cameras."""
        others, lines = [], []
        for camera in cameras:
            if self._limit is None or self._services.on_demand.is_young(
                camera.id, self._limit.max_age_s
            ):
                lines.append(self._line(camera, None))
            else:
                others.append(camera)
            if len(lines) == AT_ONCE:
                await self._send(b"".join(lines))
                await asyncio.sleep(0)
                lines = []
        await self._send(b"".join(lines))
        return others

    async def send_when_fresh(self, camera: Camera) -> None:
        """Have a picture taken, if it may be, and send what came of it."""
        assert self._limit is not None  # noqa: S101 - without a limit every picture will do
        why = await missed(self._services, self._request, camera, self._limit)
        await self._send(self._line(camera, why))

    async def ask_host(self, host: str, cameras: list[Camera]) -> None:
        """Send what another host says of its cameras, and of each of them that it says nothing."""
        fleet, missing = self._services.fleet, {camera.id: camera for camera in cameras}
        assert fleet is not None  # noqa: S101 - other hosts are hosts of a fleet
        waits = [self._limit.wait_for(c) for c in cameras] if self._limit is not None else []
        async with contextlib.aclosing(
            fleet.lines(host, self._request, passed_on(self._request), max(waits, default=0.0))
        ) as lines:
            async for said in lines:
                if missing.pop(str(said.get("camera")), None) is not None:
                    await self._send(json.dumps(said | {"host": host}).encode() + b"\n")
        for camera in missing.values():
            why = NotFresh(f"{camera.id}: host {host} does not answer", ASK_AGAIN_S)
            await self._send(self._line(camera, why))

    def _line(self, camera: Camera, why: NotFresh | None) -> bytes:
        """Return the line of a camera. `why` is why its picture is not young enough."""
        services = self._services
        known, age_s = services.outcomes.get(camera.id), services.outcomes.age_s(camera.id)
        facts: dict[str, object] = {"camera": camera.id}
        if why is None and age_s is None:
            why = NotFresh(f"{camera.id}: no picture yet", ASK_AGAIN_S)
        will_do = why is None or (self._limit is not None and self._limit.stale_ok)
        if will_do and known is not None and age_s is not None:
            file = str(services.folder(camera.id) / "latest.jpg")
            facts |= {**known.picture, "age_s": round(age_s, 3), "file": file}
        if why is not None:
            facts |= facts_of_missing(services, camera, why) | {"error": why.reason}
        return json.dumps(facts).encode() + b"\n"

    async def _send(self, lines: bytes) -> None:
        """Send lines. Raises ConnectionError when the client has left or does not read."""
        if not lines:
            return
        async with self._sending:
            try:
                async with asyncio.timeout(SEND_S):
                    await self.response.write(lines)
            except TimeoutError:
                if self._request.transport is not None:
                    self._request.transport.abort()
                raise ConnectionResetError from None


async def _chosen(services: Services, request: web.Request) -> list[Camera]:
    pattern = request.query.get("cameras", "*")
    if len(pattern) > MAX_PATTERN_CHARS:
        raise refusal(
            web.HTTPBadRequest, f"cameras: expected at most {MAX_PATTERN_CHARS} characters"
        )
    parts = {translate(each.strip()) for each in pattern.split(",")}
    if len(parts) > MAX_PATTERNS:
        raise refusal(web.HTTPBadRequest, f"cameras: expected at most {MAX_PATTERNS} patterns")
    fits = re.compile("|".join(parts)).match
    chosen = []
    for number, camera in enumerate(services.cameras()):
        if fits(camera.id):
            chosen.append(camera)
        if number % MATCHED_AT_ONCE == MATCHED_AT_ONCE - 1:
            await asyncio.sleep(0)
    if not chosen:
        raise refusal(web.HTTPNotFound, f"no enabled camera matches {pattern[:64]!r}")
    if ASKED_BY_HOST in request:
        return [camera for camera in chosen if services.polls_here(camera)]
    return chosen
