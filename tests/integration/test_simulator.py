"""The daemon against simulated cameras, judged by what the cameras saw; and the simulator by a third party's client."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from PIL import Image
from support import camera

from camserver.capture.decoder import Decoder
from camserver.capture.http import HttpSource
from camserver.capture.isolation import WorkerPool
from camserver.capture.libav import LibavEngine
from camserver.leases import Budget, Holder, RtspManager
from camserver.records import Attempt, Result
from camserver.simulator.camera import Fault, Record, SimulatedCamera
from camserver.simulator.fleet import Fleet
from camserver.snapshots import SnapshotService

HOLDER = Holder("poller")


class House:
    """A fleet, and the service that takes pictures of it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.manager = RtspManager()
        self.sessions, self.decoders = WorkerPool("session", 4), WorkerPool("decoder", 1)
        self.service = SnapshotService(self.manager, LibavEngine(self.sessions), HttpSource(), Decoder(self.decoders, 95))

    async def take(self, camera_id: str, **keys: Any) -> Attempt:
        simulated = self.fleet.cameras[camera_id]
        keys = {"url": self.fleet.url(camera_id), "username": simulated.username, "password": simulated.password,
                "timeout_s": 5.0} | keys
        return await self.service.take(camera(camera_id, **keys), HOLDER)

    async def seen(self, camera_id: str) -> Record:
        """The camera's record once it knows that nobody is connected."""
        record = self.fleet.cameras[camera_id].record
        async with asyncio.timeout(20):
            while record.sessions_now:
                await asyncio.sleep(0.01)
        return record


def with_house(cameras: list[SimulatedCamera], work: Callable[[House], Awaitable[None]], **options: Any) -> None:
    async def inside() -> None:
        fleet = Fleet(cameras, **options)
        await fleet.start()
        house = House(fleet)
        house.manager.configure({c.id: Budget(c.max_sessions, 0.0, 0.0) for c in cameras})
        try:
            await work(house)
        finally:
            await house.sessions.close()
            await house.decoders.close()
            await fleet.stop()

    asyncio.run(inside())


def psnr_to_source(attempt: Attempt, source: SimulatedCamera) -> float:
    assert attempt.snapshot is not None, attempt.error
    shown = simplejpeg.decode_jpeg(attempt.snapshot.still.jpeg)
    if source.codec == "mjpeg":
        sent = simplejpeg.decode_jpeg(source.last_keyframe)
    else:
        decoder = av.CodecContext.create("hevc" if source.codec == "h265" else "h264", "r")
        frame = [*decoder.decode(av.Packet(source.last_keyframe)), *decoder.decode(None)][0]
        sent = frame.to_ndarray(format="rgb24", src_colorspace="ITU709", src_color_range="MPEG", dst_color_range="JPEG")
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((shown.astype(float) - sent) ** 2))))


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("codec", ["h264", "h265", "mjpeg"])
def test_pictures_equal_their_source(codec: str, transport: str) -> None:
    """Every codec, both transports, digest and basic: true colours, a clean end, one session."""
    async def work(house: House) -> None:
        for auth in ("digest", "basic"):
            simulated = house.fleet.cameras["cam"]
            simulated.auth = auth
            attempt = await house.take("cam", transport=transport)
            assert psnr_to_source(attempt, simulated) > 35
        seen = await house.seen("cam")
        assert (seen.opens, seen.ends_clean, seen.sessions_max) == (2, 2, 1)

    with_house([SimulatedCamera("cam", "Gate", codec, username="viewer", password="p@:/#%? ü")], work)


@pytest.mark.parametrize(("fault", "result"), [
    ("refuse", Result.UNREACHABLE), ("deaf", Result.TIMEOUT), ("stall:DESCRIBE", Result.TIMEOUT),
    ("stall:SETUP", Result.TIMEOUT), ("stall:PLAY", Result.TIMEOUT), ("silent", Result.TIMEOUT),
    ("no-keyframe", Result.NO_KEYFRAME), ("damage", Result.BAD_PICTURE),
    ("status:401", Result.AUTH), ("status:404", Result.NOT_FOUND), ("status:503", Result.FULL),
    ("status:453:SETUP", Result.FULL), ("status:403:PLAY", Result.FULL),
])
def test_each_fault_has_its_word_and_the_camera_recovers(fault: str, result: Result) -> None:
    """Whatever a camera does, the attempt ends in time with the right word, nothing stays open, the next one works."""
    async def work(house: House) -> None:
        simulated = house.fleet.cameras["cam"]
        attempt = await house.take("cam", timeout_s=2.0)
        assert attempt.result is result, attempt.error
        await house.seen("cam")
        if fault != "refuse":
            simulated.fault = Fault()
            assert (await house.take("cam")).ok
            assert (await house.seen("cam")).sessions_max == 1

    with_house([SimulatedCamera("cam", "Gate", fault=Fault.parse(fault))], work)


