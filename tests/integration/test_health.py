"""A daemon judges pictures: facts, events, metrics, and what a restart keeps."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from browser import Room, wall_of
from desk import Desk
from house import house_of
from playwright.async_api import expect
from support import free_port

from camserver.simulator.camera import SimulatedCamera

MORE = '[health]\nfrozen_after = "2s"\nsuspect_after = "2s"\n'


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A camera that sends the same picture again and again, and one with a wrong clock."""
    cameras = [
        SimulatedCamera("gate", "Gate", gop=2, quirk="frozen"),
        SimulatedCamera("yard", "Yard", gop=2),
        SimulatedCamera("dock", "Dock", gop=2, clock_offset_s=3600.0),
    ]
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(house_of(cameras))
        desk = Desk(house, tmp_path)
        desk.more, desk.http = MORE, f"127.0.0.1:{free_port()}"
        desk.write(interval="0.5s")
        yield desk


def read(url: str) -> str:
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - on loopback
        text: str = answer.read().decode()
        return text


def health(desk: Desk, camera: str) -> dict[str, Any]:
    found: dict[str, Any] = desk.facts(camera).get("health") or {"state": None}
    return found


async def test_a_suspect_camera_is_told_and_its_pictures_are_published(desk: Desk) -> None:
    """In latest.json, as an event, as a metric, in `status`; no poll fails for it."""
    async with desk.daemon():
        await desk.until(lambda: health(desk, "gate")["state"] == "frozen")
        await desk.until(lambda: health(desk, "dock")["state"] == "clock")
        facts = desk.facts("gate")
        assert facts["attempt"]["result"] == "ok"
        assert facts["consecutive_failures"] == 0
        assert facts["health"]["label"] == "has shown the same picture"
        assert facts["health"]["since"] < facts["captured_at"]
        assert set(facts["health"]) == {
            *("state", "since", "label", "brightness", "contrast", "sharpness", "change", "hash")
        }
        before = facts["captured_at"]
        await desk.until(lambda: desk.facts("gate")["captured_at"] != before)
        assert health(desk, "yard")["state"] in ("learning", "ok")
        metrics = await asyncio.to_thread(read, f"http://{desk.http}/metrics")
        suspect = [line for line in metrics.splitlines() if "picture_suspect{" in line]
        assert sorted(suspect) == [
            'camserver_picture_suspect{camera="dock",reason="clock"} 1.0',
            'camserver_picture_suspect{camera="gate",reason="frozen"} 1.0',
        ]
        process = await desk.run("status", "--json", "--config", str(desk.config))
        status = json.loads((await process.communicate())[0])
        told = {camera["camera"]: camera["label"] for camera in status["cameras"]}
        assert told["gate"].startswith("ok, but has shown the same picture since ")
        assert told["dock"].startswith("ok, but has had a wrong clock since ")
        assert told["yard"] == "ok"
        desk.house.fleet.cameras["gate"].quirk = ""
        await desk.until(lambda: health(desk, "gate")["state"] in ("learning", "ok"))
    log = desk.log.read_text()
    assert "gate: the camera has shown the same picture since " in log
    assert "gate: recovered from frozen, after " in log
    assert "poll.failed" not in log


async def test_a_restart_keeps_what_was_found(desk: Desk) -> None:
    """It is still frozen, since the same moment, and that is not told again."""
    async with desk.daemon():
        await desk.until(lambda: health(desk, "gate")["state"] == "frozen")
        kept = desk.output / "gate" / ".camserver-health.json"
        await desk.until(kept.exists)
        since = health(desk, "gate")["since"]
    desk.log.write_text("")
    before = desk.facts("gate")["captured_at"]
    async with desk.daemon():
        await desk.until(lambda: desk.facts("gate")["captured_at"] != before)
        assert health(desk, "gate")["state"] == "frozen"
        assert health(desk, "gate")["since"] == since
    assert "picture.suspect" not in desk.log.read_text()


async def test_a_person_says_that_the_pictures_are_right(desk: Desk) -> None:
    """Of a camera that was turned on purpose. It is learned anew, also after a restart."""
    async with desk.daemon():
        await desk.until(lambda: health(desk, "dock")["state"] == "clock")
        answer = await (await desk.run("relearn", "dock")).communicate()
        assert answer[0] == b"dock: it was clock; what its pictures show is learned anew\n"
        await desk.until(lambda: health(desk, "dock")["state"] == "learning")
        unknown = await desk.run("relearn", "nobody")
        assert b"nobody" in (await unknown.communicate())[1]
        assert unknown.returncode == 2
    assert "dock: recovered from clock, after " in desk.log.read_text()


async def test_a_camera_may_go_without(desk: Desk) -> None:
    """`health = false`: nothing is measured, nothing is judged. A reload turns it on."""
    desk.write(interval="0.5s", health=False)
    async with desk.daemon():
        await desk.until(lambda: desk.facts("gate").get("captured_at"))
        assert desk.facts("gate")["health"] is None
        desk.write(interval="0.5s")
        await asyncio.to_thread(desk.ask, "POST", "/v1/reload")
        await desk.until(lambda: health(desk, "gate")["state"] == "frozen")


async def test_a_suspect_camera_is_told_in_words_beside_a_healthy_one(
    tmp_path: Path,
) -> None:
    """Its pictures come, and show the same again and again: fresh, but not true."""
    cameras = [
        SimulatedCamera("gate", "Gate", gop=2, quirk="frozen"),
        SimulatedCamera("yard", "Yard", gop=2),
    ]
    async with wall_of(tmp_path, cameras, more=MORE) as room:
        await see(room)


async def see(room: Room) -> None:
    """Look at the wall, at its filter, and at the camera's page."""
    page = await room.page()
    label = page.locator(".tile[data-id=gate] .label")
    words = re.compile(r"^fresh, but has shown the same picture since \d\d:\d\d")
    await expect(label).to_have_text(words)
    await expect(page.locator(".tile[data-id=gate]")).to_have_class("tile fresh suspect")
    await expect(page.locator(".tile[data-id=yard]")).to_have_class("tile fresh")
    await expect(page.locator(".tile[data-id=yard] .label")).to_be_hidden()
    await expect(page.locator("#count-suspect")).to_have_text("1")
    await expect(page.locator("#count-failing")).to_have_text("0")
    assert await page.locator(".tile").first.get_attribute("data-id") == "gate", "the worst first"
    await page.get_by_text("Suspect").click()
    await expect(page.locator(".tile:visible")).to_have_count(1)
    await page.locator(".tile[data-id=gate]").click()
    await expect(page.locator("#view-label")).to_have_text(words)
    await page.keyboard.press("Escape")
    room.desk.house.fleet.cameras["gate"].quirk = ""
    await expect(label).to_be_hidden()
    await expect(page.locator("#count-suspect")).to_have_text("0")
