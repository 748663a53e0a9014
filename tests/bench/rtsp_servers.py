"""RTSP servers of other projects, that serve films on loopback; and a link that takes time."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from coded_films import FPS
from support import free_port

GST_SERVER = Path(__file__).parents[1] / "integration" / "gst_server.py"
SLOW_LINK = Path(__file__).with_name("slow_link.py")
AIO_SERVER = (
    "import asyncio, sys, aio_rtsp_toolkit.server as s; asyncio.run(s.serve(sys.argv[1],"
    " '127.0.0.1', int(sys.argv[2]), control_port=int(sys.argv[3])))"
)
START_S = 30.0


@contextlib.contextmanager
def gstreamer(films: list[Path]) -> Iterator[list[str]]:
    """URLs of films at GStreamer's RTSP server. Each client sees a film from its begin."""
    port = free_port()
    command = ["/usr/bin/python3", str(GST_SERVER), str(port), "0", "0", "0", "-", *map(str, films)]
    with _process(command, speaks=True) as server:
        _line(server)
        yield [f"rtsp://127.0.0.1:{port}/{film.stem}" for film in films]


@contextlib.contextmanager
def aio_toolkit(film: Path) -> Iterator[str]:
    """A film at the server of aio-rtsp-toolkit. Each client sees it from its begin."""
    port = free_port()
    arguments = (str(film.parent), str(port), str(free_port()))
    with _process([sys.executable, "-c", AIO_SERVER, *arguments]):
        deadline = time.monotonic() + START_S
        while not _listens(port):
            assert time.monotonic() < deadline, "aio-rtsp-toolkit does not start"
            time.sleep(0.1)
        yield f"rtsp://127.0.0.1:{port}/{film.name}"


@contextlib.contextmanager
def simulator(folder: Path, size: str, gop_s: int = 2) -> Iterator[dict[str, str]]:
    """URLs of simulated cameras by codec. Their pictures are flat, and cost the least to decode.

    Their streams are live, with a keyframe each `gop_s` seconds.
    """
    inventory = folder / "simulator.toml"
    command = [
        *(sys.executable, "-m", "camserver", "simulate", "--cameras=2", "--base-port=0"),
        *(
            "--until-eof",
            f"--size={size}",
            "--max-sessions=4",
            f"--fps={FPS}",
            f"--gop={gop_s * FPS}",
        ),
        f"--inventory={inventory}",
    ]
    with _process(command, speaks=True) as cameras:
        lines = [_line(cameras).split() for _ in range(3)]
        yield {line[2]: line[1] for line in lines[:2]}


@contextlib.contextmanager
def slow_link(url: str, milliseconds: int) -> Iterator[str]:
    """The same URL through a link of that round trip."""
    port = url.split(":")[2].split("/", maxsplit=1)[0]
    command = [sys.executable, str(SLOW_LINK), port, str(milliseconds)]
    with _process(command, speaks=True) as link:
        yield url.replace(f":{port}/", f":{_line(link)}/")


@contextlib.contextmanager
def _process(command: list[str], *, speaks: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A running process. What it says is only kept when it `speaks`, and is read by `_line`."""
    output = subprocess.PIPE if speaks else subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, f"{process.args} has ended"
    return line


def _listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0