def test_a_full_camera_is_full_and_not_wrong() -> None:
    """While somebody else watches, 453 means full; nothing more is opened than was asked for."""
    async def work(house: House) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.fleet.cameras["cam"].port)
        writer.write(b"SETUP rtsp://x/stream1/trackID=0 RTSP/1.0\r\nCSeq: 1\r\n"
                     b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        attempt = await house.take("cam")
        assert (attempt.result, house.fleet.cameras["cam"].record.refused_full) == (Result.FULL, 1)
        writer.close()
        await writer.wait_closed()
        await house.seen("cam")
        assert (await house.take("cam")).ok

    with_house([SimulatedCamera("cam", "Gate")], work)


def test_a_killed_session_worker_frees_the_lease_only_when_the_camera_is_free() -> None:
    """Rule one, from the camera's side: kills and cancellations in between, never two sessions at once."""
    async def work(house: House) -> None:
        simulated = house.fleet.cameras["cam"]
        for _ in range(3):
            simulated.fault = Fault("silent")
            opens = simulated.record.opens
            task = asyncio.create_task(house.take("cam", timeout_s=30.0))
            while simulated.record.opens == opens:
                await asyncio.sleep(0.01)
            os.kill(house.sessions.pids[0], signal.SIGKILL)
            assert (await task).result is Result.CRASHED
            opens = simulated.record.opens
            task = asyncio.create_task(house.take("cam", timeout_s=30.0))
            while simulated.record.opens == opens:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert house.manager.statistics()[0].held == ()
            simulated.fault = Fault()
            assert (await house.take("cam")).ok
        assert (await house.seen("cam")).sessions_max == 1

    with_house([SimulatedCamera("cam", "Gate")], work)


def test_two_cameras_of_one_device_share_its_session() -> None:
    """Ten pictures at once of a device that gives one session: all are taken, one after the other."""
    async def work(house: House) -> None:
        attempts = await asyncio.gather(*(house.take("cam", lease_wait_s=30.0) for _ in range(10)))
        assert all(a.ok for a in attempts), [a.error for a in attempts]
        seen = await house.seen("cam")
        assert (seen.sessions_max, seen.ends_clean, seen.ends_unclean) == (1, 10, 0)

    with_house([SimulatedCamera("cam", "Gate", gop=5)], work)


def test_a_reboot_costs_what_it_lasts() -> None:
    async def work(house: House) -> None:
        assert (await house.take("cam")).ok
        rebooting = asyncio.create_task(house.fleet.reboot("cam", 0.5))
        await asyncio.sleep(0)
        assert (await house.take("cam")).result is Result.UNREACHABLE
        await rebooting
        assert (await house.take("cam")).ok

    with_house([SimulatedCamera("cam", "Gate")], work)


def test_width_scales_down_and_exif_free_stills_decode() -> None:
    async def work(house: House) -> None:
        for camera_id in ("film", "stills"):
            attempt = await house.take(camera_id, width=320)
            assert attempt.snapshot is not None, attempt.error
            with Image.open(io.BytesIO(attempt.snapshot.still.jpeg)) as image:
                assert image.size == (320, 180)

    with_house([SimulatedCamera("film", "Gate"), SimulatedCamera("stills", "Yard", "mjpeg")], work)


def test_ffmpeg_reads_the_simulator() -> None:
    """A third party's client plays every codec over both transports."""
    async def work(house: House) -> None:
        for camera_id in house.fleet.cameras:
            for transport in ("tcp", "udp"):
                process = await asyncio.create_subprocess_exec(
                    "ffmpeg", "-loglevel", "error", "-rtsp_transport", transport, "-i", house.fleet.url(camera_id),
                    "-frames:v", "3", "-f", "null", "-", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                assert await process.wait() == 0
            seen = await house.seen(camera_id)
            assert (seen.ends_clean, seen.ends_unclean) == (2, 0)

    with_house([SimulatedCamera(c, c, c, join_at_keyframe=True) for c in ("h264", "h265", "mjpeg")], work)


def test_gstreamer_reads_the_simulator() -> None:
    async def work(house: House) -> None:
        for codec, depay in (("h264", "rtph264depay ! avdec_h264"), ("h265", "rtph265depay ! avdec_h265"),
                             ("mjpeg", "rtpjpegdepay ! jpegdec")):
            process = await asyncio.create_subprocess_exec(
                "gst-launch-1.0", "-q", "rtspsrc", f"location={house.fleet.url(codec)}", "protocols=tcp", "!",
                *depay.split(), "!", "fakesink", "num-buffers=3", stdin=subprocess.DEVNULL)
            assert await process.wait() == 0
            assert (await house.seen(codec)).ends_unclean == 0

    with_house([SimulatedCamera(c, c, c, join_at_keyframe=True) for c in ("h264", "h265", "mjpeg")], work)


def test_the_daemon_leaves_every_camera_alone_after_its_stop(tmp_path: Path) -> None:
    """Polling, a reload and a stop: the camera's record shows one session at most, and none left."""
    async def work(house: House) -> None:
        config = tmp_path / "cameras.toml"
        text = f'[output]\ndirectory = "{tmp_path}/out"\n' + house.fleet.inventory(interval="300ms", timeout="4s")
        config.write_text(text)
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "camserver", "run", "--config", str(config), stderr=subprocess.DEVNULL)
        records = {c: house.fleet.cameras[c].record for c in house.fleet.cameras}

        async def reach(clean: int) -> None:
            async with asyncio.timeout(60):
                while any(r.ends_clean < clean for c, r in records.items() if c != "silent"):
                    await asyncio.sleep(0.02)

        await reach(5)
        config.write_text(text.replace("300ms", "400ms"))
        await reach(10)
        daemon.terminate()
        assert await daemon.wait() == 0
        for camera_id, record in records.items():
            await house.seen(camera_id)
            assert record.sessions_max == 1, camera_id
        assert not list(tmp_path.rglob("*.tmp"))

    with_house([*(SimulatedCamera(c, c, c, gop=3) for c in ("h264", "h265", "mjpeg")),
                SimulatedCamera("silent", "Silent", fault=Fault("silent"))], work)
