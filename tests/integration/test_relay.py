"""libav reaches the camera of the inventory and nothing else, whatever the camera answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from house import StartFleet, fetch
from support import camera, free_port

from camserver.capture.libav import LibavEngine
from camserver.capture.relay import CameraRelay
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.model import Result, SessionEnd
from camserver.rtsp.login import LoginCache
from camserver.simulator.camera import SimulatedCamera
from camserver.workers import landlock
from camserver.workers.process import Reply
from camserver.workers.template import WorkerTemplate

LOGIN = {"username": "viewer", "password": "s3cret-zebra"}


class Trap:
    """A server that notes all that it gets, and answers what it is told."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer = answer
        self.heard = ""
        self.connections = self.open_now = 0

    async def __aenter__(self) -> Trap:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        while data := await reader.read(4096):
            self.heard += data.decode()
            number = data.decode().split("CSeq: ")[-1].split()[0] if b"CSeq" in data else "0"
            writer.write(self.answer(number).encode())
        self.open_now -= 1
        writer.close()


def relay_to(port: int) -> CameraRelay:
    cache = LoginCache("", "")
    url = f"rtsp://127.0.0.1:{port}/live"
    return CameraRelay(url, None, cache, host="127.0.0.9", port=free_port())


async def connected_to(relay: CameraRelay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(relay.url)
    return await asyncio.open_connection(parts.hostname, parts.port)


@pytest.fixture
async def engine() -> AsyncIterator[LibavEngine]:
    template = WorkerTemplate()
    engine = LibavEngine(1, template)
    yield engine
    await engine.close()
    await template.close()


async def attempt(
    target: Camera, engine: LibavEngine, url: str, limit_s: float = 8.0
) -> tuple[CameraError, SessionEnd]:
    ends: list[SessionEnd] = []
    with pytest.raises(CameraError) as caught:
        await fetch(engine, target, url, time.monotonic() + limit_s, ends)
    return caught.value, ends[0]


@pytest.mark.parametrize(
    ("status", "is_named"),
    [
        ("RTSP/1.0 302 Moved", True),
        ("RTSP/1.0\t305", True),
        ("RTSP/1.0   0307 x", False),
        ("garbage\r\nRTSP/9 +301", False),
        ("RTSP/" + "1" * 70 + " 302", True),
        ("RTSP/1.0 4294967598", False),
        ("RTSP/1.0 " + " " * 70 + "302", True),
    ],
)
async def test_a_redirect_is_not_followed(status: str, is_named: bool, engine: LibavEngine) -> None:
    """Neither in an odd form that libav takes. The other host gets no connection, no password."""
    async with Trap(lambda number: f"RTSP/1.0 401 x\r\nCSeq: {number}\r\n\r\n") as other:
        # The port that the kernel would let libav connect to
        moved_to = f"rtsp://127.0.0.77:{engine.addresses.port}/x"
        there = await asyncio.start_server(other._serve, "127.0.0.77", engine.addresses.port)

        def moved(number: str) -> str:
            return f"{status}\r\nCSeq: {number}\r\nLocation: {moved_to}\r\n\r\n"

        async with Trap(moved) as first:
            target = camera("cam", engine="libav", **LOGIN)
            url = f"rtsp://127.0.0.1:{first.port}/a?b=c"
            error, end = await attempt(target, engine, url, limit_s=2.0)
        there.close()
        assert error.end is end is SessionEnd.NONE  # no session was set up
        if is_named:
            assert error.result is Result.ERROR
            assert "redirects" in str(error)
        assert other.connections == 0
        assert "zebra" not in first.heard


async def test_libav_is_on_the_loopback_and_its_password_is_not_sent_unasked(
    engine: LibavEngine,
) -> None:
    """The camera gets the path and the query, and the login only after its challenge."""
    async with Trap(
        lambda number: f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nPublic: DESCRIBE\r\n\r\n"
    ) as trap:
        target = camera("cam", engine="libav", **LOGIN)
        await attempt(target, engine, f"rtsp://127.0.0.1:{trap.port}/live?channel=1")
        assert "/live?channel=1 RTSP/1.0" in trap.heard
        assert "zebra" not in trap.heard
        assert "Authorization" not in trap.heard


@pytest.mark.parametrize("what", ["refused", "name"])
async def test_why_the_camera_cannot_be_reached_is_said(what: str, engine: LibavEngine) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    url = f"rtsp://127.0.0.1:{port}/" if what == "refused" else "rtsp://no-such-host.invalid/"
    error, end = await attempt(camera("cam", engine="libav"), engine, url)
    assert error.result is Result.UNREACHABLE
    assert end is SessionEnd.NONE
    assert ("connection refused" if what == "refused" else "connection failed") in str(error)


async def test_the_session_is_seen_closed(fleet: StartFleet) -> None:
    """TEARDOWN reaches the camera, and no session is left when the attempt is over."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, **LOGIN)])
    for _ in range(3):
        result = await house.take("cam", engine="libav")
        assert result.ok, result.error
        assert house.fleet.cameras["cam"].record.sessions_now == 0
    record = await house.seen("cam")
    assert (record.ends_clean, record.ends_unclean) == (3, 0)


async def test_libav_knows_no_password(fleet: StartFleet) -> None:
    """The login is added on the way, by the rules of our own client: no wrong login is counted."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, **LOGIN)])
    orders: list[str] = []
    run = house.sessions.run_in_slot

    async def noted(job: str, data: dict[str, Any], **options: Any) -> Reply:
        orders.append(json.dumps(data))
        return await run(job, data, **options)

    house.sessions.run_in_slot = noted  # type: ignore[method-assign,assignment]
    for _ in range(3):
        result = await house.take("cam", engine="libav")
        assert result.ok, result.error
    assert len(orders) == 3
    assert not any("zebra" in order or "viewer" in order for order in orders)
    record = await house.seen("cam")
    assert (record.wrong_logins, record.ends_clean, record.ends_unclean) == (0, 3, 0)


async def test_a_wrong_password_is_sent_once(fleet: StartFleet) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, **LOGIN)])
    result = await house.take("cam", engine="libav", password="other")
    assert result.result is Result.AUTH
    assert "wrong username or password (401 to DESCRIBE, login digest MD5)" in str(result.error)
    assert (await house.seen("cam")).wrong_logins == 1


