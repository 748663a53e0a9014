"""Snapshot URLs: what comes back is a whole JPEG or a named failure; logins work, nothing is followed blindly."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from house import House, certificate, with_house
from PIL import Image
from support import camera, free_port

from camserver.leases import Holder
from camserver.records import Result, Source
from camserver.rtsp import auth
from camserver.simulator.camera import Fault, SimulatedCamera

USER, PASSWORD = "viewer", "p@:/#%? ü"
CHALLENGE = {"realm": "cam", "nonce": "abc", "qop": "auth", "algorithm": "MD5"}


def jpeg(size: tuple[int, int] = (640, 360)) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, "JPEG")
    return file.getvalue()


JPEG = jpeg()
BODIES = {"/picture": JPEG, "/cut": JPEG[: len(JPEG) // 2], "/hole": JPEG[:2000] + bytes(3000) + JPEG[5000:],
          "/html": b"<html>please log in</html>", "/empty": b""}
CHALLENGES = {"/digest": "Digest " + ", ".join(f'{k}="{v}"' for k, v in CHALLENGE.items()), "/basic": 'Basic realm="cam"'}


class SnapshotServer:
    """A camera's web server; counts requests by path."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.path)
        if request.path in BODIES:
            return web.Response(body=BODIES[request.path])
        if request.path in CHALLENGES:
            return self._locked(request, CHALLENGES[request.path])
        if request.path == "/redirect":
            raise web.HTTPFound("http://elsewhere.invalid/")
        if request.path == "/endless":
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(40):
                await response.write(bytes(1 << 20))
            return response
        if request.path == "/hang":
            await asyncio.sleep(60)
        return web.Response(status=int(request.path.removeprefix("/status/")))

    def _locked(self, request: web.Request, challenge: str) -> web.Response:
        given = request.headers.get("Authorization", "")
        if given and auth.accepts(given, USER, PASSWORD, "GET", CHALLENGE):
            return web.Response(body=JPEG)
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})


def with_server(work: Callable[[House, SnapshotServer], Awaitable[None]], **site: Any) -> None:
    async def inside(house: House) -> None:
        server = SnapshotServer()
        application = web.Application()
        application.router.add_get("/{tail:.*}", server.answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        tcp = web.TCPSite(runner, "127.0.0.1", server.port, **site)
        await tcp.start()
        server.port = runner.addresses[0][1]
        try:
            await work(house, server)
        finally:
            await runner.cleanup()

    with_house([SimulatedCamera("cam", "Gate", fault=Fault("silent"))], inside)


@pytest.mark.parametrize(("path", "result", "requests"), [
    ("picture", Result.OK, 1), ("digest", Result.OK, 2), ("basic", Result.OK, 2), ("cut", Result.BAD_PICTURE, 1),
    ("hole", Result.BAD_PICTURE, 1), ("html", Result.BAD_PICTURE, 1), ("empty", Result.BAD_PICTURE, 1),
    ("redirect", Result.ERROR, 1), ("hang", Result.TIMEOUT, 1), ("endless", Result.BAD_PICTURE, 1),
    ("status/401", Result.AUTH, 1), ("status/404", Result.NOT_FOUND, 1), ("status/503", Result.FULL, 1),
    ("status/500", Result.ERROR, 1),
])
def test_each_answer_has_its_word(path: str, result: Result, requests: int) -> None:
    async def work(house: House, server: SnapshotServer) -> None:
        only_http = camera(url=None, snapshot_url=f"http://127.0.0.1:{server.port}/{path}", username=USER, password=PASSWORD,
                           timeout_s=2.0)
        attempt = await house.service.take(only_http, Holder("poller"))
        assert attempt.result is result, attempt.error
        assert len(server.seen) == requests
        if attempt.snapshot is not None:
            assert attempt.snapshot.still.jpeg == JPEG
        else:
            assert PASSWORD not in str(attempt.error)

    with_server(work)


def test_a_wrong_password_is_tried_once() -> None:
    """Cameras lock accounts: one challenge, one answer, no more."""
    async def work(house: House, server: SnapshotServer) -> None:
        for path in ("digest", "basic"):
            wrong = camera(url=None, snapshot_url=f"http://127.0.0.1:{server.port}/{path}", username=USER, password="wr0ng")
            attempt = await house.service.take(wrong, Holder("poller"))
            assert attempt.result is Result.AUTH
        assert server.seen == ["/digest"] * 2 + ["/basic"] * 2

    with_server(work)


def test_it_helps_where_rtsp_fails_within_one_deadline() -> None:
    """RTSP is silent: the snapshot URL gives the picture, before the camera's timeout is over; the session is closed."""
    async def work(house: House, server: SnapshotServer) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        attempt = await house.take("cam", snapshot_url=f"http://127.0.0.1:{server.port}/picture", timeout_s=4.0, width=320)
        assert attempt.snapshot is not None, attempt.error
        assert (attempt.snapshot.source, attempt.snapshot.still.width) == (Source.HTTP, 320)
        assert loop.time() - started < 4.5
        assert (await house.seen("cam")).ends_clean == 1

    with_server(work)


def test_nothing_listens() -> None:
    async def work(house: House, _: SnapshotServer) -> None:
        nobody = camera(url=None, snapshot_url=f"http://127.0.0.1:{free_port()}/x")
        attempt = await house.service.take(nobody, Holder("poller"))
        assert attempt.result is Result.UNREACHABLE
        assert "refused" in str(attempt.error)

    with_server(work)


def test_https_with_a_certificate_of_the_cameras_own(tmp_path: Path) -> None:
    async def work(house: House, server: SnapshotServer) -> None:
        own = camera(url=None, snapshot_url=f"https://127.0.0.1:{server.port}/picture")
        assert (await house.service.take(own, Holder("poller"))).ok
        strict = camera(url=None, snapshot_url=f"https://127.0.0.1:{server.port}/picture", tls_verify=True)
        attempt = await house.service.take(strict, Holder("poller"))
        assert "certificate" in str(attempt.error)

    with_server(work, ssl_context=certificate(tmp_path))
