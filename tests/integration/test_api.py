"""The API on the unix socket: other programs take part in the leases of the daemon that polls."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, StartDaemon, bare
from house import StartFleet

from camserver.api.unix_server import ApiServer
from camserver.client import ApiRefusal, LeaseClient, LeaseRequest, SyncLeaseClient
from camserver.errors import RtspBusy
from camserver.leases import Budget, Holder, RtspManager
from camserver.leases.journal import state_of
from camserver.leases.ticket import SessionEntry
from camserver.simulator.camera import Fault, SimulatedCamera


async def test_what_can_be_read(tmp_path: Path, daemon: StartDaemon) -> None:
    desk = await daemon()
    cameras = await desk.until(lambda: [c for c in desk.client.get("/v1/cameras") if c["latest"]])
    assert (cameras[0]["id"], cameras[0]["latest"]["camera"]) == ("cam", "cam")
    assert await asyncio.to_thread(desk.client.get, "/v1/cameras/cam")
    curl = await asyncio.create_subprocess_exec(
        "curl",
        "-s",
        "--unix-socket",
        desk.socket,
        "http://x/v1/cameras/cam/latest.jpg",
        stdout=asyncio.subprocess.PIPE,
    )
    assert (await curl.communicate())[0][:2] == b"\xff\xd8"
    assert (await asyncio.to_thread(desk.client.snapshot, "cam")).jpeg[-2:] == b"\xff\xd9"
    with pytest.raises(ApiRefusal, match="no enabled camera 'other'"):
        await asyncio.to_thread(desk.client.snapshot, "other")
    assert desk.socket.stat().st_mode & 0o777 == 0o660


async def test_a_lease_keeps_the_poller_out_and_ends_with_its_connection(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """While another program holds the only session the camera sees none of ours.

    Afterwards pictures go on.
    """
    desk = await daemon(lease_wait="1s")
    record = desk.house.fleet.cameras["cam"].record
    async with LeaseClient(desk.socket).lease("cam", label="a recorder", wait_s=60) as granted:
        assert granted.granted.camera == "cam"
        opens = record.opens
        held = (await asyncio.to_thread(desk.held))[0]
        assert (held["holder"], held["label"], held["pid"]) == (
            "live",
            "a recorder",
            os.getpid(),
        )
        await desk.until(lambda: desk.client.get("/v1/leases")[0]["waiting"])
        with pytest.raises(RtspBusy, match=r"live a recorder \(pid"):
            async with LeaseClient(desk.socket).lease("cam", wait_s=0.1):
                pass
        assert record.opens == opens
    await desk.until(lambda: record.opens > opens)

    def borrow() -> int:
        with desk.client.lease("cam", wait_s=60):
            return record.sessions_now

    assert await asyncio.to_thread(borrow) == 0
    assert record.sessions_max == 1


@pytest.mark.parametrize("engine", ["native", "libav"])
async def test_a_poll_gives_way_to_live_view(
    tmp_path: Path, engine: str, daemon: StartDaemon
) -> None:
    """The camera sends nothing, so the poll would hold its session for a minute.

    Live view has it at once, after TEARDOWN.
    """
    desk = await daemon(
        [SimulatedCamera("cam", "Gate", fault=Fault("silent"))],
        timeout="60s",
        engine=engine,
        unclean_cooldown="60s",
    )
    simulated = desk.house.fleet.cameras["cam"]
    await desk.until(lambda: "PLAY" in simulated.requests)
    with pytest.raises(RtspBusy):  # an event does not push a poll away
        async with LeaseClient(desk.socket).lease("cam", priority="event", wait_s=0.2):
            pass
    async with LeaseClient(desk.socket).lease("cam", wait_s=20):
        assert simulated.record.sessions_now == 0
        await desk.until(lambda: "preempted: live view" in json.dumps(desk.facts()))
    record = desk.house.fleet.cameras["cam"].record
    assert record.sessions_max == 1
    assert record.ends_clean >= 1
    # Well within the long cool-down: the end was clean.
    ends = re.findall(r"lease.released .*end=(\w+) .*holder='poller cam'", desk.log.read_text())
    assert ends[0] == "clean", ends


async def test_a_stop_ends_what_others_wait_for(tmp_path: Path, daemon: StartDaemon) -> None:
    """Snapshots of cameras that send nothing, by libav, asked for by clients.

    The daemon stops in order all the same.
    """
    # They end with the daemon, whose status the fixture looks at
    asking: list[asyncio.Task[Any]] = []
    desk = await daemon(
        [SimulatedCamera(f"cam{n}", "Gate", fault=Fault("silent")) for n in range(4)],
        timeout="60s",
        engine="libav",
    )
    cameras = desk.house.fleet.cameras
    asking.extend(
        asyncio.create_task(asyncio.to_thread(desk.ask, "POST", f"/v1/cameras/{camera}/snapshot"))
        for camera in cameras
    )
    await desk.until(lambda: all("PLAY" in c.requests for c in cameras.values()))


async def test_requests_that_make_no_sense(tmp_path: Path, daemon: StartDaemon) -> None:
    desk = await daemon(interval="100s")
    for query in ("priority=vip", "wait=soon", "wait=-1", "wait=nan", "ttl=1e9", "label=%00"):
        with pytest.raises(ApiRefusal, match=f"{query.partition('=')[0]}: expected") as refused:
            await asyncio.to_thread(desk.client.post, f"/v1/cameras/cam/lease?{query}")
        assert refused.value.status == 400
    for route, words in (
        ("/v1/cameras?widht=320", "widht: unknown parameter (there is none)"),
        (
            "/v1/cameras/cam/latest.jpg?widht=320",
            "widht: unknown parameter (did you mean width?)",
        ),
        ("/v1/cameras/cam/latest.jpg?width=320&width=640", "width: given more than once"),
        (
            "/v1/cameras/cam/archive?day=2026-01-04&max_age=5",
            "max_age: unknown parameter (there is day)",
        ),
        ("/v1/cameras/cam/archive/x.jpg?at=1&w=2", "w: unknown parameter (there is at, width)"),
        ("/v1/leases?x=%00", "x: unknown parameter (there is none)"),
        ("/v1/events?cam=1", "cam: unknown parameter (did you mean camera?)"),
    ):
        with pytest.raises(ApiRefusal, match=re.escape(words)) as refused:
            await asyncio.to_thread(desk.client.get, route)
        assert refused.value.status == 400
    with pytest.raises(ApiRefusal, match="prio: unknown parameter"):
        await asyncio.to_thread(desk.client.post, "/v1/cameras/cam/lease?prio=live")
    assert [h for h in await asyncio.to_thread(desk.held) if h["holder"] != "poller"] == []


async def test_who_does_not_give_way_loses_the_lease_after_a_grace(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """A holder that hangs.

    The bound is ttl and the grace, then the long cool-down, then others go on.
    """
    house = await fleet([])
    manager = house.manager
    manager.configure({"cam": Budget(1, 0.0, 0.5)})
    server = ApiServer(*bare(tmp_path, manager), grace_s=0.2)
    await server.listen(tmp_path / "s")
    await server.serve()
    held = await asyncio.to_thread(
        SyncLeaseClient(tmp_path / "s").open_lease, LeaseRequest("cam", ttl_s=0.2)
    )
    with await manager.acquire("cam", "cam", Holder("poller"), lease_wait_s=30) as lease:
        assert lease.wait_s > 0.5
    notices = [held.next_notice(), held.next_notice()]
    assert [notice.state for notice in notices if notice] == ["withdrawn", "gone"]
    held.close()
    await server.stop()


async def test_too_many_and_silent_connections_are_turned_away(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """The limit is told with 503.

    Who connects and says nothing, or never ends a header, is dropped and others go on.
    """
    house = await fleet([])
    server = ApiServer(*bare(tmp_path, house.manager), connections=3, silent_s=0.5)
    await server.listen(tmp_path / "s")
    await server.serve()
    silent = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(3)]
    silent[1][1].write(b"GET /v1/cameras HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    assert b"503" in await reader.readline()
    writer.close()
    for reader, writer in silent:
        assert await reader.read() == b""
        writer.close()
    health = await asyncio.to_thread(SyncLeaseClient(tmp_path / "s").get, "/healthz")
    assert health["status"] == "ok"
    await server.stop()


async def test_a_claim_of_somebody_who_has_left_is_not_taken(tmp_path: Path) -> None:
    """It waited in the socket's queue while no daemon was there.

    The one who still waits has the lease again.
    """
    path, manager = tmp_path / "s", RtspManager()
    manager.configure({"cam": Budget(1, 0.0, 5.0)})
    manager.restore(state_of(7, [SessionEntry("cam", 7, external=True)], {}, 0.0))
    server = ApiServer(*bare(tmp_path, manager))
    await server.listen(path)
    claim = LeaseRequest("cam", wait_s=0.0, claim="7")
    SyncLeaseClient(path).ask_for_lease(claim).close()
    attempt = SyncLeaseClient(path).ask_for_lease(claim)
    await server.serve()
    held = await asyncio.to_thread(attempt.answer, timeout_s=20)
    assert held is not None
    held.close()
    await server.stop()


async def test_a_killed_daemons_sessions_cool_down_before_the_next_one_opens_any(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """The camera counts a session for a while after its connection broke.

    Nobody knocks in that time.
    """
    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=2, unclean_cooldown_s=2.0, fault=Fault("silent"))]
    )
    desk = Desk(house, tmp_path)
    desk.write(interval="200ms", unclean_cooldown="3s", timeout="60s")
    simulated = house.fleet.cameras["cam"]
    async with desk.daemon() as first:
        await desk.until(lambda: "PLAY" in simulated.requests)
        first.kill()
        await first.wait()
    simulated.fault = Fault()
    async with desk.daemon():
        await desk.until((desk.output / "cam/latest.jpg").exists)
    record = await house.seen("cam")
    assert (record.early, record.refused_full, record.sessions_max) == (0, 0, 1)


async def test_reload_says_what_became_of_it(tmp_path: Path, daemon: StartDaemon) -> None:
    """0 when the inventory was taken over, 1 and every fault when it was refused.

    The running one stays.
    """
    desk = await daemon([SimulatedCamera("cam", "Gate", fault=Fault("refuse"))], interval="100s")
    desk.write(interval="99s")
    good = await desk.run("reload")
    assert (await good.communicate())[0] == b"1 cameras\n"
    assert good.returncode == 0
    desk.config.write_text(desk.config.read_text() + 'intervall = 3\n[[camera]]\nid = "X"\n')
    bad = await desk.run("reload")
    words = (await bad.communicate())[1]
    assert bad.returncode == 1
    assert b"did you mean 'interval'" in words
    assert b"lower-case" in words
    assert (await asyncio.to_thread(desk.client.get, "/healthz"))["cameras"] == 1


async def test_a_stranger_gets_nothing(tmp_path: Path, daemon: StartDaemon) -> None:
    """The socket's mode is the gate: another user is turned away by the kernel."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")

    for folder in tmp_path.parents:
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith("pytest"):
            folder.chmod(0o755)
    desk = await daemon(interval="100s")
    tmp_path.chmod(0o755)
    stranger = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])",
        desk.socket,
        user=65534,
        group=65534,
        extra_groups=[],
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
    )
    assert b"PermissionError" in (await stranger.communicate())[1]
    for command in (
        ("snapshot", "cam"),
        ("leases",),
        ("lease", "--no-daemon-ok", "cam", "--", "echo", "it runs"),
        ("doctor", desk.house.fleet.url("cam")),
    ):
        stranger = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "camserver",
            *command,
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            env=os.environ | {"CAMSERVER_SOCKET": str(desk.socket), "CAMSERVER_CONFIG": "/nobody"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await stranger.communicate()
        assert (stranger.returncode, out, b"join it" in err) == (77, b"", True), (
            command,
            out,
            err,
        )


async def test_statistics_are_json(tmp_path: Path, daemon: StartDaemon) -> None:
    desk = await daemon(interval="100s")
    shown = await desk.run("leases", "--json")
    devices = json.loads((await shown.communicate())[0])
    assert devices[0]["max_sessions"] == 1
