"""Our own client: honest ends, few round trips, the camera's clock, no process while it waits."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from house import StartFleet, certificate, fetch
from support import camera

from camserver.capture.native import NativeEngine
from camserver.errors import CameraError
from camserver.model import Result, SessionEnd
from camserver.rtsp.aio import ending
from camserver.simulator.camera import Fault, SimulatedCamera


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize(
    "fault", ["deaf", "stall:DESCRIBE", "stall:SETUP", "stall:PLAY", "silent", "no-keyframe"]
)
async def test_cancelled_at_any_step_the_session_is_closed_before_we_hear_of_it(
    fault: str, transport: str, fleet: StartFleet
) -> None:
    """Rule one for the native engine.

    The cancellation comes out when the camera has seen the end.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", fault=Fault.parse(fault))])
    simulated = house.fleet.cameras["cam"]
    ends: list[SessionEnd] = []
    target = camera("cam", url=house.fleet.url("cam"), transport=transport)
    task = asyncio.create_task(fetch(NativeEngine(), target, target.url or "", soon(60), ends))
    while not simulated.record.opens:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # somewhere in the step the fault holds it in
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(ends) == 1
    seen = await house.seen("cam")
    if fault in ("stall:PLAY", "silent", "no-keyframe"):
        assert (ends, seen.ends_clean, seen.ends_unclean) == ([SessionEnd.CLEAN], 1, 0)
    else:
        assert seen.ends_unclean == 0


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("refuse", SessionEnd.NONE),
        ("status:404", SessionEnd.NONE),
        ("status:453:SETUP", SessionEnd.NONE),
        ("status:453:PLAY", SessionEnd.CLEAN),
        ("deaf", SessionEnd.NONE),
        ("stall:SETUP", SessionEnd.UNCLEAN),
        ("stall:TEARDOWN", SessionEnd.UNCLEAN),
        ("cut", SessionEnd.UNCLEAN),
        ("none", SessionEnd.CLEAN),
    ],
)
async def test_the_end_is_said_as_it_was(fault: str, end: SessionEnd, fleet: StartFleet) -> None:
    """It decides the cool-down.

    What was refused never was a session, what nobody answered may still be one.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=3, fault=Fault.parse(fault))])
    ends: list[SessionEnd] = []
    target = camera("cam", url=house.fleet.url("cam"))
    with contextlib.suppress(CameraError):
        await fetch(NativeEngine(), target, target.url or "", soon(1.5), ends)
    assert ends == [end]
    await house.seen("cam")


async def test_waiting_sessions_cost_no_process(fleet: StartFleet) -> None:
    """Two hundred here, to stay quick.

    All wait at once, no worker is started for any, all end clean.
    """
    house = await fleet(
        [SimulatedCamera(f"cam{n}", "x", fault=Fault("silent")) for n in range(200)]
    )
    engine = NativeEngine()
    ends: list[SessionEnd] = []

    async def wait(camera_id: str) -> None:
        target = camera(camera_id, url=house.fleet.url(camera_id))
        with pytest.raises(CameraError) as caught:
            await fetch(engine, target, target.url or "", soon(5), ends)
        assert caught.value.result is Result.TIMEOUT

    await asyncio.gather(*map(wait, house.fleet.cameras))
    assert house.sessions.pids == ()
    assert ends == [SessionEnd.CLEAN] * len(house.fleet.cameras)
    assert all(c.record.ends_clean == c.record.opens == 1 for c in house.fleet.cameras.values())


async def test_the_second_poll_needs_fewer_round_trips(fleet: StartFleet) -> None:
    """Cold: DESCRIBE, SETUP, PLAY, TEARDOWN.

    Warm: no DESCRIBE. When what is remembered fails: cold again, same session.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=3)])
    engine = NativeEngine()
    simulated = house.fleet.cameras["cam"]
    target = camera("cam", url=house.fleet.url("cam"))

    async def methods() -> list[str]:
        simulated.requests.clear()
        await fetch(engine, target, target.url or "", soon(10))
        return list(simulated.requests)

    assert await methods() == ["DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
    assert await methods() == ["SETUP", "PLAY", "TEARDOWN"]
    next(iter(engine._caches.values())).track_url += "/gone"
    assert await methods() == ["SETUP", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
    assert await methods() == ["SETUP", "PLAY", "TEARDOWN"]
    assert (await house.seen("cam")).opens == 4


async def test_facts_say_who_fetched_and_what_the_cameras_clock_says(fleet: StartFleet) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate", gop=3, clock_offset_s=3600.0)])
    attempt = await house.take("cam")
    assert attempt.snapshot is not None, attempt.error
    assert attempt.snapshot.engine == "native"
    offset_s = attempt.snapshot.camera_clock_offset_s
    assert offset_s is not None
    assert abs(offset_s - 3600) < 5
    attempt = await house.take("cam", engine="libav")
    assert attempt.snapshot is not None, attempt.error
    assert attempt.snapshot.engine == "libav"


async def test_over_tls_the_end_is_clean_too(tmp_path: Path, fleet: StartFleet) -> None:
    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=3, username="viewer", password="x")],
        tls=certificate(tmp_path),
    )
    for _ in range(3):
        assert (await house.take("cam")).ok
    seen = await house.seen("cam")
    assert (seen.ends_clean, seen.ends_unclean, seen.sessions_max) == (3, 0, 1)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_over_ipv6(transport: str, fleet: StartFleet) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2)], host="::1")
    for _ in range(2):
        attempt = await house.take("cam", transport=transport, engine="native")
        assert attempt.ok, attempt.error
    assert (await house.seen("cam")).ends_clean == 2


