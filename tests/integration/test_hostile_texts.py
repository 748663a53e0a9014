"""What a hostile camera, program or user name says, in every place where people read it."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from browser import Room, wall_of
from desk import Desk
from hostile import (
    HTTP_PLACES,
    LIBAV_PLACES,
    MARK,
    PASSWORD,
    RTSP_PLACES,
    hostile_camera,
    http_url,
    rtsp_url,
)
from playwright.async_api import expect

from camserver.simulator.camera import SimulatedCamera

MAX_LINE = 4000
"""Characters of a line of the log or of a terminal: 1000 of a camera's text, and our own words."""


def entries(port: int) -> dict[str, dict[str, str]]:
    """Inventory keys of one camera for each text, and for each of our readers."""
    native = {
        f"n-{place}": {"url": rtsp_url(port, place), "engine": "native"} for place in RTSP_PLACES
    }
    libav = {
        f"l-{place}": {"url": rtsp_url(port, place), "engine": "libav"} for place in LIBAV_PLACES
    }
    web = {f"w-{place}": {"snapshot_url": http_url(port, place)} for place in HTTP_PLACES}
    return native | libav | web


def inventory(cameras: dict[str, dict[str, str]]) -> str:
    return "\n".join(
        f'[[camera]]\nid = "{name}"\ndevice = "{name}"\n'
        + "".join(f'{key} = "{value}"\n' for key, value in keys.items())
        + f'username = "viewer"\npassword = "{PASSWORD}"\n'
        for name, keys in cameras.items()
    )


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[tuple[Room, list[str]]]:
    """A daemon that has polled every hostile camera, its wall, and the cameras' ids."""
    async with hostile_camera() as port:
        cameras = entries(port)
        more = "[polling]\nopen_rate = 100\n" + inventory(cameras)
        keys = {"interval": "2s", "timeout": "5s"}
        async with wall_of(tmp_path, [SimulatedCamera("cam", "Gate")], more=more, **keys) as room:
            yield room, list(cameras)


def shown_badly(text: str) -> str:
    """Why `text` may not be shown on a terminal or a page; nothing when it may."""
    for character in set(text) - {"\n", "\t"}:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs"):
            return f"it has {character!r}"
    if (longest := max(map(len, text.splitlines()), default=0)) > MAX_LINE:
        return f"a line has {longest} characters"
    return "it has the password" if PASSWORD in text else ""


def texts_of(value: Any) -> list[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in texts_of(each)]
    return [text for each in value for text in texts_of(each)] if isinstance(value, list) else []


async def command(desk: Desk, *arguments: str) -> str:
    process = await desk.run(*arguments)
    return b"".join(await process.communicate()).decode()


async def answers(desk: Desk, cameras: list[str]) -> dict[str, str]:
    """What the daemon says, by its place. JSON is shown as a program sees it."""
    found = {"log": desk.log.read_text()}
    for name in cameras:
        facts = (desk.output / name / "latest.json").read_text()
        found[f"latest.json of {name}"] = "\n".join(texts_of(json.loads(facts)))
    for route in ("/v1/cameras", "/v1/leases", "/healthz", "/v1/cameras/w-text"):
        answer = await asyncio.to_thread(desk.client.get, route)
        found[route] = "\n".join(texts_of(answer))
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(desk.socket))) as session:
        async with session.get("http://x/metrics") as answer:
            found["metrics"] = await answer.text()
        async with session.get("http://x/v1/events", headers={"Last-Event-ID": "1"}) as answer:
            found["events"] = "\n".join(await said_of_all(answer.content, cameras))
    return found


async def said_of_all(stream: aiohttp.StreamReader, cameras: list[str]) -> list[str]:
    """The texts of all events until there was a failure of each camera."""
    found, missing = list[str](), set(cameras)
    async with asyncio.timeout(120):
        async for line in stream:
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                found += texts_of(event)
                missing -= {event.get("camera")} if event["event"] == "poll.failed" else set()
                if not missing:
                    break
    return found


async def commands(desk: Desk, folder: Path) -> dict[str, str]:
    """What commands print, beside the daemon and without it."""
    config, alone = ("--config", str(desk.config)), folder / "alone.toml"
    text = desk.config.read_text().replace(str(desk.output), str(folder / "alone"))
    alone.write_text(text.replace(str(desk.socket), str(folder / "no.sock")))
    wanted = {
        "status": ("status", *config),
        "status --json": ("status", *config, "--json"),
        "leases": ("leases",),
        "snapshot": ("snapshot", *config, "w-text"),
        "snapshot alone": ("snapshot", "--config", str(alone), "w-text"),
        "doctor": ("doctor", *config, "w-text"),
        "doctor alone": ("doctor", "--config", str(alone), "w-json"),
        "snapshot n-codec": ("snapshot", "--config", str(alone), "n-codec"),
        "doctor n-codec": ("doctor", "--config", str(alone), "n-codec"),
        "doctor n-reason": ("doctor", "--json", "--config", str(alone), "n-reason"),
    }
    printed = await asyncio.gather(*(command(desk, *arguments) for arguments in wanted.values()))
    found = dict(zip(wanted, printed, strict=True))
    return {
        name: "\n".join(texts_of(json.loads(text))) if name.endswith("--json") else text
        for name, text in found.items()
    }


async def test_hostile_texts_are_shown_as_plain_text_everywhere(
    tmp_path: Path, room: tuple[Room, list[str]]
) -> None:
    here, cameras = room
    desk = here.desk

    def all_polled() -> bool:
        return all(desk.facts(name)["attempt"].get("result") for name in cameras)

    await desk.until(all_polled, 120)
    page = await here.page("/#w-text")
    await expect(page.locator("#view")).to_contain_text(MARK)
    assert await page.locator("img[src=x]").count() == 0
    assert await page.title() != "owned"
    places = await answers(desk, cameras) | await commands(desk, tmp_path)
    places["page"] = await page.inner_text("body")
    assert {place: why for place, text in places.items() if (why := shown_badly(text))} == {}
    # The hostile texts came there at all
    shown = {place for place, text in places.items() if MARK in text}
    assert shown >= {
        *("log", "events", "page", "/v1/cameras", "/v1/cameras/w-text", "latest.json of w-text"),
        *("status --json", "snapshot", "snapshot alone", "doctor", "doctor alone"),
    }
