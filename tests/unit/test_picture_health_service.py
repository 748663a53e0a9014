"""PictureHealth: judging never costs a picture, whatever the disk, the files and our bugs do."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from inventories import load
from looks import BLACK, WELL

from camserver.events import Event
from camserver.health import Judge, PictureHealth, service, stored
from camserver.model import CodedKeyframe, Look, References, Still

pytestmark = pytest.mark.anyio
AT = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)


class Desk:
    """The judge of a camera `gate`, with its folder, clocks and events."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "gate").mkdir()
        self.events: list[Event] = []
        self.now = 1000.0
        self.health = self.again()

    def again(self) -> PictureHealth:
        """As after a restart."""
        return PictureHealth(
            self.inventory(),
            self.events.append,
            lambda: self.folder,
            wall=lambda: AT.timestamp() + self.now,
            boot=lambda: self.now,
        )

    def inventory(self, keys: str = "", url: str = "rtsp://gate/") -> Any:
        return load(self.folder, f'[[camera]]\nid = "gate"\nurl = "{url}"\n{keys}\n')

    async def see(self, look: Look = WELL, times: int = 1, every_s: float = 10) -> Any:
        for _ in range(times):
            self.now += every_s
            while (references := await self.health.references("gate")) is None:
                await asyncio.sleep(0)  # its file is being read
            likeness = tuple(0.9 for _ in references.scenes)
            seen = replace(look, likeness=likeness, digest=f"{int(self.now):016x}")
            still = Still(b"", 1920, 1080, "h264", look=seen)
            at = datetime.fromtimestamp(AT.timestamp() + self.now, UTC)
            found = self.health.judge("gate", still, CodedKeyframe("h264", b"x", b"", at, ""))
        return found

    @property
    def said(self) -> list[str]:
        return [event.EVENT for event in self.events]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_changes_are_told_and_kept(desk: Desk) -> None:
    async with asyncio.TaskGroup() as group:
        job = group.create_task(desk.health.run())
        await desk.see(times=20)
        assert (await desk.see(BLACK, times=25)).state == "black"
        path = desk.folder / "gate" / stored.NAME
        while not path.exists():
            await asyncio.sleep(0)
        job.cancel()
    assert desk.said == ["picture.suspect"]
    desk.health = desk.again()
    assert (await desk.see(BLACK)).state == "black"
    assert (await desk.see(times=9)).state == "ok"
    assert desk.said == ["picture.suspect", "picture.recovered"]


@pytest.mark.parametrize(("interval", "every_s", "times"), [("10s", 10, 60), ("1h", 3600, 6)])
async def test_it_is_written_every_ten_minutes_or_six_intervals(
    interval: str, every_s: float, times: int, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a camera that is polled rarely, not each picture causes another file."""
    desk.health.configure(desk.inventory(f'interval = "{interval}"'))
    await desk.see(times=100, every_s=every_s)  # it is learned
    saved: list[Judge] = []

    def content(judge: Judge, *rest: Any) -> bytes:
        saved.append(judge)
        return real(judge, *rest)

    real = stored.content
    monkeypatch.setattr(stored, "content", content)
    async with asyncio.TaskGroup() as group:
        job = group.create_task(desk.health.run())
        for _ in range(3 * times):
            while desk.health._waiting:  # so that none stands for two
                await asyncio.sleep(0)
            await desk.see(every_s=every_s)
        while desk.health._waiting:
            await asyncio.sleep(0)
        job.cancel()
    assert len(saved) == 1 + 3, "what was learned, and thrice in the time"


async def test_a_bug_costs_what_is_known_and_no_picture(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.see(times=20)
    await desk.see(BLACK, times=25)
    desk.events.clear()
    with monkeypatch.context() as patched:
        patched.setattr(Judge, "judge", lambda *_: 1 // 0)
        assert await desk.see() is None
    assert desk.said == ["picture.unjudged", "picture.recovered"]
    assert (await desk.see()).state == "learning"


async def test_a_disk_that_hangs_delays_one_picture(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later ones do not wait for it, and no thread more is used. When it answers, all is well."""
    answers = threading.Event()
    calls = []

    def read(*_: Any) -> Judge | None:
        calls.append(1)
        answers.wait()
        return None

    monkeypatch.setattr(stored, "read", read)
    monkeypatch.setattr(service, "READ_S", 0.05)
    for _ in range(5):
        assert await desk.health.references("gate") is None
    while not calls:  # its thread may not have run yet
        await asyncio.sleep(0)
    assert len(calls) == 1
    answers.set()
    while await desk.health.references("gate") is None:
        await asyncio.sleep(0)
    assert await desk.health.references("gate") == References()


async def test_a_file_that_breaks_the_reader_is_no_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "read", lambda *_: {}["x"])
    while (found := await desk.health.references("gate")) is None:
        await asyncio.sleep(0)
    assert found == References()


async def test_another_camera_or_none_is_learned_anew(desk: Desk) -> None:
    await desk.see(times=25)
    desk.health.configure(desk.inventory(url="rtsp://other/"))
    assert (await desk.see()).state == "learning"
    desk.health.configure(desk.inventory("health = false"))
    assert await desk.health.references("gate") is None
    assert desk.health.suspicions() == {}


async def test_relearn_ends_what_is_suspected(desk: Desk) -> None:
    assert desk.health.relearn("nobody") is None
    first = desk.health.relearn("gate")
    assert first is not None
    assert first.state == "learning"
    await desk.see(times=20)
    await desk.see(BLACK, times=25)
    assert {camera: len(found) for camera, found in desk.health.suspicions().items()} == {"gate": 1}
    was = desk.health.relearn("gate")
    assert was is not None
    assert was.state == "black"
    assert desk.said == ["picture.suspect", "picture.recovered"]
    assert desk.health.suspicions() == {}
    assert (await desk.see()).state == "learning"
