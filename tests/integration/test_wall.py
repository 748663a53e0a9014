"""The wall page in a real browser, on twelve simulated cameras."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from browser import Room, StartWall, wall_of
from playwright.async_api import Page, Route, expect

from camserver.simulator.camera import Fault, SimulatedCamera


@pytest.fixture
async def wall(tmp_path: Path) -> AsyncIterator[StartWall]:
    """Starts cameras, a daemon and a browser."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*arguments: Any, **options: Any) -> Room:
            return await stack.enter_async_context(wall_of(tmp_path, *arguments, **options))

        yield start


def fleet(**options: Fault) -> list[SimulatedCamera]:
    return [
        SimulatedCamera(f"cam{n}", f"Camera {n}", gop=2, fault=options.get(f"cam{n}", Fault()))
        for n in range(1, 13)
    ]


def tile(page: Page, camera: str) -> str:
    return f".tile[data-id={camera}]"


async def changed(page: Page, selector: str, attribute: str, before: str | None) -> str:
    """The attribute's next value."""
    await page.wait_for_function(
        "([s, a, b]) => { const v = document.querySelector(s)?.getAttribute(a); return v && v"
        " !== b }",
        arg=[selector, attribute, before],
    )
    return await page.get_attribute(selector, attribute) or ""


async def test_the_wall_updates_by_itself_and_a_failing_camera_turns_stale_with_its_label(
    tmp_path: Path, wall: StartWall
) -> None:
    """No reload: pictures change as they are published.

    The last good one stays under the label of a failure.
    """
    room = await wall(fleet())
    page = await room.page()
    await expect(page.locator(".tile")).to_have_count(12)
    await expect(page.locator("#count-all")).to_have_text("12")
    picture = f"{tile(page, 'cam1')} img"
    first = await changed(page, picture, "src", None)
    second = await changed(page, picture, "src", first)
    assert "width=320" in second
    await expect(page.locator(tile(page, "cam1"))).to_have_class("tile fresh")
    loads = await page.evaluate("performance.getEntriesByType('navigation').length")
    assert loads == 1
    room.desk.house.fleet.cameras["cam2"].fault = Fault.parse("status:404:SETUP")
    label = page.locator(f"{tile(page, 'cam2')} .label")
    await expect(label).to_have_text("no such stream (404 to SETUP)")
    assert "latest.jpg" in (await page.get_attribute(f"{tile(page, 'cam2')} img", "src") or "")
    await expect(page.locator("#count-failing")).to_have_text("1")
    await page.clock.install()  # a minute passes on the page alone
    await page.evaluate("performance.now()")
    await page.clock.fast_forward(60_000)
    await expect(page.locator(tile(page, "cam2"))).to_have_class("tile stale")


async def test_search_filter_and_keyboard(tmp_path: Path, wall: StartWall) -> None:
    room = await wall(fleet(cam3=Fault("refuse")))
    page = await room.page()
    await expect(page.locator(".tile")).to_have_count(12)
    await expect(page.locator("#count-failing")).to_have_text("1")
    await page.keyboard.press("/")
    await page.keyboard.type("camera 1")
    await expect(page.locator(".tile:visible")).to_have_count(4)
    await page.fill("#search", "")
    await page.check("input[value=failing]", force=True)
    await expect(page.locator(".tile:visible")).to_have_count(1)
    await expect(page.locator(".tile:visible .name")).to_have_text("Camera 3")
    await page.check("input[value=all]", force=True)
    await page.focus(tile(page, "cam1"))
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("Enter")
    await expect(page.locator("#view")).to_be_visible()
    await expect(page.locator("#view-name")).to_have_text("Camera 2")
    await page.keyboard.press("Escape")
    await expect(page.locator("#view")).to_be_hidden()
    assert await page.evaluate("document.activeElement.dataset.id") == "cam2"


