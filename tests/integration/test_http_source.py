"""Snapshot URLs: what comes back is a whole JPEG or a named failure.

Logins work, nothing is followed blindly.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from house import House, StartFleet, certificate
from PIL import Image
from support import camera, free_port

from camserver.leases import Holder
from camserver.model import Result, Source
from camserver.rtsp import auth
from camserver.simulator.camera import Fault, SimulatedCamera

USER, PASSWORD = "viewer", "p@:/#%? ü"
CHALLENGE = {"realm": "cam", "nonce": "abc", "qop": "auth", "algorithm": "MD5"}


def jpeg(size: tuple[int, int] = (640, 360)) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, "JPEG")
    return file.getvalue()


JPEG = jpeg()
BODIES = {
    "/picture": JPEG,
    "/cut": JPEG[: len(JPEG) // 2],
    "/hole": JPEG[:2000] + bytes(3000) + JPEG[5000:],
    "/html": b"<html>please log in</html>",
    "/empty": b"",
}
CHALLENGES = {
    "/digest": "Digest " + ", ".join(f'{k}="{v}"' for k, v in CHALLENGE.items()),
    "/basic": 'Basic realm="cam"',
}


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


Serve = Callable[..., Awaitable[tuple[House, SnapshotServer]]]


@pytest.fixture
async def serve(fleet: StartFleet) -> AsyncIterator[Serve]:
    """Starts a camera that is silent over RTSP, and a server of snapshot URLs."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**site: Any) -> tuple[House, SnapshotServer]:
            house = await fleet([SimulatedCamera("cam", "Gate", fault=Fault("silent"))])
            server = SnapshotServer()
            application = web.Application()
            application.router.add_get("/{tail:.*}", server.answer)
            runner = web.AppRunner(application, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", server.port, **site).start()
            server.port = runner.addresses[0][1]
            return house, server

        yield start


@pytest.mark.parametrize(
    ("path", "result", "requests"),
    [
        ("picture", Result.OK, 1),
        ("digest", Result.OK, 2),
        ("basic", Result.OK, 2),
        ("cut", Result.BAD_PICTURE, 1),
        ("hole", Result.BAD_PICTURE, 1),
        ("html", Result.BAD_PICTURE, 1),
        ("empty", Result.BAD_PICTURE, 1),
        ("redirect", Result.ERROR, 1),
        ("hang", Result.TIMEOUT, 1),
        ("endless", Result.BAD_PICTURE, 1),
        ("status/401", Result.ERROR, 1),
        ("status/403", Result.FULL, 1),
        ("status/404", Result.NOT_FOUND, 1),
        ("status/503", Result.FULL, 1),
        ("status/500", Result.ERROR, 1),
    ],
)
async def test_each_answer_has_its_word(
    path: str, result: Result, requests: int, serve: Serve
) -> None:
    house, server = await serve()
    only_http = camera(
        url=None,
        snapshot_url=f"http://127.0.0.1:{server.port}/{path}",
        username=USER,
        password=PASSWORD,
        timeout_s=2.0 if path == "hang" else 30.0,
    )
    attempt = await house.service.take(only_http, Holder("poller"))
    assert attempt.result is result, attempt.error
    assert len(server.seen) == requests
    if attempt.snapshot is not None:
        assert attempt.snapshot.still.jpeg == JPEG
    else:
        assert PASSWORD not in str(attempt.error)


async def test_a_camera_that_closes_some_time_after_its_401_gets_the_login_once(
    fleet: StartFleet,
) -> None:
    """The login waits until the connection is closed, and goes over the next one."""
    logins = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal logins
        request = await reader.readuntil(b"\r\n\r\n")
        if b"Authorization" in request:
            logins += 1
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(JPEG)}\r\n\r\n"
            writer.write(head.encode() + JPEG)
        else:
            challenge = 'WWW-Authenticate: Basic realm="cam"'
            writer.write(f"HTTP/1.1 401 No\r\n{challenge}\r\nContent-Length: 0\r\n\r\n".encode())
            await asyncio.sleep(0.08)  # the camera's habit, not ours
        writer.close()

    house = await fleet([])
    tcp = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = tcp.sockets[0].getsockname()[1]
    late = camera(
        url=None,
        snapshot_url=f"http://127.0.0.1:{port}/x",
        username=USER,
        password=PASSWORD,
    )
    for polls in (1, 2, 3):
        attempt = await house.service.take(late, Holder("poller"))
        assert attempt.ok, attempt.error
        assert logins == polls
    tcp.close()


