"""Fixtures: simulated cameras, a daemon, and GStreamer's RTSP server with short films."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from desk import Desk, StartDaemon, desk_at
from house import House, StartFleet, certificate, house_of
from support import free_port

from camserver.simulator.camera import SimulatedCamera

SERVER = Path(__file__).with_name("gst_server.py")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def fleet() -> AsyncIterator[StartFleet]:
    """Starts simulated cameras; they are stopped after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(cameras: list[SimulatedCamera], **options: Any) -> House:
            return await stack.enter_async_context(house_of(cameras, **options))

        yield start


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[StartDaemon]:
    """Starts simulated cameras and a daemon that polls them."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*arguments: Any, **options: Any) -> Desk:
            return await stack.enter_async_context(desk_at(tmp_path, *arguments, **options))

        yield start


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Short films with known colours, encoded by ffmpeg.

    H.264 and H.265 tagged BT.709, MJPEG as JFIF has it.
    """
    folder = tmp_path_factory.mktemp("films")
    bt709 = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
    tags = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
    video = f"-vf {bt709} {tags} -preset veryfast -g 10 -bf 0 -crf 18"
    jfif = "scale=out_color_matrix=bt601:out_range=pc,format=yuvj420p"
    return {
        "h264": film(folder / "h264.mp4", f"{video} -c:v libx264"),
        "h265": film(
            folder / "h265.mp4", f"{video} -c:v libx265 -tag:v hvc1 -x265-params log-level=none"
        ),
        "mjpeg": film(folder / "mjpeg.avi", f"-vf {jfif} -c:v mjpeg -huffman default -q:v 3"),
    }


def film(path: Path, options: str) -> Path:
    """Four seconds of colour bars."""
    source = "-f lavfi -i smptehdbars=s=1280x720:r=10 -t 4"
    command = f"ffmpeg -loglevel error {source} {options}"
    subprocess.run([*command.split(), str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def gst(
    films: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, int]]:
    """Ports of four servers: open, with digest, with basic, with TLS.

    They serve films by their names.
    """
    ports = {kind: free_port() for kind in ("open", "digest", "basic", "tls")}
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder)
    (folder / "both.pem").write_text(
        (folder / "key.pem").read_text() + (folder / "cert.pem").read_text()
    )
    with subprocess.Popen(
        [
            "/usr/bin/python3",
            str(SERVER),
            *map(str, ports.values()),
            str(folder / "both.pem"),
            *map(str, films.values()),
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield ports
        process.kill()


@pytest.fixture(scope="session")
def sources(films: dict[str, Path]) -> dict[str, np.ndarray[Any, Any]]:
    """The first picture of each film as RGB, by the matrix the film names."""
    pictures = {}
    for codec, path in films.items():
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        colours = ("ITU601", "JPEG") if codec == "mjpeg" else ("ITU709", "MPEG")
        pictures[codec] = frame.to_ndarray(
            format="rgb24",
            src_colorspace=colours[0],
            src_color_range=colours[1],
            dst_color_range="JPEG",
        )
    return pictures
