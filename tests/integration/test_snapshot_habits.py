"""Snapshot URLs with the habits of real cameras: the picture, or the true reason, at once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
from desk import StartDaemon
from house import House, StartFleet, certificate, psnr
from PIL import ExifTags, Image
from support import camera

from camserver.capture.http_connection import Address, HttpConnection
from camserver.capture.paced import PacedTransport
from camserver.client import LeaseClient
from camserver.errors import CameraError
from camserver.leases import Holder
from camserver.model import Attempt, Result, Source
from camserver.simulator.camera import Fault, SimulatedCamera
from camserver.simulator.snapshot_habits import HABITS
from camserver.storage.published import jpeg_of

NO_PICTURE = {
    "json-login": (Result.BAD_PICTURE, "it answered JSON: please login first"),
    "html-login": (Result.BAD_PICTURE, "it answered HTML: Log in"),
    "cut": (Result.BAD_PICTURE, "the JPEG is not whole ("),
    "busy": (Result.FULL, "the camera is busy (503): Device Busy"),
    "redirect-away": (Result.ERROR, "it redirects to another host, elsewhere.invalid: "),
}
OTHER_KINDS = {"png", "webp", "bmp"}


def simulated(habit: str = "", **keys: Any) -> SimulatedCamera:
    return SimulatedCamera(
        "cam", "Gate", fault=Fault("refuse"), http_port=0, http_quirk=habit, **keys
    )


async def shot(house: House, **keys: Any) -> Attempt:
    """A picture from the snapshot URL alone."""
    one = house.fleet.cameras["cam"]
    keys = {"username": one.username, "password": one.password, "timeout_s": 30.0} | keys
    target = camera(
        "cam", name="Gate", url=None, snapshot_url=house.fleet.snapshot_url("cam"), **keys
    )
    return await house.service.take(target, Holder("poller"))


@pytest.mark.parametrize("habit", [h for h in HABITS if h not in (*NO_PICTURE, "turned", "small")])
@pytest.mark.parametrize("login", ["", "digest", "basic"])
async def test_the_picture_comes_whole(habit: str, login: str, fleet: StartFleet) -> None:
    keys = {"username": "viewer", "password": "right", "auth": login} if login else {}
    one = simulated(habit, **keys)
    house = await fleet([one])
    for _ in range(2):
        attempt = await shot(house)
        assert attempt.snapshot is not None, attempt.error
        assert attempt.snapshot.source is Source.HTTP
        jpeg = attempt.snapshot.still.jpeg
        if habit in OTHER_KINDS:
            assert attempt.snapshot.still.codec == habit
            sent = simplejpeg.decode_jpeg(one.snapshots[-1])
            assert psnr(simplejpeg.decode_jpeg(jpeg), sent) > 35
        elif habit != "odd-jfif":
            assert jpeg == one.snapshots[-1]
        with Image.open(io.BytesIO(jpeg_of(attempt.snapshot))) as image:
            image.load()
            assert image.size == (one.width, one.height)
    assert one.record.wrong_logins == 0
    # The first answer to a login is the challenge
    assert one.record.http_requests == (4 if login else 2)


@pytest.mark.parametrize("habit", NO_PICTURE)
async def test_the_reason_is_true(habit: str, fleet: StartFleet) -> None:
    house = await fleet([simulated(habit)])
    attempt = await shot(house)
    result, words = NO_PICTURE[habit]
    assert attempt.result is result
    assert f"cam: http: the snapshot URL: {words}" in str(attempt.error)


@pytest.mark.parametrize("width", [None, 320])
async def test_a_turned_picture_stays_turned(width: int | None, fleet: StartFleet) -> None:
    house = await fleet([simulated("turned")])
    attempt = await shot(house, width=width)
    assert attempt.snapshot is not None, attempt.error
    with Image.open(io.BytesIO(jpeg_of(attempt.snapshot))) as image:
        assert image.width == (width or 640)
        assert image.getexif()[ExifTags.Base.Orientation] == 6
        assert image.getexif()[ExifTags.Base.ImageDescription] == "Gate"


async def test_a_redirect_on_the_same_host_is_followed_with_the_login(fleet: StartFleet) -> None:
    one = simulated("redirect", username="viewer", password="right")
    house = await fleet([one])
    assert (await shot(house)).result is Result.OK
    assert one.record.wrong_logins == 0


async def test_a_camera_that_says_for_how_long_it_is_busy_is_waited_for(fleet: StartFleet) -> None:
    one = simulated("busy-once")
    house = await fleet([one])
    assert (await shot(house)).result is Result.OK
    assert one.record.http_requests == 2


async def test_a_busy_camera_is_not_waited_for_longer_than_the_deadline(fleet: StartFleet) -> None:
    one = simulated("busy-once")
    house = await fleet([one])
    attempt = await shot(house, timeout_s=0.9)
    assert attempt.result is Result.FULL
    assert "busy (503), and wants to be asked again in 1 s" in str(attempt.error)
    assert one.record.http_requests == 1


async def test_a_challenge_is_read_though_its_answer_is_cut_short(fleet: StartFleet) -> None:
    one = simulated("short-401", username="viewer", password="right", quirk="kept-nonce")
    house = await fleet([one])
    assert (await shot(house)).result is Result.OK
    assert one.record.wrong_logins == 0


@pytest.mark.parametrize(
    "target", ["/s.cgi?pwd=x{1}%40%2F&a=%2C,", "/ä b?c=d", "?only=query", "/a//b/../c"]
)
async def test_the_url_goes_out_as_it_was_written(target: str, fleet: StartFleet) -> None:
    """Only what a request line cannot have is escaped."""
    heard = []

    async def serve(reader: Any, writer: Any) -> None:
        heard.append((await reader.readline()).split(b" ")[1])
        writer.write(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    house = await fleet([simulated()])
    target_of = camera("cam", url=None, snapshot_url=f"http://127.0.0.1:{port}{target}")
    attempt = await house.service.take(target_of, Holder("poller"))
    server.close()
    assert attempt.result is Result.NOT_FOUND
    expected = {"/ä b?c=d": b"/%C3%A4%20b?c=d", "?only=query": b"/?only=query"}
    assert heard == [expected.get(target, target.encode())]


async def test_old_tls_is_spoken_unless_certificates_are_checked(
    tmp_path: Path, fleet: StartFleet
) -> None:
    tls = certificate(tmp_path)
    tls.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.deprecated_call():
        tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1
    house = await fleet([simulated()], tls=tls)
    assert (await shot(house)).result is Result.OK
    assert (await shot(house, tls_verify=True)).result is not Result.OK


async def test_what_is_no_tls_is_said(fleet: StartFleet) -> None:
    async def refuse(_: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    house = await fleet([simulated()])
    attempt = await house.service.take(camera("cam", url=None, snapshot_url=url), Holder("poller"))
    server.close()
    assert attempt.result is Result.UNREACHABLE
    assert "the snapshot URL: no TLS connection: " in str(attempt.error)


@pytest.mark.parametrize("max_http", [1, 2])
async def test_a_web_server_never_gets_more_requests_at_once_than_it_takes(
    max_http: int, tmp_path: Path, daemon: StartDaemon
) -> None:
    """Channels of one recorder: by its own record, while programs ask, too."""
    recorder = simulated(max_http=max_http, http_s=0.05)
    desk = await daemon([recorder], interval="1h")
    url = desk.house.fleet.snapshot_url("cam")
    channels = "".join(
        f'[[camera]]\nid = "ch{n}"\nsnapshot_url = "{url}?channel={n}"\ndevice = "nvr"\n'
        f'interval = "200ms"\nlease_wait = "60s"\nmax_http = {max_http}\n'
        for n in range(6)
    )
    text = desk.config.read_text().partition("[[camera]]")[0]
    desk.config.write_text(text + channels)
    await asyncio.to_thread(desk.client.post, "/v1/reload")
    client = LeaseClient(desk.socket)
    await desk.until(lambda: all(c["age_s"] is not None for c in desk.client.get("/v1/cameras")))
    for _ in range(3):
        await asyncio.gather(*(client.latest(f"ch{n}", max_age=0.001, wait=60) for n in range(6)))
    record = recorder.record
    assert record.http_max <= max_http
    assert (record.http_refused, record.http_requests >= 18) == (0, True)
    devices = await asyncio.to_thread(desk.client.get, "/v1/leases")
    web = next(device for device in devices if device["device"] == "nvr (http)")
    assert web["max_sessions"] == max_http
    assert 18 <= web["opened"] <= record.http_requests


async def test_the_order_of_the_sources_is_the_inventorys(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """A snapshot URL first: no session at all, until it fails."""
    one = SimulatedCamera("cam", "Gate", gop=2, http_port=0)
    desk = await daemon([one], interval="1h")
    text = desk.config.read_text()
    desk.config.write_text(text.replace("[defaults]", '[defaults]\nsources = ["http", "rtsp"]'))
    await asyncio.to_thread(desk.client.post, "/v1/reload")
    await desk.until(lambda: desk.facts().get("source") == "http")
    opens = one.record.opens
    client = LeaseClient(desk.socket)
    assert (await client.snapshot("cam")).facts["source"] == "http"
    assert one.record.opens == opens
    one.http_quirk = "busy"
    assert (await client.snapshot("cam")).facts["source"] == "rtsp"
    assert one.record.opens == opens + 1


class Server:
    """A web server whose answers a test gives; it keeps what it was asked."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(request)
                writer.write(self.answer(request))
                await writer.drain()
        writer.close()

    async def shot(self, house: House, **keys: Any) -> Attempt:
        listening = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        house.may_refuse_logins.add("cam")
        target = camera(
            "cam",
            url=None,
            snapshot_url=f"http://127.0.0.1:{self.port}/s",
            **({"username": "viewer", "password": "s3cret words"} | keys),
        )
        attempt = await house.service.take(target, Holder("poller"))
        listening.close()
        return attempt

    @property
    def logins(self) -> int:
        return sum(b"Authorization" in request for request in self.asked)


