"""go2rtc beside polling.

A stand-in with go2rtc's API and a real RTSP restream, one-session cameras, their own record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from go2rtc_beside import Go2rtc
from house import StartFleet, psnr, rgb
from simplejpeg import decode_jpeg
from support import free_port

from camserver.go2rtc.api import Go2rtcApi, Go2rtcDown, _view
from camserver.simulator.camera import SimulatedCamera

LOGIN = {"username": "viewer", "password": "p@:/#%? ü"}


StartBeside = Callable[..., Awaitable[tuple[Desk, Go2rtc]]]


@pytest.fixture
async def beside_go2rtc(tmp_path: Path, fleet: StartFleet) -> AsyncIterator[StartBeside]:
    """Starts a camera, a daemon, and a stand-in for go2rtc beside it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *, mode: str = "when-live", more: str = "", streams: bool = True, **defaults: Any
        ) -> tuple[Desk, Go2rtc]:
            house = await fleet([SimulatedCamera("cam", "Gate", gop=3, **LOGIN)])
            desk, go2rtc = Desk(house, tmp_path), Go2rtc()
            desk.more = f'{go2rtc.table}mode = "{mode}"\n{more}'
            desk.write(**({"interval": "300ms", "lease_wait": "300ms", "go2rtc": "cam"} | defaults))
            url = house.fleet.url("cam").replace("//", "//viewer:p%40%3A%2F%23%25%3F%20%C3%BC@")
            await stack.enter_async_context(go2rtc.run(*([f"cam={url}"] if streams else ())))
            await stack.enter_async_context(desk.daemon())
            return desk, go2rtc

        yield start


def source(desk: Desk, wanted: str) -> Callable[[], bool]:
    """Whether a picture that was taken after this call came from there."""
    before = desk.facts().get("captured_at")
    return lambda: desk.facts().get("source") == wanted and desk.facts()["captured_at"] != before


async def watch(desk: Desk, go2rtc: Go2rtc) -> Any:
    """A viewer, as soon as no poll is in the way.

    A camera of one session refuses go2rtc while one is.

    Keep it: when the last reference goes, its generator is closed, and nobody watches any more.
    """
    for _ in range(200):
        viewer = go2rtc.viewer()
        try:
            await viewer.__aenter__()
        except AssertionError:
            continue
        return viewer
    raise AssertionError("never")


async def test_pictures_go_on_through_go2rtc_while_somebody_watches(
    tmp_path: Path, beside_go2rtc: StartBeside
) -> None:
    """The live holder is counted, the camera sees one session, pictures are true.

    Afterwards the camera is polled again.
    """
    desk, go2rtc = await beside_go2rtc()
    simulated = desk.house.fleet.cameras["cam"]
    await desk.until(source(desk, "rtsp"))
    viewer = await watch(desk, go2rtc)
    await desk.until(source(desk, "go2rtc"))
    opens = simulated.record.opens
    for _ in range(3):
        await desk.until(source(desk, "go2rtc"))
    assert simulated.record.opens == opens
    held = await desk.until(desk.held)
    assert [(h["holder"], h["label"]) for h in held] == [("live", "go2rtc cam")]
    shown = decode_jpeg((desk.output / "cam/latest.jpg").read_bytes())
    assert max(psnr(shown, rgb("h264", sent)) for sent in simulated.keyframes) > 35
    # Still live, but nothing comes out of it: the camera is busy, not broken
    await go2rtc.says("mute")
    await desk.until(lambda: desk.facts()["attempt"]["result"] == "busy")
    assert desk.facts()["consecutive_failures"] == 0
    assert "held by live go2rtc cam" in desk.facts()["attempt"]["error"]
    assert simulated.record.opens == opens
    await go2rtc.says("ok")
    await desk.until(source(desk, "go2rtc"))
    await viewer.__aexit__(None, None, None)
    await desk.until(source(desk, "rtsp"))
    assert LOGIN["password"] not in desk.log.read_text()
    assert "p%40" not in desk.log.read_text()


@pytest.mark.parametrize("trouble", ["hang", "garbage", "empty", "gone"])
async def test_whatever_go2rtc_does_polling_goes_on(
    tmp_path: Path, trouble: str, beside_go2rtc: StartBeside
) -> None:
    """Its API hangs, answers nonsense, answers nothing, or it is gone.

    The camera itself is asked, and it is said.
    """
    desk, go2rtc = await beside_go2rtc(mode="always" if trouble == "empty" else "when-live")
    await desk.until(source(desk, "go2rtc" if trouble == "empty" else "rtsp"))
    if trouble == "gone":
        desk.more = desk.more.replace(str(go2rtc.api), str(free_port()))
        desk.write(interval="300ms", go2rtc="cam")
        await asyncio.to_thread(desk.client.post, "/v1/reload")
    else:
        await go2rtc.says(trouble)
    await desk.until(lambda: "go2rtc.down" in desk.log.read_text())
    for _ in range(3):
        await desk.until(source(desk, "rtsp"))
    if trouble != "gone":
        await go2rtc.says("ok")
        await desk.until(lambda: "go2rtc.up" in desk.log.read_text())


