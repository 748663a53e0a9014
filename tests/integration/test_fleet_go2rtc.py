"""go2rtc on one host of a fleet shows a camera that another host polls: its session is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleet_hosts import UNCLEAN_S, FleetHosts, fleet_of
from go2rtc_beside import Go2rtc

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetHosts]:
    async with fleet_of(tmp_path, cameras=4) as fleet:
        yield fleet


async def until_others_are_polled(fleet: FleetHosts, camera: str) -> None:
    """Until all cameras but one have seen three new sessions."""
    before = {other: len(times) for other, times in fleet.opened.items() if other != camera}
    await fleet.until(lambda: all(len(fleet.opened[c]) > n + 2 for c, n in before.items()))


async def test_the_owner_counts_what_another_hosts_go2rtc_shows(fleet: FleetHosts) -> None:
    cameras = fleet.house.fleet.inventory(
        interval="1s", unclean_cooldown=f"{UNCLEAN_S + 0.5:g}s", lease_wait="300ms"
    ).replace("[defaults]\n", "[defaults]\ngo2rtc = true\n")
    beside = {name: Go2rtc() for name in "ab"}
    for name, go2rtc in beside.items():
        await (await fleet.host(name, cameras=f"{go2rtc.table}\n{cameras}")).start()
    await fleet.until_shared()
    await fleet.until_polled()
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    rows = await fleet.get(a.client, "/v1/cameras")
    camera = next(row["id"] for row in rows if row["host"] == "a")
    record = fleet.house.fleet.cameras[camera].record

    def held() -> list[str]:
        return [
            each["label"]
            for device in b.client.get("/v1/leases")
            for each in device["held"]
            if each["holder"] == "live"
        ]

    async with beside["b"].run(f"{camera}={fleet.house.fleet.url(camera)}"):
        while True:
            try:
                async with beside["b"].viewer(camera):
                    await fleet.until(held)
                    assert held() == [f"go2rtc {camera} on host b"]
                    opened = record.opens
                    await until_others_are_polled(fleet, camera)
                    assert record.opens == opened, "nobody polls beside it"
                    assert record.sessions_now == 1
                break
            except AssertionError as error:
                if "nothing to watch" not in str(error):
                    raise
        await fleet.until(lambda: not held())
    await fleet.until_polled()
    # go2rtc may have asked for a session while a poll had it, and was refused
    assert {c: f for c, f in fleet.verdict().items() if c != camera} == {}
