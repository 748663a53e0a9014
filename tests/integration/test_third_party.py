"""RTSP servers that nobody here wrote as judges: GStreamer's, VLC's and aio-rtsp-toolkit's.

Each is polled several times in a row: every picture is true, no login is refused, every end is
clean.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from house import House, StartFleet, fetch, psnr, with_house
from login_proxy import LoginProxy
from support import camera, free_port, until

from camserver.capture.native import NativeEngine
from camserver.errors import CameraError
from camserver.model import Result, SessionEnd

POLLS = 5
USER, PASSWORD = "viewer", "p@:/#%? \u00fc"
NOBODY = 65534


def answers(port: int, path: str) -> bool:
    """Whether a DESCRIBE is answered with a description, or asks for a login."""
    result = subprocess.run(
        [
            "curl",
            "-s",
            "-m",
            "2",
            "-i",
            "-X",
            "DESCRIBE",
            "--request-target",
            f"rtsp://127.0.0.1:{port}/{path}",
            f"rtsp://127.0.0.1:{port}/{path}",
        ],
        capture_output=True,
        check=False,
    )
    return b" 200 " in result.stdout[:20] or b" 401 " in result.stdout[:20]


@contextlib.contextmanager
def vlc(folder: Path, film: Path, *, login: bool) -> Iterator[int]:
    """VLC's RTSP output: UDP, basic. It refuses to run as root."""
    port = free_port()
    home = folder / "vlc"
    home.mkdir(exist_ok=True)
    copy = home / film.name
    copy.write_bytes(film.read_bytes())
    command = [
        "cvlc",
        "-q",
        "--no-audio",
        "--no-media-library",
        "--ignore-config",
        "--rtsp-host=127.0.0.1",
        f"--rtsp-port={port}",
        "--input-repeat=65535",
        str(copy),
        f"--sout=#rtp{{sdp=rtsp://127.0.0.1:{port}/cam}}",
        "--sout-keep",
    ]
    if login:
        command += [f"--sout-rtsp-user={USER}", f"--sout-rtsp-pwd={PASSWORD}"]
    if os.geteuid() == 0:
        for path in (folder, *folder.parents):  # a temporary folder is its owner's alone
            if path.stat().st_uid == 0 and not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o011)
        for path in (home, copy):
            os.chown(path, NOBODY, NOBODY)
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
    with subprocess.Popen(
        command,
        env=environment,
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until(lambda: answers(port, "cam"), 60, "VLC")
            yield port
        finally:
            process.terminate()


@contextlib.contextmanager
def aio_toolkit(film: Path) -> Iterator[int]:
    """The server of aio-rtsp-toolkit: TCP, no login."""
    port = free_port()
    program = (
        "import asyncio, sys, aio_rtsp_toolkit.server as s; asyncio.run(s.serve(sys.argv[1],"
        " '127.0.0.1', int(sys.argv[2]), control_port=int(sys.argv[3])))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(film.parent), str(port), str(free_port())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until(lambda: answers(port, film.name), 60, "aio-rtsp-toolkit")
            yield port
        finally:
            process.terminate()


async def polled(house: House, url: str, source: np.ndarray[Any, Any], **keys: Any) -> None:
    """Several polls by our own client, each with what the ones before have taught it."""
    engine, loop = NativeEngine(), asyncio.get_running_loop()
    target = camera("cam", url=url, **keys)
    for number in range(POLLS):
        ends: list[SessionEnd] = []
        for tries_left in reversed(range(5)):
            try:
                unit = await fetch(engine, target, url, loop.time() + 30, ends)
                break
            except CameraError as error:  # VLC says 500 when the machine is busy and its film ends
                if error.status != 500 or not tries_left:
                    raise
                ends.clear()
        assert ends == [SessionEnd.CLEAN], number
        still = await house.capture.decoder.decode(unit, width=None, deadline=loop.time() + 30)
        assert psnr(simplejpeg.decode_jpeg(still.jpeg), source) > 30, number


@pytest.mark.parametrize("codec", ["h264", "h265", "mjpeg"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("how", ["open", "digest", "basic"])
async def test_gstreamer(
    gst: dict[str, int],
    sources: dict[str, Any],
    how: str,
    transport: str,
    codec: str,
    fleet: StartFleet,
) -> None:
    house = await fleet([])
    login = {} if how == "open" else {"username": USER, "password": PASSWORD}
    async with LoginProxy(gst[how]) as proxy:
        await polled(
            house,
            f"rtsp://127.0.0.1:{proxy.port}/{codec}",
            sources[codec],
            transport=transport,
            **login,
        )
        assert (proxy.refused_logins, proxy.connections) == (0, POLLS)


@pytest.mark.parametrize("codec", ["h264", "h265", "mjpeg"])
async def test_gstreamer_over_tls(
    gst: dict[str, int], sources: dict[str, Any], codec: str, fleet: StartFleet
) -> None:
    house = await fleet([])
    await polled(house, f"rtsps://127.0.0.1:{gst['tls']}/{codec}", sources[codec])


@pytest.mark.parametrize("login", [False, True])
@pytest.mark.parametrize("codec", ["h264", "h265", "mjpeg"])
def test_vlc(
    tmp_path: Path, films: dict[str, Path], sources: dict[str, Any], codec: str, login: bool
) -> None:
    """It speaks UDP only and says so with 461: that is learned by the first poll."""

    async def work(house: House) -> None:
        keys = {"username": USER, "password": PASSWORD} if login else {}
        async with LoginProxy(port) as proxy:
            await polled(house, f"rtsp://127.0.0.1:{proxy.port}/cam", sources[codec], **keys)
            assert proxy.refused_logins == 0

    with vlc(tmp_path, films[codec], login=login) as port:
        with_house([], work)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_aio_rtsp_toolkit(
    films: dict[str, Path], sources: dict[str, Any], codec: str, transport: str
) -> None:
    """It speaks TCP only and says so with 461: also who asked for UDP gets its pictures."""

    async def work(house: House) -> None:
        async with LoginProxy(port) as proxy:
            await polled(
                house,
                f"rtsp://127.0.0.1:{proxy.port}/{films[codec].name}",
                sources[codec],
                transport=transport,
            )

    with aio_toolkit(films[codec]) as port:
        with_house([], work)


def test_vlc_says_what_is_wrong(tmp_path: Path, films: dict[str, Path]) -> None:
    """Its 401 and 404 have no CSeq: a wrong password and a wrong path are named all the same."""

    async def work(house: House) -> None:
        async with LoginProxy(port) as proxy:
            for path, password, result in (
                ("cam", "wr0ng", Result.AUTH),
                ("other", PASSWORD, Result.NOT_FOUND),
            ):
                url = f"rtsp://127.0.0.1:{proxy.port}/{path}"
                target = camera("cam", url=url, username=USER, password=password)
                deadline = asyncio.get_running_loop().time() + 30
                with pytest.raises(CameraError) as caught:
                    await fetch(NativeEngine(), target, url, deadline)
                assert caught.value.result is result
            assert proxy.refused_logins == 1

    with vlc(tmp_path, films["h264"], login=True) as port:
        with_house([], work)
