"""The simulator, read by camserver and by third parties' clients."""

from __future__ import annotations

import asyncio
import io
import subprocess

import pytest
from house import StartFleet, psnr_to_source
from PIL import Image

from camserver.simulator.camera import SimulatedCamera


@pytest.mark.parametrize("engine", ["native", "libav"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("codec", ["h264", "h265", "mjpeg"])
async def test_pictures_equal_their_source(
    codec: str, transport: str, engine: str, fleet: StartFleet
) -> None:
    """Every codec, both transports, digest and basic: true colours, a clean end, one session."""
    house = await fleet(
        [SimulatedCamera("cam", "Gate", codec, gop=3, username="viewer", password="p@:/#%? ü")]
    )
    for auth in ("digest", "basic"):
        simulated = house.fleet.cameras["cam"]
        simulated.auth = auth
        attempt = await house.take("cam", transport=transport, engine=engine)
        assert psnr_to_source(attempt, simulated) > 35
    seen = await house.seen("cam")
    assert (seen.opens, seen.ends_clean, seen.sessions_max) == (2, 2, 1)


async def test_width_scales_down_and_exif_free_stills_decode(fleet: StartFleet) -> None:
    house = await fleet(
        [SimulatedCamera("film", "Gate"), SimulatedCamera("stills", "Yard", "mjpeg")]
    )
    for camera_id in ("film", "stills"):
        attempt = await house.take(camera_id, width=320)
        assert attempt.snapshot is not None, attempt.error
        with Image.open(io.BytesIO(attempt.snapshot.still.jpeg)) as image:
            assert image.size == (320, 180)


async def test_ffmpeg_reads_the_simulator(fleet: StartFleet) -> None:
    """A third party's client plays every codec over both transports."""
    house = await fleet(
        [SimulatedCamera(c, c, c, join_at_keyframe=True) for c in ("h264", "h265", "mjpeg")]
    )
    for camera_id in house.fleet.cameras:
        for transport in ("tcp", "udp"):
            process = await asyncio.create_subprocess_exec(
                "ffmpeg",
                "-loglevel",
                "error",
                "-rtsp_transport",
                transport,
                "-i",
                house.fleet.url(camera_id),
                "-frames:v",
                "3",
                "-f",
                "null",
                "-",
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            assert await process.wait() == 0
        seen = await house.seen(camera_id)
        assert (seen.ends_clean, seen.ends_unclean) == (2, 0)


async def test_gstreamer_reads_the_simulator(fleet: StartFleet) -> None:
    house = await fleet(
        [SimulatedCamera(c, c, c, join_at_keyframe=True) for c in ("h264", "h265", "mjpeg")]
    )
    for codec, depay in (
        ("h264", "rtph264depay ! avdec_h264"),
        ("h265", "rtph265depay ! avdec_h265"),
        ("mjpeg", "rtpjpegdepay ! jpegdec"),
    ):
        process = await asyncio.create_subprocess_exec(
            "gst-launch-1.0",
            "-q",
            "rtspsrc",
            f"location={house.fleet.url(codec)}",
            "protocols=tcp",
            "!",
            *depay.split(),
            "!",
            "fakesink",
            "num-buffers=3",
            stdin=subprocess.DEVNULL,
        )
        assert await process.wait() == 0
        assert (await house.seen(codec)).ends_unclean == 0