async def test_a_wrong_password_is_tried_once(serve: Serve) -> None:
    """Cameras lock accounts: one challenge, one answer, no more."""
    house, server = await serve()
    for path in ("digest", "basic"):
        wrong = camera(
            url=None,
            snapshot_url=f"http://127.0.0.1:{server.port}/{path}",
            username=USER,
            password="wr0ng",
        )
        attempt = await house.service.take(wrong, Holder("poller"))
        assert attempt.result is Result.AUTH
    assert server.seen == ["/digest"] * 2 + ["/basic"] * 2


async def test_it_helps_where_rtsp_fails_within_one_deadline(serve: Serve) -> None:
    """RTSP is silent: the snapshot URL gives the picture, before the camera's timeout is over.

    The session is closed.
    """
    house, server = await serve()
    loop = asyncio.get_running_loop()
    started = loop.time()
    # Half of it for a decoder that is new, on a busy machine
    attempt = await house.take(
        "cam", snapshot_url=f"http://127.0.0.1:{server.port}/picture", timeout_s=12.0, width=320
    )
    assert attempt.snapshot is not None, attempt.error
    assert (attempt.snapshot.source, attempt.snapshot.still.width) == (Source.HTTP, 320)
    assert loop.time() - started < 12.5
    assert (await house.seen("cam")).ends_clean == 1


async def test_nothing_listens(serve: Serve) -> None:
    house, _ = await serve()
    nobody = camera(url=None, snapshot_url=f"http://127.0.0.1:{free_port()}/x")
    attempt = await house.service.take(nobody, Holder("poller"))
    assert attempt.result is Result.UNREACHABLE
    assert "refused" in str(attempt.error)


async def test_https_with_a_certificate_of_the_cameras_own(tmp_path: Path, serve: Serve) -> None:
    house, server = await serve(ssl_context=certificate(tmp_path))
    own = camera(url=None, snapshot_url=f"https://127.0.0.1:{server.port}/picture")
    assert (await house.service.take(own, Holder("poller"))).ok
    strict = camera(
        url=None, snapshot_url=f"https://127.0.0.1:{server.port}/picture", tls_verify=True
    )
    attempt = await house.service.take(strict, Holder("poller"))
    assert "certificate" in str(attempt.error)


NONCE = 'Digest realm="cam", nonce="abc", qop="auth"'
OFFERS = {
    "basic first": ['Basic realm="cam"', NONCE],
    "one line": [f'Basic realm="cam", {NONCE}'],
    "bearer first": ['Bearer realm="cam"', NONCE],
    "sha": [NONCE + ", algorithm=SHA-256", NONCE],
    "only basic": ['Bearer realm="cam"', 'Basic realm="cam"'],
}