async def test_no_password_for_a_camera_that_wants_one(fleet: StartFleet) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, **LOGIN)])
    result = await house.take("cam", engine="libav", username="", password="")
    assert "it asks for a login: give username and password" in str(result.error)


async def test_the_camera_sees_its_own_address(engine: LibavEngine) -> None:
    """Some check the host of the URL. The digest is made for the URL that is sent."""
    async with Trap(
        lambda number: (
            f'RTSP/1.0 401 x\r\nCSeq: {number}\r\nWWW-Authenticate: Digest realm="r", nonce="n"'
            "\r\n\r\n"
        )
    ) as trap:
        url = f"rtsp://127.0.0.1:{trap.port}/live?channel=1"
        error, _ = await attempt(camera("cam", engine="libav", **LOGIN), engine, url)
    assert error.result is Result.AUTH
    requests = [line for line in trap.heard.split("\r\n") if line.endswith("RTSP/1.0")]
    assert requests
    assert all(url in line for line in requests)
    assert f'uri="{url}"' in trap.heard
    numbers = [line for line in trap.heard.split("\r\n") if line.startswith("CSeq: ")]
    assert len(numbers) == len(set(numbers))


NEEDS_LANDLOCK = pytest.mark.skipif(
    landlock.version() < landlock.NETWORK_VERSION, reason="needs Landlock 4 (Linux 6.7)"
)


@NEEDS_LANDLOCK
async def test_the_kernel_lets_libav_reach_the_relay_only(engine: LibavEngine) -> None:
    """An order for another address, as a broken libav would make it."""
    engine.pool.port = engine.addresses.port
    async with Trap(lambda _: "") as other:
        order = {
            "url": f"rtsp://127.0.0.1:{other.port}/",
            "transport": "tcp",
            "deadline": time.monotonic() + 5,
            "probe": "small",
        }
        with pytest.raises(CameraError, match="Permission denied"):
            await engine.pool.run("fetch", order, deadline=time.monotonic() + 8)
    assert other.connections == 0


@NEEDS_LANDLOCK
def test_what_a_restricted_process_may_do() -> None:
    """Open descriptors stay usable, and UDP. All other ways out are refused."""
    done = subprocess.run(
        [sys.executable, "-c", RESTRICTED], check=True, capture_output=True, text=True
    )
    said = done.stdout.split()
    assert said[:4] == ["connected", "written", "udp", "signal"]
    assert said[4:] == ["PermissionError"] * 10