ASKS = b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="c"\r\nContent-Length: 0\r\n\r\n'


@pytest.mark.parametrize(
    ("refusal", "logins"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /s\r\nContent-Length: 0\r\n\r\n", 1),
        (b"HTTP/1.1 302 Found\r\nLocation: /%d\r\nContent-Length: 0\r\n\r\n", 2),
        (b"HTTP/1.1 503 Locked\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", 1),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", 1),
    ],
)
async def test_a_refused_login_is_not_sent_again_whatever_the_refusal_is(
    refusal: bytes, logins: int, fleet: StartFleet
) -> None:
    """At most once for each of two paths: a camera may ask for it again after a redirect."""
    number = itertools.count()

    def answer(request: bytes) -> bytes:
        if b"Authorization" not in request:
            return ASKS
        return refusal % next(number) if b"%d" in refusal else refusal

    server = Server(answer)
    attempt = await server.shot(await fleet([simulated()]))
    assert not attempt.ok
    assert server.logins == logins


async def test_a_login_does_not_go_to_another_port(fleet: StartFleet) -> None:
    """Behind one address, another port may be another device, which counts it as wrong."""
    house, other = await fleet([simulated()]), Server(lambda _: ASKS)
    listening = await asyncio.start_server(other.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    redirect = f"HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n"
    attempt = await Server(lambda _: redirect.encode()).shot(house)
    listening.close()
    assert attempt.result is Result.ERROR
    assert f"it redirects to http, port {port}: " in str(attempt.error)
    assert other.asked == []


async def test_what_a_camera_says_of_the_login_is_not_told(fleet: StartFleet) -> None:
    basic = base64.b64encode(b"viewer:s3cret words").decode()

    def answer(request: bytes) -> bytes:
        if b"Authorization" not in request:
            return ASKS
        text = f"{'x' * 80} viewer:s3cret words, {basic}".encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)

    attempt = await Server(answer).shot(await fleet([simulated()]))
    assert "it answered text: xxx" in str(attempt.error)
    for part in ("s3c", "words", basic[:12], basic[-12:]):
        assert part not in str(attempt.error)