class LoginServer:
    """A camera's web server on bare sockets.

    Refuses as it is told, counts logins and connections.
    """

    def __init__(
        self,
        offer: list[str],
        *,
        close: bool = False,
        drop: bool = False,
        stale: int = 0,
        pieces: bool = False,
    ) -> None:
        self.offer, self.close, self.drop, self.stale, self.pieces = (
            offer,
            close,
            drop,
            stale,
            pieces,
        )
        self.logins: list[str] = []
        self.wrong = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                login = next(
                    (
                        line[15:]
                        for line in head.split("\r\n")
                        if line.startswith("Authorization: ")
                    ),
                    "",
                )
                self.logins += [login] * bool(login)
                if login and self.drop:
                    break
                answer = self._answer(login)
                if self.pieces:  # the body comes after a round trip, in a segment of its own
                    head, separator, body = answer.partition(b"\r\n\r\n")
                    writer.write(head + separator + body[:1])
                    await asyncio.sleep(0)
                    await asyncio.to_thread(int)
                    answer = body[1:]
                writer.write(answer)
                if self.close:
                    break
        writer.close()

    def _answer(self, login: str) -> bytes:
        offer = self.offer
        challenge = auth.strongest(auth.parse_challenges(offer))
        assert challenge is not None
        if login and auth.accepts(
            login, USER, PASSWORD, "GET", challenge.parameters | {"nonce": challenge.nonce}
        ):
            if not self.stale:
                return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG
            self.stale -= 1
            self.offer = offer = ['Digest realm="cam", nonce="new", qop="auth", stale=true']
        elif login:
            self.wrong += 1
        lines = "".join(f"WWW-Authenticate: {line}\r\n" for line in offer)
        return f"HTTP/1.1 401 Unauthorized\r\n{lines}Content-Length: 2\r\n\r\nno".encode()


async def fetched(server: LoginServer, house: House, password: str = PASSWORD) -> Any:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/snapshot.cgi?channel=1&x=%2F"
    try:
        return await house.service.take(
            camera(url=None, snapshot_url=url, username=USER, password=password), Holder("poller")
        )
    finally:
        listening.close()


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("offer", OFFERS)
async def test_the_strongest_offer_of_all_is_answered_once(
    offer: str, close: bool, fleet: StartFleet
) -> None:
    """Over the connection of its challenge, where the camera leaves it open."""
    house = await fleet([])
    server = LoginServer(OFFERS[offer], close=close)
    attempt = await fetched(server, house)
    assert attempt.ok, attempt.error
    assert (len(server.logins), server.wrong, server.connections) == (1, 0, 2 if close else 1)
    assert server.logins[0].startswith("Basic" if offer == "only basic" else "Digest")
    assert ("SHA-256" in server.logins[0]) == (offer == "sha")


async def test_a_refusal_in_pieces_keeps_its_connection(fleet: StartFleet) -> None:
    """Else a login would answer the nonce of another connection."""
    house = await fleet([])
    server = LoginServer(OFFERS["basic first"], pieces=True)
    assert (await fetched(server, house)).ok
    assert (len(server.logins), server.wrong, server.connections) == (1, 0, 1)


async def test_stale_means_once_more_and_no_more(fleet: StartFleet) -> None:
    house = await fleet([])
    once, always = LoginServer(OFFERS["sha"], stale=1), LoginServer(OFFERS["sha"], stale=100)
    assert (await fetched(once, house)).ok
    assert (await fetched(always, house)).result is Result.AUTH
    assert (len(once.logins), len(always.logins), once.wrong, always.wrong) == (2, 2, 0, 0)


@pytest.mark.parametrize("offer", ["basic first", "only basic"])
async def test_a_refused_login_is_not_sent_again(offer: str, fleet: StartFleet) -> None:
    """No second scheme after a refused one, and no repetition when the camera closes."""
    house = await fleet([])
    for drop, result in ((False, Result.AUTH), (True, Result.UNREACHABLE)):
        server = LoginServer(OFFERS[offer], drop=drop)
        assert (await fetched(server, house, "wr0ng")).result is result
        assert len(server.logins) == 1


async def test_what_is_not_spoken_is_named(fleet: StartFleet) -> None:
    house = await fleet([])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=x\r\nContent-Length: 0\r\n\r\n"
        )
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    for username, result, words in (
        (USER, Result.ERROR, "bearer"),
        ("", Result.AUTH, "asks for a login"),
    ):
        attempt = await house.service.take(
            camera(url=None, snapshot_url=url, username=username), Holder("poller")
        )
        assert attempt.result is result
        assert words in str(attempt.error)
    listening.close()