async def test_a_go2rtc_that_dies_frees_what_it_had(tmp_path: Path, fleet: StartFleet) -> None:
    """Its process is gone, so are its sessions.

    The camera is polled again after the long cool-down.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=3, unclean_cooldown_s=0.8)])
    desk, go2rtc = Desk(house, tmp_path), Go2rtc()
    desk.more = go2rtc.table
    desk.write(interval="300ms", lease_wait="300ms", go2rtc="cam", unclean_cooldown="1s")
    async with desk.daemon():
        async with go2rtc.run(f"cam={house.fleet.url('cam')}") as process:
            viewer = await watch(desk, go2rtc)
            await desk.until(source(desk, "go2rtc"))
            process.kill()
        await desk.until(source(desk, "rtsp"))
        await viewer.__aexit__(None, None, None)
    record = house.fleet.cameras["cam"].record
    assert record.early == 0


async def test_always_through_go2rtc_is_under_a_lease_of_ours(
    tmp_path: Path, beside_go2rtc: StartBeside
) -> None:
    """go2rtc opens the session for us, so a lease covers it until go2rtc has closed it.

    Never two, none beside a holder.
    """
    desk, _ = await beside_go2rtc(mode="always")
    record = desk.house.fleet.cameras["cam"].record
    for _ in range(4):
        await desk.until(source(desk, "go2rtc"))
    assert record.sessions_max == 1
    log = desk.log.read_text()
    assert "holder='poller cam'" in log
    assert "live go2rtc" not in log
    with desk.client.lease("cam", wait_s=30):
        # The wait above has blocked the loop of the camera, so it may not have seen the end yet
        opens = (await desk.house.seen("cam")).opens
        await desk.until(lambda: desk.facts()["attempt"]["result"] == "busy")
        assert record.opens == opens


async def test_cameras_are_registered_and_removed_with_their_password_nowhere_else(
    tmp_path: Path, beside_go2rtc: StartBeside
) -> None:
    """What go2rtc has already stays as it is; what we gave it goes with the camera."""
    desk, go2rtc = await beside_go2rtc(more="register = true\n", streams=False)
    api = Go2rtcApi(f"http://127.0.0.1:{go2rtc.api}", "rtsp://127.0.0.1:1", None, None)

    async def has(name: str, wanted: bool) -> None:
        while (name in await api.streams()) != wanted:
            await asyncio.sleep(0.02)

    async with asyncio.timeout(30):
        await has("cam", True)
        viewer = await watch(desk, go2rtc)  # it has the login: pictures come
        await viewer.__aexit__(None, None, None)
        desk.write(interval="300ms", go2rtc="own")
        await api.register(
            "own", "exec:camserver lease cam -- ffmpeg -i rtsp://127.0.0.1:1/x -f rtsp {output}"
        )
        await asyncio.to_thread(desk.client.post, "/v1/reload")
        await has("cam", False)
        desk.write(interval="300ms")
        await asyncio.to_thread(desk.client.post, "/v1/reload")
        await desk.until(lambda: "inventory.loaded" in desk.log.read_text())
        await desk.until(source(desk, "rtsp"))
        assert (await api.streams())["own"].sources[0].startswith("exec:")
    await api.close()
    assert "p%40" not in desk.log.read_text()
    assert LOGIN["password"] not in desk.log.read_text()


def test_what_producers_mean() -> None:
    """Shapes seen from go2rtc 1.9.

    Idle, live, live through a wrapped command, ffmpeg on another of its own streams.
    """
    idle = {"url": "rtsp://***@10.0.0.5/stream1"}
    live = {
        "id": 3,
        "format_name": "rtsp",
        "protocol": "rtsp+tcp",
        "remote_addr": "10.0.0.5:554",
        **idle,
        "bytes_recv": 9,
    }
    leased = {
        **live,
        "remote_addr": "127.0.0.1:41634 forwarded 10.0.0.5",
        "source": "exec:camserver lease x -- ffmpeg",
    }
    own = {**live, "remote_addr": "127.0.0.1:8554", "source": "ffmpeg:gate#video=h264"}
    shapes = [
        ([idle], (False, 0)),
        ([live], (True, 1)),
        ([leased], (True, 0)),
        ([own, live], (True, 1)),
        ([own], (True, 0)),
    ]
    for producers, expected in shapes:
        view = _view({"producers": producers, "consumers": None}, 8554)
        assert (view.live, view.sessions) == expected, producers
    assert _view({"producers": [leased]}, 8554).sources[0].startswith("exec:")
    assert _view({"producers": [idle]}, 8554).sources == ("rtsp://10.0.0.5/stream1",)
    assert not _view(None, 8554).live


async def test_an_api_that_is_none(tmp_path: Path) -> None:
    """Nonsense becomes our own error; refused connections say that its sessions are gone."""
    with pytest.raises(Go2rtcDown, match="refused") as down:
        await (
            gone := Go2rtcApi(
                f"http://127.0.0.1:{free_port()}", "rtsp://127.0.0.1:1", "u", "secret"
            )
        ).streams()
    assert down.value.gone
    await gone.close()

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        writer.close()

    ok = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    answers = [
        b"\0\1\2",
        b"",
        ok,
        ok + b"[]",
        ok + b'{"a": 3}',
        ok + b'{"a": {"producers": 7}}',
        ok + b"[" * 100_000,
        b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
    ]
    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    api = Go2rtcApi(
        f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        "rtsp://127.0.0.1:1",
        None,
        None,
    )
    while answers:
        with pytest.raises(Go2rtcDown) as down:
            await api.streams()
        assert not down.value.gone
    await api.close()
    server.close()
