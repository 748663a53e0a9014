"""Name servers that fail, cameras that move to another address, and a host clock that is set.

The daemon is a real one. Its resolver and its clock are those of the machine, in a namespace and
through a library that moves its wall clock.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from house import House, StartFleet, house_of
from name_server import NameServer, name_server
from namespaced import NEEDS_ROOT, daemon_in_namespace, outcome, result, until

from camserver.client import SyncLeaseClient
from camserver.simulator.camera import SimulatedCamera

pytestmark = NEEDS_ROOT


@pytest.fixture
async def dns() -> AsyncIterator[tuple[NameServer, str]]:
    address = f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(250)}.53"
    async with name_server(address) as server:
        yield server, address


def resolver(folder: Path, address: str) -> str:
    """The shell command that makes `address` the name server of a mount namespace."""
    (folder / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:2 attempts:2\n")
    (folder / "nsswitch.conf").write_text("hosts: files dns\npasswd: files\ngroup: files\n")
    return " && ".join(
        f"mount --bind {folder}/{name} /etc/{name}" for name in ("resolv.conf", "nsswitch.conf")
    )


async def goes_on(client: SyncLeaseClient, camera: str) -> None:
    """Wait until a camera has a newer picture, and then another one."""
    for _ in range(2):
        before = outcome(client, camera)["captured_at"]
        await until(lambda before=before: outcome(client, camera)["captured_at"] > before)


async def test_a_name_server_that_fails_costs_the_named_cameras_only(
    tmp_path: Path, fleet: StartFleet, dns: tuple[NameServer, str]
) -> None:
    """Silent, slow, wrong, without the name: each is said, and it goes on when it is mended."""
    server, address = dns
    house = await fleet([SimulatedCamera(c, c, gop=2) for c in ("named", "numbered")])
    port = house.fleet.cameras["named"].port
    named = f"rtsp://gate.test:{port}/stream1"
    house.fleet.url = url_with("named", named, house.fleet.url)  # type: ignore[method-assign]
    server.names["gate.test"] = "127.0.0.1"

    def wrong() -> None:
        server.names["gate.test"] = "127.0.0.99"

    def slow() -> None:
        server.delay_s = 1.5  # less than the resolver waits, more than the poll has left then

    faults: dict[str, tuple[Callable[[], Any], str]] = {
        "silent": (lambda: setattr(server, "is_silent", True), ""),
        "no such name": (server.names.clear, "Name or service not known"),
        "wrong address": (wrong, "connection refused"),
        "slow": (slow, ""),
    }
    async with daemon_in_namespace(
        tmp_path, house, f"{tmp_path}/out", resolver(tmp_path, address), timeout="1s"
    ) as (process, client):
        await until(lambda: result(client, "named") == result(client, "numbered") == "ok")
        for begin, said in faults.values():
            begin()
            await until(lambda: result(client, "named") in ("unreachable", "timeout"))
            await until(lambda said=said: said in (error(client, "named") or "-"))
            await goes_on(client, "numbered")
            server.is_silent, server.delay_s = False, 0.0
            server.names["gate.test"] = "127.0.0.1"
            await until(lambda: result(client, "named") == "ok")
        process.terminate()
        assert await process.wait() == 0


async def test_a_camera_that_moves_to_another_address_is_found_by_its_name(
    tmp_path: Path, fleet: StartFleet, dns: tuple[NameServer, str]
) -> None:
    server, address = dns
    house = await fleet([SimulatedCamera("cam", "here", gop=2)])
    port = house.fleet.cameras["cam"].port
    house.fleet.url = url_with(  # type: ignore[method-assign]
        "cam", f"rtsp://gate.test:{port}/stream1", house.fleet.url
    )
    server.names["gate.test"] = "127.0.0.1"
    async with daemon_in_namespace(
        tmp_path, house, f"{tmp_path}/out", resolver(tmp_path, address)
    ) as (process, client):
        await until(lambda: result(client, "cam") == "ok")
        moved = SimulatedCamera("cam", "there", gop=2, port=port)
        async with house_of([moved], host="127.0.0.2"):
            server.names["gate.test"] = "127.0.0.2"
            await house.fleet._power_off("cam")
            await until(lambda: moved.record.opens >= 2)
            await until(lambda: result(client, "cam") == "ok")
            process.terminate()
            assert await process.wait() == 0
        await house.fleet._listen(house.fleet.cameras["cam"])


def url_with(camera: str, url: str, others: Callable[..., str]) -> Callable[..., str]:
    return lambda name, *rest: url if name == camera else others(name, *rest)


def error(client: SyncLeaseClient, camera: str) -> str | None:
    said: str | None = outcome(client, camera)["attempt"]["error"]
    return said


@pytest.fixture
async def house(fleet: StartFleet) -> House:
    return await fleet([SimulatedCamera(c, c, gop=2) for c in ("gate", "yard")])


async def test_a_host_clock_that_is_set_by_an_hour(tmp_path: Path, house: House) -> None:
    """Pictures go on in both directions, none is deleted, and ages do not follow the clock."""
    offset, library = tmp_path / "offset", tmp_path / "set_clock.so"
    offset.write_text("0")
    source = Path(__file__).parent.parent / "set_clock.c"
    await asyncio.to_thread(
        subprocess.run, ["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
    )
    faked = f"export LD_PRELOAD={library} CLOCK_OFFSET={offset}"
    async with daemon_in_namespace(
        tmp_path, house, f"{tmp_path}/out", faked, more='[retention]\nmax_age = "30min"'
    ) as (process, client):
        await until(lambda: result(client, "gate") == result(client, "yard") == "ok")
        await until(lambda: archive(tmp_path))
        archived = archive(tmp_path)
        opens = house.fleet.cameras["gate"].record.opens
        for step in ("3600", "-3600", "0"):
            offset.write_text(step)
            for camera in ("gate", "yard"):
                await changes(client, camera)
                facts = client.get(f"/v1/cameras/{camera}")
                assert 0 <= facts["age_s"] < 30, (step, facts)
                assert facts["latest"]["attempt"]["result"] == "ok"
            if step == "3600":  # a new rule is applied at once: everything older is an hour old now
                config = tmp_path / "c.toml"
                config.write_text(config.read_text().replace("30min", "29min"))
                await until(lambda: "retention.held" in (tmp_path / "log").read_text())
        assert archived <= archive(tmp_path)
        assert house.fleet.cameras["gate"].record.opens > opens
        process.terminate()
        assert await process.wait() == 0
    assert house.fleet.cameras["gate"].record.sessions_max == 1


def archive(folder: Path) -> set[Path]:
    """The archived pictures."""
    return set((folder / "out").glob("*/2*/*/*/*.jpg"))


async def changes(client: SyncLeaseClient, camera: str) -> None:
    """Wait until a camera has another picture, and then one more, whatever their times are."""
    for _ in range(2):
        before = outcome(client, camera)["captured_at"]
        await until(lambda before=before: outcome(client, camera)["captured_at"] != before)
