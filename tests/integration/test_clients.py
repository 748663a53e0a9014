"""The Python clients.

What other programs fetch from a daemon, and what they hear when it breaks off.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from desk import StartDaemon
from PIL import ExifTags, Image

from camserver.client import (
    ApiRefusal,
    DaemonUnavailableError,
    LeaseClient,
    Picture,
    SyncLeaseClient,
)
from camserver.simulator.camera import Fault, SimulatedCamera
from camserver.storage.exif import captured_at


async def test_programs_fetch_pictures_with_their_facts(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """Bytes and facts are of the same picture, however fast pictures come.

    Both clients; a picture taken now, too.
    """

    def whole(picture: Picture) -> None:
        with Image.open(io.BytesIO(picture.jpeg)) as image:
            assert image.size == (picture.facts["width"], picture.facts["height"]) == (640, 360)
            assert image.getexif()[ExifTags.Base.ImageDescription] == "Gate"
        assert captured_at(picture.jpeg) == picture.captured_at
        assert picture.facts["bytes"] == len(picture.jpeg)
        assert picture.facts["source"] == "rtsp"

    desk = await daemon(
        [
            SimulatedCamera("cam", "Gate", gop=2),
            SimulatedCamera("new", "New", fault=Fault("refuse")),
        ],
        interval="200ms",
        lease_wait="20s",
    )
    with pytest.raises(ApiRefusal, match="no picture yet") as refused:
        await LeaseClient(desk.socket).latest("new")
    assert refused.value.status == 404
    await desk.until(lambda: desk.facts().get("captured_at"))
    seen = set()
    while len(seen) < 5:
        whole(picture := await LeaseClient(desk.socket).latest("cam"))
        whole(await asyncio.to_thread(desk.client.latest, "cam"))
        seen.add(picture.captured_at)
    for picture in (
        await LeaseClient(desk.socket).snapshot("cam"),
        await asyncio.to_thread(desk.client.snapshot, "cam"),
    ):
        whole(picture)
        assert (desk.output / "cam" / picture.facts["path"]).exists(), "it is published"
    await asyncio.to_thread(
        (desk.output / "cam/latest.json").write_text, '{"captured_at": null}'
    )  # a torn pair
    alone = await LeaseClient(desk.socket).latest("cam")
    assert captured_at(alone.jpeg) == alone.captured_at
    with pytest.raises(ApiRefusal, match="no enabled camera 'other'"):
        await LeaseClient(desk.socket).latest("other")
    with pytest.raises(ApiRefusal, match="connection refused"):
        await LeaseClient(desk.socket).snapshot("new")
    with pytest.raises(DaemonUnavailableError, match="no daemon answers"):
        await LeaseClient(tmp_path / "nobody").latest("cam")


async def test_a_daemon_that_breaks_off_its_answer_is_no_daemon(tmp_path: Path) -> None:
    """Nothing, half a head, half a body, silence.

    DaemonUnavailableError from both clients, never half a picture.
    """
    answers = [
        b"",
        b"HTTP/1.1 200 OK\r\nConte",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\xff\xd8",
        b"nonsense\r\n\r\n",
    ]

    path = tmp_path / "api.sock"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers[0])
        writer.close()

    async with await asyncio.start_unix_server(answer, path) as server:
        while answers:
            with pytest.raises(DaemonUnavailableError, match="went away"):
                await LeaseClient(path).latest("cam")
            with pytest.raises(DaemonUnavailableError, match="went away"):
                await asyncio.to_thread(SyncLeaseClient(path).latest, "cam")
            answers.pop(0)
        server.close()


@pytest.mark.parametrize(
    "header", ["", "X-Camserver-Facts: no JSON\r\n", "X-Camserver-Facts: []\r\n"]
)
async def test_a_picture_of_an_older_daemon_has_no_facts(tmp_path: Path, header: str) -> None:
    """The JPEG needs none."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\n{header}Content-Length: 4\r\n\r\nJPEG".encode())
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "api.sock") as server:
        for picture in (
            await LeaseClient(tmp_path / "api.sock").latest("cam"),
            await asyncio.to_thread(SyncLeaseClient(tmp_path / "api.sock").snapshot, "cam"),
        ):
            assert (picture.jpeg, picture.facts, picture.captured_at) == (b"JPEG", {}, None)
        server.close()
