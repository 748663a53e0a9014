"""The freshness contract: a picture that is young enough, or the reason; by the camera's record."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from desk import Desk, StartDaemon
from support import free_port
from web import ask

from camserver.client import ApiRefusal, LeaseClient
from camserver.simulator.camera import Fault, SimulatedCamera

JPEG = b"\xff\xd8", b"\xff\xd9"


def gate() -> SimulatedCamera:
    return SimulatedCamera("cam", "Gate", gop=2)


def refusing() -> SimulatedCamera:
    return SimulatedCamera("bad", "Bad", fault=Fault("refuse"))


async def first_picture(desk: Desk) -> None:
    await desk.until(lambda: desk.facts().get("captured_at"))


async def test_a_hundred_clients_share_one_session(daemon: StartDaemon) -> None:
    """Each picture is no older than asked for. The camera sees one session, once a second."""
    desk = await daemon([gate()], interval="100s", lease_wait="20s")
    await first_picture(desk)
    client, end, pictures = LeaseClient(desk.socket), time.monotonic() + 6, 0
    record = desk.house.fleet.cameras["cam"].record
    before, started = record.opens, time.monotonic()

    async def work() -> None:
        nonlocal pictures
        while time.monotonic() < end:
            asked_at = datetime.now(UTC)
            picture = await client.latest("cam", max_age=1, wait=60)
            assert picture.captured_at is not None
            # The facts have milliseconds
            assert picture.captured_at >= asked_at - timedelta(seconds=1.001)
            assert (picture.jpeg[:2], picture.jpeg[-2:]) == JPEG
            pictures += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(work())
    assert pictures >= 100
    assert record.sessions_max == 1
    assert 1 <= record.opens - before <= time.monotonic() - started + 1


async def test_a_hundred_who_ask_for_a_dead_camera_hear_why(daemon: StartDaemon) -> None:
    desk = await daemon([refusing()], interval="100s")
    client = LeaseClient(desk.socket)
    answers = await asyncio.gather(
        *(client.latest("bad", max_age="5s") for _ in range(100)), return_exceptions=True
    )
    for answer in answers:
        assert isinstance(answer, ApiRefusal)
        assert answer.status == 503
        assert answer.data["type"] == "urn:camserver:not-fresh"
        assert answer.data["camera"] == "bad"
        assert answer.data["age_s"] is None
        assert answer.data["result"] == "unreachable"
        assert "bad: rtsp: " in str(answer)
        assert answer.data["retry_after_s"] > 0
    polling = (await asyncio.to_thread(desk.client.get, "/v1/cameras"))[0]["polling"]
    assert polling["failures"] <= 2


async def test_an_old_picture_is_given_to_those_who_take_it(daemon: StartDaemon) -> None:
    camera = gate()
    desk = await daemon([camera], interval="100s", timeout="2s")
    await first_picture(desk)
    camera.fault = Fault("deaf")
    client = LeaseClient(desk.socket)
    with pytest.raises(ApiRefusal, match="cam: rtsp: ") as refused:
        await client.latest("cam", max_age=0.001)
    assert refused.value.data["age_s"] > 0
    assert refused.value.data["captured_at"] == desk.facts()["captured_at"]
    old = await client.latest("cam", max_age=0.001, stale_ok=True)
    assert old.facts["captured_at"] == desk.facts()["captured_at"]
    assert (await client.latest("cam", max_age=3600)).facts == old.facts


async def test_a_picture_says_when_it_was_captured(tmp_path: Path, daemon: StartDaemon) -> None:
    address = f"127.0.0.1:{free_port()}"
    desk = await daemon([gate()], http=address, interval="100s")
    await first_picture(desk)
    for path in ("latest.jpg", "latest.jpg?width=160", "latest.json", "latest.jpg?max_age=1h"):
        status, headers, body = await asyncio.to_thread(ask, address, f"/v1/cameras/cam/{path}")
        assert status == 200
        assert headers["X-Captured-At"] == desk.facts()["captured_at"]
        assert 0 <= int(headers["Age"]) < 3600
        assert headers["Cache-Control"] == "no-cache"
        if path == "latest.json":
            assert json.loads(body) == desk.facts()
        else:
            assert headers["Last-Modified"]
    status, headers, _ = await asyncio.to_thread(
        ask, address, "/v1/cameras/cam/latest.jpg", **{"If-None-Match": headers["Etag"]}
    )
    assert (status, headers["X-Captured-At"]) == (304, desk.facts()["captured_at"])


async def test_the_facts_say_what_the_picture_looks_like(daemon: StartDaemon) -> None:
    """Of a stream and of a snapshot URL; the change is known from the second picture on."""
    web = SimulatedCamera("web", "Web", fault=Fault("refuse"), http_port=0)
    desk = await daemon([gate(), web], interval="300ms", lease_wait="60s")
    for camera in ("cam", "web"):
        await desk.until(
            lambda c=camera: (desk.facts(c).get("health") or {}).get("change") is not None
        )
    health = desk.facts()["health"]
    assert health["state"] in ("learning", "ok")
    assert 0.3 < health["brightness"] < 0.6  # bars
    assert health["contrast"] > 0.1
    assert health["sharpness"] > 0.3
    assert health["change"] < 0.2  # a clock runs in it
    other = desk.facts("web")["health"]
    assert other["brightness"] == pytest.approx(health["brightness"], abs=0.1)


async def test_an_anonymous_get_opens_no_session(tmp_path: Path, daemon: StartDaemon) -> None:
    """Neither with actions and without a password, nor for the page of another site."""
    address = f"127.0.0.1:{free_port()}"
    desk = await daemon([gate()], http=f'{address}"\nactions = true #', interval="100s")
    await first_picture(desk)
    opens = desk.house.fleet.cameras["cam"].record.opens
    path = "/v1/cameras/cam/latest.jpg?max_age="
    assert (await asyncio.to_thread(ask, address, path + "1h"))[0] == 200
    status, headers, body = await asyncio.to_thread(ask, address, path + "1ms")
    assert (status, headers["Content-Type"].split(";")[0]) == (403, "application/problem+json")
    problem = json.loads(body)
    assert problem["type"] == "urn:camserver:capture-not-allowed"
    assert problem["detail"].endswith("only with a login: [http] has no password")
    assert problem["age_s"] > 0
    assert "Retry-After" not in headers
    assert (await asyncio.to_thread(ask, address, path + "1ms&stale=ok"))[0] == 200
    status, _, body = await asyncio.to_thread(ask, address, "/v1/latest?max_age=1ms")
    assert status == 200
    assert "only with a login" in json.loads(body)["error"]
    assert desk.house.fleet.cameras["cam"].record.opens == opens


async def test_a_login_and_actions_let_a_program_have_a_picture(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    address = f"127.0.0.1:{free_port()}"
    desk = await daemon(
        [gate()],
        http=f'{address}"\npassword = "secret"\nactions = true #',
        interval="100s",
        lease_wait="20s",
    )
    await first_picture(desk)
    login = {"Authorization": "Basic " + base64.b64encode(b"camserver:secret").decode()}
    path = "/v1/cameras/cam/latest.jpg?max_age=1ms"
    record = desk.house.fleet.cameras["cam"].record
    opens = record.opens
    for foreign in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Referer": "http://evil.example/"},
        {"Origin": "http://evil.example"},
        {"User-Agent": "Mozilla/5.0"},  # over plain http it does not say for which page
    ):
        status, _, body = await asyncio.to_thread(ask, address, path, **login, **foreign)
        assert status == 403
        said = json.loads(body)["detail"]
        assert said.endswith("no picture is taken for a page of another site")
    assert record.opens == opens
    asked_at = datetime.now(UTC)
    status, headers, _ = await asyncio.to_thread(ask, address, path, **login)
    assert status == 200
    assert datetime.fromisoformat(headers["X-Captured-At"]) >= asked_at - timedelta(seconds=0.002)
    assert record.opens == opens + 1


async def test_a_preempted_capture_says_so_to_all(daemon: StartDaemon) -> None:
    camera = gate()
    desk = await daemon([camera], interval="100s", lease_wait="20s", timeout="60s")
    await first_picture(desk)
    camera.fault = Fault("silent")
    client = LeaseClient(desk.socket)
    # By a poll of the schedule: a capture on demand does not give way
    await asyncio.to_thread(desk.write, interval="99s", lease_wait="20s", timeout="60s")
    await asyncio.to_thread(desk.client.post, "/v1/reload")
    await desk.until(lambda: [h for h in desk.held() if h["holder"] == "poller"])
    asking = [asyncio.create_task(client.latest("cam", max_age=0.001)) for _ in range(10)]
    await asyncio.sleep(0)
    async with client.lease("cam"):
        for answer in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(answer, ApiRefusal)
            assert answer.status == 503
            assert answer.data["result"] == "busy"
    assert camera.record.sessions_max == 1


async def test_many_cameras_in_one_answer(daemon: StartDaemon) -> None:
    cameras = [SimulatedCamera(f"gate{n}", "Gate", gop=2) for n in range(3)]
    desk = await daemon([*cameras, gate(), refusing()], interval="100s", lease_wait="20s")
    await desk.until(
        lambda: all((desk.output / c.id / "latest.json").exists() for c in (*cameras, gate()))
    )
    client = LeaseClient(desk.socket)
    asked_at = datetime.now(UTC)
    found = {
        each["camera"]: each
        async for each in client.latest_of("gate*,bad", max_age="1ms", wait="60s")
    }
    assert set(found) == {"gate0", "gate1", "gate2", "bad"}
    assert "bad: rtsp: " in found["bad"]["error"]
    for camera in cameras:
        facts = found[camera.id]
        assert datetime.fromisoformat(facts["captured_at"]) >= asked_at - timedelta(seconds=0.002)
        jpeg = Path(facts["file"]).read_bytes()
        assert (jpeg[:2], len(jpeg)) == (JPEG[0], facts["bytes"])
    every = await asyncio.to_thread(lambda: list(desk.client.latest_of()))
    assert len(every) == 5
    assert [each["camera"] for each in every if "error" in each] == ["bad"]


async def test_the_job_of_the_documents_runs(tmp_path: Path, daemon: StartDaemon) -> None:
    dead = SimulatedCamera("gate2", "Gate", fault=Fault("refuse"))
    cameras = [SimulatedCamera("gate1", "Gate", gop=2), dead, gate()]
    desk = await daemon(cameras, interval="100s")
    text = (Path(__file__).parents[2] / "docs/freshness.md").read_text()
    job = tmp_path / "job.py"
    job.write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[-1])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", str(job)),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"CAMSERVER_SOCKET": str(desk.socket)},
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        said = sorted([await process.stdout.readline(), await process.stdout.readline()])
    process.kill()
    await process.wait()
    assert re.fullmatch(rb"gate1 20\S+Z \d+ bytes\n", said[0])
    assert said[1].startswith(b"gate2 has no picture: gate2: rtsp: ")


async def test_limits_that_make_no_sense_are_refused(daemon: StartDaemon) -> None:
    desk = await daemon([gate()], interval="100s")
    await first_picture(desk)
    many = ",".join(f"cam{n}*" for n in range(60))
    with pytest.raises(ApiRefusal, match="cameras: expected at most 50 patterns"):
        await asyncio.to_thread(desk.client.get, f"/v1/latest?cameras={many}")
    for query, words in (
        ("max_age=0", "max_age: expected more than 0"),
        ("max_age=nan", "max_age: expected a duration"),
        ("max_age=-1", "max_age: expected a duration"),
        ("max_age=x", "max_age: expected a duration"),
        ("max_age=", "max_age: expected a duration"),
        ("max_age=5s&max_age=6s", "max_age: given more than once"),
        ("max_age=5s&wait=soon", "wait: expected a duration"),
        ("max_age=5s&wait=2h", "wait: expected at most 3600 s"),
        ("max_age=5s&stale=yes", 'stale: expected "ok"'),
        ("wait=5s", "wait: needs max_age"),
        ("stale=ok", "stale: needs max_age"),
        ("maxage=5s", r"maxage: unknown parameter \(did you mean max_age\?\)"),
    ):
        for path in ("cameras/cam/latest.jpg", "cameras/cam/latest.json", "latest"):
            with pytest.raises(ApiRefusal, match=words) as refused:
                await asyncio.to_thread(desk.client.get, f"/v1/{path}?{query}")
            assert refused.value.status == 400


async def test_the_command_takes_a_limit(daemon: StartDaemon) -> None:
    desk = await daemon([gate(), refusing()], interval="100s", lease_wait="20s")
    await first_picture(desk)
    opens = desk.house.fleet.cameras["cam"].record.opens

    async def run(*arguments: str) -> tuple[int | None, bytes, str]:
        process = await desk.run("snapshot", "--config", str(desk.config), *arguments)
        out, err = await process.communicate()
        return process.returncode, out, err.decode()

    status, jpeg, _ = await run("cam", "--max-age", "1h")
    assert (status, jpeg[:2]) == (0, JPEG[0])
    assert desk.house.fleet.cameras["cam"].record.opens == opens
    status, jpeg, _ = await run("cam", "--max-age", "1ms", "--wait", "60s")
    assert (status, jpeg[:2]) == (0, JPEG[0])
    assert desk.house.fleet.cameras["cam"].record.opens == opens + 1
    status, jpeg, said = await run("bad", "--max-age", "5s", "--stale-ok")
    assert (status, jpeg) == (75, b"")
    assert "there is no picture yet; ask again in " in said
    assert (await run("cam", "--max-age", "soon"))[0] == 2
    assert (await run("cam", "--stale-ok"))[0] == 2


async def test_the_command_takes_a_limit_without_a_daemon(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    camera = gate()
    desk = await daemon([camera], interval="100s")
    await first_picture(desk)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "cam").mkdir(parents=True)
    (elsewhere / "cam/latest.jpg").write_bytes((desk.output / "cam/latest.jpg").read_bytes())
    desk.socket, desk.output, desk.config = (
        tmp_path / "none.sock",
        elsewhere,
        tmp_path / "other.toml",
    )
    desk.write(interval="100s")
    opens = camera.record.opens

    async def run(*arguments: str) -> tuple[int | None, bytes]:
        process = await desk.run("snapshot", "cam", "--config", str(desk.config), *arguments)
        out, _ = await process.communicate()
        return process.returncode, out

    stored = (elsewhere / "cam/latest.jpg").read_bytes()
    assert await run("--max-age", "1h") == (0, stored)
    assert camera.record.opens == opens
    status, jpeg = await run("--max-age", "1ms")
    assert (status, jpeg[:2]) == (0, JPEG[0])
    assert jpeg != stored
    camera.fault = Fault("deaf")
    desk.write(interval="100s", timeout="1s")
    assert await run("--max-age", "1ms", "--stale-ok") == (0, stored)
    assert (await run("--max-age", "1ms"))[0] == 1
    assert (await run("--max-age", "0"))[0] == 2