@pytest.mark.parametrize("when", ["before", "while"])
async def test_who_is_in_a_hurry_waits_less_for_the_end(
    monkeypatch: pytest.MonkeyPatch, when: str, fleet: StartFleet
) -> None:
    """The daemon stops.

    A TEARDOWN nobody answers is given up soon, also one that is already under way.
    """
    monkeypatch.setattr(ending, "TEARDOWN_S", 1000.0)
    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=2, fault=Fault.parse("stall:TEARDOWN"))]
    )
    ends: list[SessionEnd] = []
    simulated = house.fleet.cameras["cam"]
    target = camera("cam", url=house.fleet.url("cam"))
    task = asyncio.create_task(fetch(NativeEngine(), target, target.url or "", soon(60), ends))
    while ("TEARDOWN" if when == "while" else "PLAY") not in simulated.requests:
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait({task})
    assert ends == [SessionEnd.UNCLEAN]


def test_what_is_remembered_is_of_one_transport() -> None:
    """A reload from tcp to udp takes effect."""
    engine = NativeEngine()
    for transport, known in (("tcp", ""), ("udp", ""), ("tcp", "tcp"), ("udp", "udp")):
        target = camera("cam", transport=transport)
        session = engine.open(target, "rtsp://cam/")
        assert (session.cache.transport, session.cache.base) == (transport, known)
        session.cache.base = transport
        engine.succeeded(target, "rtsp://cam/", session)


@pytest.mark.parametrize("fault", ["none", "silent", "stall:PLAY"])
async def test_a_lease_lives_as_long_as_its_session(
    monkeypatch: pytest.MonkeyPatch, fault: str, fleet: StartFleet
) -> None:
    """By the camera's own watch.

    Neither is there much longer than the other (medians of 15), also when it is cancelled.
    """
    seen: dict[str, list[float]] = {"opened": [], "closed": [], "acquired": [], "released": []}

    def watch(name: str, function: Callable[..., None]) -> Callable[..., None]:
        def watched(*arguments: Any, **keys: Any) -> None:
            seen[name].append(asyncio.get_running_loop().time())
            function(*arguments, **keys)

        return watched

    for name in ("opened", "closed"):
        monkeypatch.setattr(SimulatedCamera, name, watch(name, getattr(SimulatedCamera, name)))
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, fault=Fault.parse(fault))])
    house.manager._emit = lambda event: seen[event.EVENT.removeprefix("lease.")].append(
        asyncio.get_running_loop().time()
    )
    for number in range(15):
        task = asyncio.create_task(house.take("cam"))
        if fault != "none":
            while house.fleet.cameras["cam"].requests.count("PLAY") <= number:
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait({task})
        await house.seen("cam")
    assert {len(moments) for moments in seen.values()} == {15}
    for lease, session in (("acquired", "opened"), ("released", "closed")):
        assert (
            statistics.median(abs(a - b) for a, b in zip(seen[lease], seen[session], strict=True))
            < 0.05
        )
