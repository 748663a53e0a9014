"""Programs under `camserver lease` on any host of a fleet: the cameras never see one too many."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from fleet_hosts import FleetHosts, HostProcess, fleet_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetHosts]:
    async with fleet_of(tmp_path) as fleet:
        yield fleet


async def start(fleet: FleetHosts, *names: str) -> None:
    for name in names:
        await (await fleet.host(name)).start()
    await fleet.until_shared()
    await fleet.until_polled()


async def camera_of(fleet: FleetHosts, host: str) -> str:
    """A camera whose device a host owns."""
    cameras = await fleet.get(fleet.hosts[host].client, "/v1/cameras")
    return next(str(camera["id"]) for camera in cameras if camera["host"] == host)


@asynccontextmanager
async def program(fleet: FleetHosts, host: HostProcess, camera: str) -> AsyncIterator[Process]:
    """Let ffmpeg run on a host, with a session of a camera under a lease."""
    before = len(await asyncio.to_thread(films, fleet))
    wrapper = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "camserver", "lease", "--socket", str(host.socket)),
        *("--wait", "60", "--label", "film", camera, "--"),
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp"),
        *("-i", fleet.house.fleet.url(camera), "-f", "null", "-"),
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        await fleet.until(lambda: len(films(fleet)) > before)
        await fleet.until(lambda: fleet.house.fleet.cameras[camera].record.sessions_now)
        yield wrapper
    finally:
        if wrapper.returncode is None:
            os.killpg(wrapper.pid, signal.SIGKILL)
            await wrapper.wait()


def films(fleet: FleetHosts) -> list[str]:
    """The programs that have a session. Any host knows them, from the owners of the devices."""
    host = next(h for h in fleet.hosts.values() if h.process is not None and h.view())
    return [
        re.sub(r" \(pid \d+\)", "", each["label"])
        for device in host.client.get("/v1/leases")
        for each in device["held"]
        if each["holder"] == "live"
    ]


async def test_a_program_has_a_session_of_a_camera_of_another_host(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b")
    camera = await camera_of(fleet, "a")
    async with program(fleet, fleet.hosts["b"], camera) as ffmpeg:
        assert await asyncio.to_thread(films, fleet) == ["film on host b"]
        ffmpeg.terminate()
        assert await ffmpeg.wait() != 0
    await fleet.until_polled()
    assert not await asyncio.to_thread(films, fleet)
    assert fleet.verdict() == {}


async def test_a_program_lives_on_when_the_owner_of_its_camera_dies(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b")
    camera = await camera_of(fleet, "a")
    async with program(fleet, fleet.hosts["b"], camera) as ffmpeg:
        fleet.hosts["a"].signal(signal.SIGKILL)
        await fleet.hosts["a"].ended()
        await fleet.until(lambda: fleet.hosts["b"].owned == len(fleet.opened))
        assert await asyncio.to_thread(films, fleet) == ["film on host b"]
        assert ffmpeg.returncode is None
        ffmpeg.terminate()
        await ffmpeg.wait()
    await fleet.until_polled()
    assert fleet.verdict() == {}


async def test_programs_live_on_when_their_cameras_get_another_owner(fleet: FleetHosts) -> None:
    await start(fleet, "a")
    a, cameras = fleet.hosts["a"], list(fleet.opened)
    async with AsyncExitStack() as stack:
        for camera in cameras:
            await stack.enter_async_context(program(fleet, a, camera))
        await (await fleet.host("b")).start()
        await fleet.until_shared()
        client = fleet.hosts["b"].client
        owners = {c["id"]: c["host"] for c in await fleet.get(client, "/v1/cameras")}
        assert set(owners.values()) == {"a", "b"}
        # More devices may be on their way to b: no host shows a device that is on its way
        await fleet.until(lambda: len(films(fleet)) == len(cameras))
        seen = await asyncio.to_thread(films, fleet)
        assert {"film on host a", "film"} >= set(seen), "some have moved"
        for camera in cameras:
            assert fleet.house.fleet.cameras[camera].record.sessions_now == 1
    await fleet.until_polled()
    assert fleet.verdict() == {}


@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_a_program_ends_when_its_host_is_cut_from_the_store(
    fleet: FleetHosts, direction: str
) -> None:
    await start(fleet, "a", "b")
    camera = await camera_of(fleet, "a")
    async with program(fleet, fleet.hosts["b"], camera) as ffmpeg:
        for link in fleet.hosts["b"].links:
            link.cut(direction)
        await ffmpeg.wait()
        assert ffmpeg.stderr is not None
        assert b"may not have sessions" in await ffmpeg.stderr.read()
        await fleet.until_polled()
        for link in fleet.hosts["b"].links:
            link.heal()
        await fleet.until_shared()
    await fleet.until_polled()
    assert fleet.verdict() == {}


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_the_kernel_ends_a_program_whose_daemon_is_killed(
    fleet: FleetHosts, is_stopped: bool
) -> None:
    """Nobody renews its right. It may even be stopped, and cannot end its session itself."""
    await start(fleet, "a", "b")
    camera = await camera_of(fleet, "a")
    async with program(fleet, fleet.hosts["b"], camera) as ffmpeg:
        if is_stopped:
            os.killpg(ffmpeg.pid, signal.SIGSTOP)
        fleet.hosts["b"].signal(signal.SIGKILL)
        await fleet.hosts["b"].ended()
        await fleet.until(lambda: not fleet.house.fleet.cameras[camera].record.sessions_now)
        await fleet.until(lambda: fleet.hosts["a"].owned == len(fleet.opened))
        await fleet.until_polled()
        if is_stopped:
            os.killpg(ffmpeg.pid, signal.SIGCONT)
        assert await ffmpeg.wait() in (-signal.SIGKILL, 128 + signal.SIGKILL, 255)
    assert fleet.verdict() == {}
