"""A browser for tests: Debian's chromium, driven by Playwright.

It keeps the errors and warnings that a page writes to its console.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from desk import Desk
from house import house_of
from playwright.async_api import Browser, Page, async_playwright, expect
from support import free_port

from camserver.simulator.camera import SimulatedCamera

CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP cams.test 127.0.0.1",
)

# In milliseconds. It is a limit for a busy machine, not the usual time.
expect.set_options(timeout=60_000)


class Room:
    """A browser that opens the wall page."""

    def __init__(self, desk: Desk, browser: Browser, address: str) -> None:
        self.desk, self.browser, self.address = desk, browser, address
        self.complaints: list[str] = []

    async def page(self, path: str = "/", **options: Any) -> Page:
        context = await self.browser.new_context(
            **({"viewport": {"width": 1280, "height": 800}} | options)
        )
        page = await context.new_page()
        page.on(
            "console",
            lambda line: (
                self.complaints.append(f"{line.text} {line.location['url']}")
                if line.type in ("error", "warning")
                else None
            ),
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        await page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.error('CSP ' +"
            " e.violatedDirective))"
        )
        await page.goto(f"http://{self.address}{path}")
        return page


StartWall = Callable[..., Awaitable[Room]]
"""The fixture `wall`: simulated cameras, `http`, `more` tables, and keys of [defaults]."""


@contextlib.asynccontextmanager
async def wall_of(
    folder: Path,
    cameras: list[SimulatedCamera],
    *,
    http: str = "",
    more: str = "",
    **defaults: Any,
) -> AsyncIterator[Room]:
    """A daemon with a wall page, and a browser. The page must report no error or warning."""
    async with house_of(cameras) as house:
        desk = Desk(house, folder)
        address = f"127.0.0.1:{free_port()}"
        desk.http, desk.more = f'{address}"\n{http}#', more
        desk.write(**({"interval": "1s"} | defaults))
        async with desk.daemon(), browser() as chromium:
            room = Room(desk, chromium, address)
            yield room
            assert not room.complaints, room.complaints


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        try:
            yield chromium
        finally:
            await chromium.close()
            await asyncio.sleep(0)
