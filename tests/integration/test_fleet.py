"""Several hosts, one fleet: by the cameras' own record never a session too many, or too early."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
from fleet_hosts import INTERVAL_S, FleetHosts, fleet_of
from support import free_port

from camserver.client import ApiRefusal
from camserver.fleet.authority import issue, make_authority
from camserver.fleet.tls import client_context

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetHosts]:
    async with fleet_of(tmp_path) as fleet:
        yield fleet


async def start(fleet: FleetHosts, *names: str) -> None:
    for name in names:
        await (await fleet.host(name)).start()
    await fleet.until_shared()
    await fleet.until_polled()


async def test_what_a_host_says_of_its_fleet(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b")
    description = json.loads((files("camserver.api") / "openapi.json").read_text())
    view = fleet.hosts["a"].view()
    schema = {"components": description["components"], "$ref": "#/components/schemas/Fleet"}
    jsonschema.Draft202012Validator(schema).validate(view)
    assert [host["host"] for host in view["hosts"]] == ["a", "b"]

    def metrics() -> bytes:
        socket = str(fleet.hosts["a"].socket)
        command = ["curl", "-s", "--unix-socket", socket, "http://x/metrics"]
        return subprocess.check_output(command)

    # A camera that was polled is fresh when its picture is on the disk
    await fleet.until(lambda: metrics().count(b"camserver_freshness_seconds{") >= view["owned"])
    text = await asyncio.to_thread(metrics)
    assert b"camserver_fleet_members 2.0" in text
    assert text.count(b"camserver_freshness_seconds{") == view["owned"], "only of its own cameras"
    await fleet.until(
        lambda: all(c["age_s"] is not None for c in fleet.hosts["b"].client.get("/v1/cameras"))
    )
    cameras = await asyncio.to_thread(fleet.hosts["a"].client.get, "/v1/cameras")
    assert {camera["host"] for camera in cameras} == {"a", "b"}
    assert all(camera["from_owner"] and camera["age_s"] < 10 for camera in cameras)
    assert sum(camera["polled_here"] for camera in cameras) == view["owned"]
    assert sum(host["owned"] for host in view["hosts"]) == len(fleet.house.fleet.cameras)


async def test_any_host_shows_the_pictures_of_all(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b")
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    cameras = await asyncio.to_thread(a.client.get, "/v1/cameras")
    elsewhere = [camera["id"] for camera in cameras if camera["host"] == "b"]
    for camera in elsewhere:
        await fleet.until((b.output / camera / "latest.jpg").exists)
        latest = await asyncio.to_thread(a.client.latest, camera)
        assert latest.jpeg.startswith(b"\xff\xd8")
        assert latest.jpeg.endswith(b"\xff\xd9")
        assert latest.facts["source"] == "rtsp"
        assert not (a.output / camera).exists(), "it is on the disk of its owner only"
    taken = await asyncio.to_thread(a.client.snapshot, elsewhere[0])
    assert taken.jpeg.startswith(b"\xff\xd8")
    day = taken.facts["captured_at"][:10]
    archive = f"/v1/cameras/{elsewhere[0]}/archive?day={day}"
    assert await asyncio.to_thread(a.client.get, archive)
    assert fleet.verdict() == {}


async def test_any_host_has_young_pictures_of_all(fleet: FleetHosts) -> None:
    address = f"127.0.0.1:{free_port()}"
    await (await fleet.host("a", http=address)).start()
    await start(fleet, "b")
    client = fleet.hosts["a"].client
    owner_of = {row["id"]: row["host"] for row in await fleet.get(client, "/v1/cameras")}
    elsewhere = next(camera for camera, host in owner_of.items() if host == "b")
    asked_at = datetime.now(UTC) - timedelta(seconds=0.002)  # the facts have milliseconds
    picture = await asyncio.to_thread(client.latest, elsewhere, max_age="1ms", wait=60)
    assert picture.captured_at is not None
    assert picture.captured_at >= asked_at
    facts = await fleet.get(client, f"/v1/cameras/{elsewhere}/latest.json?max_age=1h")
    assert datetime.fromisoformat(facts["captured_at"]) >= picture.captured_at
    asked_at = datetime.now(UTC) - timedelta(seconds=0.002)
    lines = await asyncio.to_thread(lambda: list(client.latest_of(max_age="1ms", wait="60s")))
    assert {line["camera"]: line.get("host", "a") for line in lines} == owner_of
    assert all(datetime.fromisoformat(line["captured_at"]) >= asked_at for line in lines)
    async with aiohttp.ClientSession() as session:
        url = f"http://{address}/v1/cameras/{elsewhere}/latest.jpg?max_age=1ms"
        async with session.get(url) as answer:
            assert answer.status == 403, "nobody has logged in, and b is told so"
            problem = json.loads(await answer.read())
            assert problem["detail"].endswith("opens no session for this request")
        async with session.get(f"http://{address}/v1/latest?max_age=1ms") as answer:
            said = [json.loads(line) for line in (await answer.read()).splitlines()]
            assert all("error" in line for line in said)
    assert fleet.verdict() == {}


async def test_the_wall_of_any_host_takes_pictures_of_all(fleet: FleetHosts) -> None:
    address = f"127.0.0.1:{free_port()}"
    await (await fleet.host("a", http=address)).start()
    await start(fleet, "b")
    rows = await fleet.get(fleet.hosts["a"].client, "/v1/cameras")
    async with aiohttp.ClientSession(headers={"X-Camserver-Action": "snapshot"}) as session:
        for host in "ab":
            camera = next(row["id"] for row in rows if row["host"] == host)
            url = f"http://{address}/v1/cameras/{camera}/snapshot"
            async with session.post(url) as answer:
                assert (answer.status, await answer.json()) == (
                    200,
                    {"result": "ok", "error": None},
                )
    assert fleet.verdict() == {}


async def test_any_host_tells_what_happens_on_all(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b")
    rows = await fleet.get(fleet.hosts["a"].client, "/v1/cameras")
    listeners = {
        name: await asyncio.create_subprocess_exec(
            *("curl", "-sN", "--unix-socket", str(host.socket), "http://x/v1/events"),
            stdout=asyncio.subprocess.PIPE,
        )
        for name, host in fleet.hosts.items()
    }
    for name, listener in listeners.items():
        assert listener.stdout is not None
        seen: dict[str, set[str | None]] = {}
        async with asyncio.timeout(60):
            while len(seen) < len(rows):
                line = await listener.stdout.readline()
                if line.startswith(b"data: ") and b"snapshot.published" in line:
                    event = json.loads(line[6:])
                    seen.setdefault(event["camera"], set()).add(event.get("from_host"))
        others = {row["id"]: {row["host"] if row["host"] != name else None} for row in rows}
        assert seen == others, "each event once, from the host that polls the camera"
        listener.kill()
        await listener.wait()


async def test_only_members_of_the_fleet_are_answered(fleet: FleetHosts, tmp_path: Path) -> None:
    """Without a certificate of the fleet nothing; and each host speaks only for itself."""
    await start(fleet, "a", "b")
    hosts = await asyncio.to_thread(lambda: fleet.hosts["a"].view()["hosts"])
    url, epochs = hosts[0]["url"], {host["host"]: host["epoch"] for host in hosts}
    authority, other = fleet.folder / "ca" / "ca.pem", tmp_path / "other"
    make_authority(other, "other")
    stranger = client_context(authority, *issue(other, "b"))
    nobody = ssl.create_default_context(cafile=authority)
    member = client_context(authority, fleet.folder / "ca/b.pem", fleet.folder / "ca/b.key")
    async with aiohttp.ClientSession() as session:
        for context in (stranger, nobody):
            with pytest.raises((aiohttp.ClientError, OSError)):
                async with session.get(f"{url}/v1/cameras", ssl=context, server_hostname="a"):
                    pass
        async with session.get(f"{url}/v1/cameras", ssl=member, server_hostname="a") as answer:
            assert answer.status == 200
        for host, status in (("b", 200), ("a", 403), ("c", 403)):
            question = {"host": host, "epoch": epochs.get(host, 1), "yours": epochs["a"]}
            async with session.post(
                f"{url}/v1/fleet/promise", json=question, ssl=member, server_hostname="a"
            ) as answer:
                assert answer.status == status
        async with session.post(
            f"{url}/v1/fleet/promise", data=b"[]", ssl=member, server_hostname="a"
        ) as answer:
            assert answer.status == 400
        async with session.post(
            f"{url}/v1/cameras/cam0/lease", ssl=member, server_hostname="a"
        ) as answer:
            assert answer.status == 404


async def test_the_doctor_examines_a_fleet(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b")

    async def doctor() -> tuple[int | None, list[dict[str, Any]]]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "camserver", "doctor", "--fleet", "--json"),
            *("--config", str(fleet.hosts["a"].config)),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        return process.returncode, json.loads(out)

    status, found = await doctor()
    assert (status, [f["text"] for f in found if not f["ok"]]) == (0, [])
    assert {text.partition(":")[0].split()[0] for text in (f["text"] for f in found)} == {
        "etcd",
        "host",
    }
    fleet.hosts["b"].signal(signal.SIGKILL)
    await fleet.hosts["b"].ended()
    status, found = await doctor()
    assert status == 1
    assert any("host b" in finding["text"] and not finding["ok"] for finding in found)


async def test_hosts_that_vouch_go_on_without_their_store(fleet: FleetHosts) -> None:
    for name in ("a", "b"):
        await (await fleet.host(name, "vouch = true")).start()
    await fleet.until_shared()
    fleet.etcd.signal(signal.SIGSTOP)
    away_s, since = 12.0, time.monotonic()
    await fleet.until(lambda: time.monotonic() - since > away_s)
    for _ in range(3):
        await fleet.until_polled()
    fleet.etcd.signal(signal.SIGCONT)
    await fleet.until_polled()
    hosts = fleet.hosts.values()
    assert not any("fleet.invalid" in host.log.read_text() for host in hosts)
    assert fleet.verdict() == {}


async def test_hosts_go_on_without_their_store_during_a_hold(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b")
    hosts = fleet.hosts.values()

    async def say(*words: str) -> int | None:
        command = ("fleet", *words, "--socket", str(fleet.hosts["a"].socket))
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "camserver", *command)
        return await process.wait()

    assert await say("hold", "--for", "5s") != 0
    assert await say("hold", "--for", "60s") == 0
    fleet.etcd.signal(signal.SIGSTOP)
    away_s, since = 12.0, time.monotonic()
    await fleet.until(lambda: time.monotonic() - since > away_s)
    for _ in range(3):
        await fleet.until_polled()
    assert all(host.view()["hold_s"] == 60.0 for host in hosts)
    fleet.etcd.signal(signal.SIGCONT)
    await fleet.until(lambda: not any(host.view()["store"]["problem"] for host in hosts))
    assert await say("release") == 0
    assert all(0.0 < host.view()["valid_s"] <= 5.0 for host in hosts)
    await fleet.until_polled()
    assert not any("fleet.invalid" in host.log.read_text() for host in hosts)
    assert fleet.verdict() == {}


async def test_a_host_that_is_killed_is_replaced(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b", "c")
    fleet.hosts["a"].signal(signal.SIGKILL)
    assert await fleet.hosts["a"].ended() == -signal.SIGKILL
    await fleet.until_shared()
    await fleet.until_polled()
    await fleet.hosts["a"].start()
    await fleet.until_shared()
    await fleet.until_polled()
    assert fleet.verdict() == {}


async def test_a_host_that_is_stopped_is_ended_by_the_kernel(fleet: FleetHosts) -> None:
    """A stopped process keeps its sessions, and would go on with them when it is continued."""
    await start(fleet, "a", "b")
    fleet.hosts["a"].signal(signal.SIGSTOP)
    assert await fleet.hosts["a"].ended() == -signal.SIGKILL
    await fleet.until_shared()
    await fleet.until_polled()
    assert fleet.verdict() == {}


@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_a_host_that_is_cut_from_the_store_is_replaced(
    fleet: FleetHosts, direction: str
) -> None:
    """It still reaches its cameras. Its sessions have ended before another host has one."""
    await start(fleet, "a", "b")
    for link in fleet.hosts["a"].links:
        link.cut(direction)
    await fleet.until(lambda: fleet.hosts["b"].owned == len(fleet.opened))
    await fleet.until_polled()
    for link in fleet.hosts["a"].links:
        link.heal()
    await fleet.until_shared()
    await fleet.until_polled()
    assert fleet.verdict() == {}


async def test_a_host_that_is_drained_hands_over(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b")
    a, b = fleet.hosts["a"], fleet.hosts["b"]
    answer = await asyncio.to_thread(b.client.post, "/v1/fleet/drain?host=a")
    assert answer == {"host": "a", "drained": True}
    await fleet.until(lambda: (a.owned, b.owned) == (0, len(fleet.opened)))
    await fleet.until_polled()
    await asyncio.to_thread(a.client.post, "/v1/fleet/undrain?host=a")
    await fleet.until_shared()
    with pytest.raises(ApiRefusal, match="no host 'nobody' in the fleet"):
        await asyncio.to_thread(a.client.post, "/v1/fleet/drain?host=nobody")
    assert fleet.verdict() == {}


async def test_a_rolling_restart_loses_no_interval(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b", "c")
    since = time.monotonic()
    for host in fleet.hosts.values():
        assert await host.stop() == 0
        await fleet.until_shared()
        await host.start()
        await fleet.until_shared()
    await fleet.until_polled()
    assert fleet.verdict() == {}
    assert fleet.longest_gap_s(since) < INTERVAL_S + 5, "the limit is for a busy machine"


async def test_the_loss_of_a_node_of_three_ends_nothing(tmp_path: Path) -> None:
    """Its leader: the others elect a new one."""
    async with fleet_of(tmp_path, nodes=3) as fleet:
        await start(fleet, "a", "b")
        leader = await asyncio.to_thread(fleet.etcd.leader)
        leader.stop()
        for _ in range(3):
            await fleet.until_polled()
        hosts = fleet.hosts.values()
        assert not any("fleet.fenced" in host.log.read_text() for host in hosts)
        assert fleet.verdict() == {}


async def test_without_its_store_a_fleet_stops_and_goes_on(fleet: FleetHosts) -> None:
    await start(fleet, "a", "b")
    fleet.etcd.signal(signal.SIGSTOP)
    hosts = fleet.hosts.values()
    await fleet.until(lambda: all(host.view()["valid_s"] == 0 for host in hosts))
    cameras = fleet.house.fleet.cameras.values()
    await fleet.until(lambda: not any(camera.record.sessions_now for camera in cameras))
    opened = {camera.id: camera.record.opens for camera in cameras}
    await asyncio.sleep(3)  # longer than any interval
    assert {camera.id: camera.record.opens for camera in cameras} == opened
    fleet.etcd.signal(signal.SIGCONT)
    await fleet.until_polled()
    assert fleet.verdict() == {}