async def test_the_camera_view_its_archive_and_a_snapshot_now(
    tmp_path: Path, wall: StartWall
) -> None:
    room = await wall(fleet(), http="actions = true\n")
    desk = room.desk
    await desk.until(lambda: len(list((desk.output / "cam1").rglob("*Z.jpg"))) >= 4)
    page = await room.page("/#cam1")
    await expect(page.locator("#view")).to_be_visible()
    await expect(page.locator("#view-facts")).to_contain_text(re.compile("640.360 h264"))
    newest = await changed(page, "#view-picture", "src", None)
    assert "latest.jpg" in newest
    await changed(page, "#view-picture", "src", newest)  # it goes on by itself
    scrub = page.locator("#view-scrub")
    await expect(scrub).to_be_enabled()
    await scrub.focus()
    await page.keyboard.press("Home")
    await page.wait_for_function(
        "() => document.querySelector('#view-picture').src.includes('/archive/')"
    )
    oldest = await page.get_attribute("#view-picture", "src")
    await page.keyboard.press("ArrowRight")
    assert await changed(page, "#view-picture", "src", oldest) > (oldest or "")
    async with page.expect_download() as download:
        await page.click("#view-download")
    assert (await (await download.value).path()).read_bytes()[:2] == b"\xff\xd8"
    await page.click("#view-hours button >> nth=0")
    await page.wait_for_function(
        f"() => document.querySelector('#view-picture').src.endsWith('{oldest}')"
    )
    await page.click("#view-newest")
    await page.wait_for_function(
        "() => document.querySelector('#view-picture').src.includes('latest.jpg')"
    )
    opens = desk.house.fleet.cameras["cam1"].record.opens
    async with page.expect_response(lambda answer: answer.url.endswith("/snapshot")) as answer:
        await page.click("#view-now")
    assert (await (await answer.value).json())["result"] == "ok"
    assert desk.house.fleet.cameras["cam1"].record.opens > opens
    for width in (320, 375, 800):  # nothing is cut off on a small phone
        await page.set_viewport_size({"width": width, "height": 700})
        assert await page.evaluate("document.querySelector('#view').scrollWidth <= innerWidth"), (
            width
        )
    await page.click("#view-close")
    await expect(page.locator("#view")).to_be_hidden()


async def test_the_worst_camera_is_first_and_keeps_the_focus(
    tmp_path: Path, wall: StartWall
) -> None:
    """A camera that fails moves to the front.

    Well again it goes back to its place; who had the focus still has it.
    """
    room = await wall(fleet()[:3])
    page = await room.page()
    first = page.locator(".tile >> nth=0")
    await page.wait_for_function("() => document.querySelectorAll('.tile.fresh').length === 3")
    await expect(first).to_have_attribute("data-id", "cam1")
    await page.focus(tile(page, "cam3"))
    camera = room.desk.house.fleet.cameras["cam3"]
    camera.fault = Fault.parse("status:404:SETUP")
    await expect(first).to_have_attribute("data-id", "cam3")
    assert await page.evaluate("document.activeElement.dataset.id") == "cam3"
    camera.fault = Fault()
    await expect(first).to_have_attribute("data-id", "cam1")
    order = "[...document.querySelectorAll('.tile')].map(tile => tile.dataset.id)"
    await page.wait_for_function(f"() => {order}.join() === 'cam1,cam2,cam3'")
    assert await page.evaluate("document.activeElement.dataset.id") == "cam3"