async def test_http_and_https_are_two_servers() -> None:
    plain, secured = Address.of("http://cam/s"), Address.of("https://cam/s")
    assert plain.name == secured.name
    assert plain.server != secured.server


@pytest.mark.parametrize("habit", ["open-end", "silent", "busy-once"])
async def test_the_connection_is_closed_when_the_session_ends(
    habit: str, fleet: StartFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then the lease of the web server may end; also after the deadline."""
    opened: list[HttpConnection] = []
    real = HttpConnection.connection_made

    def note(self: HttpConnection, transport: asyncio.BaseTransport) -> None:
        opened.append(self)
        real(self, transport)

    # A transport that takes its time to close
    abort = PacedTransport.abort
    monkeypatch.setattr(
        PacedTransport,
        "abort",
        lambda transport: asyncio.get_running_loop().call_later(0.1, abort, transport),
    )
    monkeypatch.setattr(HttpConnection, "connection_made", note)
    house = await fleet([simulated(habit)])
    url, limit_s = house.fleet.snapshot_url("cam"), 0.5 if habit == "silent" else 30.0
    deadline = asyncio.get_running_loop().time() + limit_s
    session = house.capture.http.session(camera("cam"), url, deadline)
    with contextlib.suppress(CameraError):
        async with session:
            await session.keyframe()
    assert len(opened) == (2 if habit == "busy-once" else 1)
    assert all(connection._closed.done() for connection in opened)