RESTRICTED = """
import encodings.idna, os, signal, socket, tempfile, threading
from camserver.workers.landlock import restrict
from camserver.workers.restraint import restrain
allowed, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
scratch = tempfile.TemporaryFile()
port = allowed.getsockname()[1]
assert restrain() == ""
assert restrict(port) == ""
socket.create_connection(("127.0.0.1", port))
print("connected")
scratch.write(b"x")
print("written")
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
print("udp")
os.kill(os.getpid(), 0)
signal.pthread_kill(threading.get_ident(), 0)
print("signal")
tcp = socket.socket()
for refused in (
    lambda: socket.create_connection(other.getsockname()),
    lambda: tcp.sendto(b"x", 0x20000000, other.getsockname()),
    lambda: tcp.sendmsg([b"x"], (), 0x20000000, other.getsockname()),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262),
    lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    lambda: os.kill(os.getppid(), 0),
    lambda: open("/etc/hostname"),
    lambda: socket.create_server(("127.0.0.1", 0)),
    lambda: os.execv("/bin/true", ["true"]),
):
    try:
        refused()
        print("allowed")
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("url", "end"),
    [
        ("RTSP://Cam.local/Live?channel=1&a=%20", "/Live?channel=1&a=%20"),
        ("rtsp://[::1]:8554", ""),
        ("rtsps://cam//x/", "//x/"),
    ],
)
def test_the_path_and_the_query_stay_as_they_are(url: str, end: str) -> None:
    relay = CameraRelay(url, None, LoginCache("", ""), host="127.0.0.9", port=1234)
    assert relay.url.startswith("rtsp://127.0.0.9:1234/")
    assert relay.url == relay._local + end
    assert "cam" not in relay.url.lower()


async def test_another_user_of_this_machine_reaches_no_camera() -> None:
    """Who does not know the secret gets nothing, and does not keep libav out."""
    async with (
        Trap(lambda number: f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n\r\n") as trap,
        relay_to(trap.port) as relay,
    ):
        parts = urlsplit(relay.url)
        foreign, foreign_writer = await connected_to(relay)
        foreign_writer.write(
            f"OPTIONS rtsp://{parts.netloc}/live RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode()
        )
        silent, silent_writer = await connected_to(relay)
        assert await foreign.read() == b""
        assert trap.connections == 0
        reader, writer = await connected_to(relay)
        writer.write(f"OPTIONS {relay.url} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"RTSP/1.0 200")
        assert trap.connections == 1
        assert f"OPTIONS rtsp://127.0.0.1:{trap.port}/live RTSP/1.0" in trap.heard
    assert await silent.read() == b""
    for each in (foreign_writer, silent_writer, writer):
        each.close()


@pytest.mark.parametrize("turns", range(8))
async def test_nothing_connects_after_the_block(turns: int) -> None:
    """However early the block is left after libav has connected."""
    async with Trap(lambda _: "") as trap:
        async with relay_to(trap.port) as relay:
            _, writer = await connected_to(relay)
            writer.write(f"OPTIONS {relay.url} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
            for _ in range(turns):
                await asyncio.sleep(0)
        assert not relay._tasks
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert trap.open_now == 0
        writer.close()


async def test_leaving_the_relay_closes_what_hangs() -> None:
    """A camera that neither reads nor closes costs the time limit of the relay, no more."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with relay_to(port) as relay:
        reader, writer = await connected_to(relay)
        writer.write(f"OPTIONS {relay.url} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
        await writer.drain()
    assert await reader.read() == b""
    writer.close()
    server.close()
    await server.wait_closed()


async def test_leaving_the_relay_ends_a_connect_that_hangs() -> None:
    """A host that drops what it gets: the kernel would try for minutes."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        queued = [socket.socket() for _ in range(4)]
        for one in queued:
            one.setblocking(False)
            one.connect_ex(address)
        async with relay_to(address[1]) as relay:
            reader, writer = await connected_to(relay)
            writer.write(f"OPTIONS {relay.url} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
            while relay._session is None:
                await asyncio.sleep(0)
        assert not relay._tasks
        assert await reader.read() == b""
        writer.close()
        for one in queued:
            one.close()
