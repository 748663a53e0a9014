"""The wall of a host shows the cameras of all hosts, in a real browser."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from browser import browser
from fleet_hosts import fleet_of
from playwright.async_api import expect
from support import free_port

pytestmark = pytest.mark.anyio


async def test_a_camera_of_a_host_that_dies_is_shown_as_such_and_is_fresh_again(
    tmp_path: Path,
) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with fleet_of(tmp_path) as fleet, browser() as chromium:
        await (await fleet.host("a", http=address)).start()
        b = await fleet.host("b")
        await b.start()
        await fleet.until_shared()
        await fleet.until_polled()
        page = await chromium.new_page()
        await page.goto(f"http://{address}/")
        cameras = await fleet.get(fleet.hosts["a"].client, "/v1/cameras")
        of_b = next(camera["id"] for camera in cameras if camera["host"] == "b")
        tile = page.locator(f".tile[data-id={of_b}]")
        await expect(tile).to_have_class("tile fresh")
        await expect(tile.locator("img")).to_have_js_property("complete", value=True)
        first = await tile.locator("img").get_attribute("src")
        await expect(tile.locator("img")).not_to_have_attribute("src", first or "")
        b.signal(signal.SIGKILL)
        await b.ended()
        await expect(tile.locator(".label")).to_have_text("no news from host b")
        await expect(tile.locator(".label")).to_be_hidden()
        await expect(tile).to_have_class("tile fresh")
        assert fleet.verdict() == {}