async def test_from_camera_to_camera_and_from_picture_to_picture(
    tmp_path: Path, wall: StartWall
) -> None:
    """Buttons and arrow keys; the facts below an archived picture are its own."""
    room = await wall(fleet()[:3])
    desk = room.desk
    await desk.until(lambda: len(list((desk.output / "cam1").rglob("*Z.jpg"))) >= 3)
    await desk.until(lambda: desk.facts("cam3").get("captured_at"))
    desk.house.fleet.cameras["cam1"].fault = Fault.parse("status:404:SETUP")
    await desk.until(lambda: desk.facts("cam1")["attempt"]["result"] == "not-found")
    page = await room.page("/#cam1")
    name, facts = page.locator("#view-name"), page.locator("#view-facts")
    await expect(facts).to_contain_text("not-found")
    await expect(page.locator("#view-label")).to_be_visible()
    await expect(page.locator("#view-scrub")).to_be_enabled()
    await page.click("#view-earlier")
    await page.wait_for_function(
        "() => document.querySelector('#view-picture').src.includes('/archive/')"
    )
    second = await page.get_attribute("#view-picture", "src") or ""
    pictures = sorted(
        path.relative_to(desk.output / "cam1") for path in (desk.output / "cam1").rglob("*Z.jpg")
    )
    assert second.endswith(str(pictures[-2])), "the one before the newest"
    await expect(facts).to_contain_text(str(pictures[-2]))
    await expect(facts).to_contain_text(re.compile("640.360"))
    kilobytes = round((desk.output / "cam1" / pictures[-2]).stat().st_size / 1024)
    await expect(facts).to_contain_text(f"{kilobytes} KB")
    for words in ("not-found", "Failures in a row", "Sessions"):
        await expect(facts).not_to_contain_text(words)
    await expect(page.locator("#view-label")).to_be_hidden()
    await page.click("#view-later")
    await page.wait_for_function(
        f"() => document.querySelector('#view-picture').src.endsWith('{pictures[-1]}')"
    )
    await page.click("#view-later")
    await page.wait_for_function(
        "() => document.querySelector('#view-picture').src.includes('latest.jpg')"
    )
    await expect(facts).to_contain_text("not-found")
    await page.click("#view-next")
    await expect(name).to_have_text("Camera 2")
    await page.keyboard.press("ArrowRight")
    await expect(name).to_have_text("Camera 3")
    await page.keyboard.press("ArrowRight")
    await expect(name).to_have_text("Camera 1")  # round, in the wall's order
    await page.click("#view-previous")
    await expect(name).to_have_text("Camera 3")
    await expect(page.locator("#view-scrub")).to_be_enabled()
    await page.focus("#view-scrub")
    await page.keyboard.press("ArrowLeft")
    # In the archive's strip arrows go through pictures
    await expect(name).to_have_text("Camera 3")


async def test_an_archived_picture_keeps_its_facts_and_its_camera(
    tmp_path: Path, wall: StartWall
) -> None:
    """Events of newer pictures change nothing below it.

    Who goes on to the next camera while it is sought sees that one.
    """
    room = await wall(fleet()[:3])
    desk = room.desk
    await desk.until(lambda: len(list((desk.output / "cam1").rglob("*Z.jpg"))) >= 3)
    await desk.until(lambda: desk.facts("cam2").get("captured_at"))
    page = await room.page("/#cam1")
    name, facts = page.locator("#view-name"), page.locator("#view-facts")
    await expect(page.locator("#view-scrub")).to_be_enabled()
    await page.click("#view-earlier")
    await page.wait_for_function(
        "() => document.querySelector('#view-picture').src.includes('/archive/')"
    )
    path = (await page.get_attribute("#view-picture", "src") or "").rpartition("/archive/")[2]
    await expect(facts).to_contain_text(re.compile("640.360"))
    newest = await page.get_attribute(f"{tile(page, 'cam1')} img", "src")
    await changed(page, f"{tile(page, 'cam1')} img", "src", newest)
    await expect(facts).to_contain_text(path)
    await expect(facts).to_contain_text(re.compile("640.360"))
    await page.evaluate(
        "() => { document.querySelector('#view-newest').click();"
        " document.querySelector('#view-earlier').click();"
        " document.querySelector('#view-next').click(); }"
    )
    await expect(name).to_have_text("Camera 2")
    await page.wait_for_function(
        "() => document.querySelector('#view-picture').src.includes('/cam2/latest.jpg')"
    )


async def test_live_is_offered_only_where_its_address_leads(
    tmp_path: Path, wall: StartWall
) -> None:
    """A go2rtc on this machine's loopback: not for a viewer on another machine.

    With `page` for everybody.
    """
    room = await wall(
        fleet()[:1],
        http='hosts = ["cams.test"]\n',
        more='[go2rtc]\napi = "http://127.0.0.1:1984"',
        go2rtc="true",
    )
    page = await room.page("/#cam1")
    await expect(page.locator("#view-live")).to_be_visible()
    reachable = (
        "([url, here]) => import('/wall/facts.js').then(facts => facts.reachable(url, here))"
    )
    for url, here, expected in (
        ("http://127.0.0.1:1984", "cams.lan", False),
        ("http://localhost:1984", "192.0.2.7", False),
        ("http://[::1]:1984", "cams.lan", False),
        ("http://127.0.0.1:1984", "localhost", True),
        ("http://localhost:1984", "[::1]", True),
        ("http://192.0.2.7:1984", "cams.lan", True),
        ("https://live.example/go2rtc", "cams.lan", True),
    ):
        assert await page.evaluate(reachable, [url, here]) is expected, (url, here)
    port = room.address.rpartition(":")[2]
    # A name that leads here, as from another machine
    elsewhere = await (await room.browser.new_context()).new_page()
    await elsewhere.goto(f"http://cams.test:{port}/#cam1")
    await expect(elsewhere.locator("#view-facts")).to_contain_text(re.compile("640.360"))
    await expect(elsewhere.locator("#view-live")).to_be_hidden()


async def test_two_hundred_cameras_for_a_minute_leave_nothing_behind(
    tmp_path: Path, wall: StartWall
) -> None:
    """Nodes of the page and open requests do not grow, and all cameras are fresh all the while."""
    cameras = [SimulatedCamera(f"cam{n}", f"Camera {n}", gop=2, fps=2.0) for n in range(200)]
    # Twice what they need
    room = await wall(cameras, interval="10s", more="[polling]\nopen_rate = 40")
    desk = room.desk

    def counted(n: int) -> Callable[[], bool]:
        return lambda: (
            sum(c["polling"]["results"].get("ok", 0) for c in desk.client.get("/v1/cameras")) >= n
        )

    await desk.until(counted(200))
    page = await room.page()
    await expect(page.locator(".tile")).to_have_count(200)
    await page.wait_for_function(
        "() => [...document.querySelectorAll('.tile img')].filter(i => i.src).length > 20"
    )
    nodes = await page.evaluate("document.querySelectorAll('*').length")
    going: set[object] = set()
    # Playwright takes no built-in
    page.on("request", lambda request: going.add(request))  # noqa: PLW0108
    page.on("requestfinished", lambda request: going.discard(request))  # noqa: PLW0108
    page.on("requestfailed", lambda request: going.discard(request))  # noqa: PLW0108
    await desk.until(counted(1400), seconds=180)  # a minute of polling
    assert await page.evaluate("document.querySelectorAll('*').length") == nodes
    await expect(page.locator("#count-stale")).to_have_text("0")
    async with asyncio.timeout(60):
        while len(going) > 6:
            await asyncio.sleep(0.1)


async def test_a_late_picture_is_never_shown_for_another_camera(
    tmp_path: Path, wall: StartWall
) -> None:
    """The first camera's picture comes when another one is looked at.

    A tile whose first load failed gets its picture.
    """
    room = await wall(fleet()[:3], interval="100s")
    await room.desk.until(lambda: all(c["latest"] for c in room.desk.client.get("/v1/cameras")))
    page = await room.page("/healthz")
    held: list[Route] = []
    failed: list[Route] = []

    async def hold(route: Route) -> None:
        held.append(route)

    async def fail_once(route: Route) -> None:
        failed.append(route)
        await (route.abort() if len(failed) == 1 else route.continue_())

    await page.route(re.compile(r"/cam1/latest\.jpg\?at="), hold)
    await page.route(re.compile(r"/cam3/latest\.jpg\?width="), fail_once)
    await page.goto(f"http://{room.address}/#cam1")
    await expect(page.locator("#view-name")).to_have_text("Camera 1")
    while not held:
        await page.wait_for_timeout(20)
    await page.keyboard.press("Escape")
    await page.click(tile(page, "cam2"))
    shown = await changed(page, "#view-picture", "src", None)
    assert "/cam2/" in shown
    for route in held:
        await route.continue_()
    await page.wait_for_timeout(500)  # enough for a wrong one to come
    assert "/cam2/" in (await page.get_attribute("#view-picture", "src") or "")
    await page.wait_for_function(
        "() => document.querySelector('.tile[data-id=cam3] img').src.includes('/cam3/')"
    )
    room.complaints = [text for text in room.complaints if "ERR_FAILED" not in text]
