"""Our own client: honest ends, few round trips, the camera's clock, no process while it waits."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from house import House, certificate, fetch, with_house
from support import camera

from camserver.capture.native import NativeEngine
from camserver.errors import CameraError
from camserver.model import Result, SessionEnd
from camserver.rtsp.aio import session as client
from camserver.rtsp.aio.session import RtspSession
from camserver.rtsp.login import LoginCache
from camserver.rtsp.sdp import Track
from camserver.rtsp.session_cache import SessionCache
from camserver.simulator.camera import Fault, SimulatedCamera


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize(
    "fault", ["deaf", "stall:DESCRIBE", "stall:SETUP", "stall:PLAY", "silent", "no-keyframe"]
)
def test_cancelled_at_any_step_the_session_is_closed_before_we_hear_of_it(
    fault: str, transport: str
) -> None:
    """Rule one for the native engine.

    The cancellation comes out when the camera has seen the end.
    """

    async def work(house: House) -> None:
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

    with_house([SimulatedCamera("cam", "Gate", fault=Fault.parse(fault))], work)


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
def test_the_end_is_said_as_it_was(fault: str, end: SessionEnd) -> None:
    """It decides the cool-down.

    What was refused never was a session, what nobody answered may still be one.
    """

    async def work(house: House) -> None:
        ends: list[SessionEnd] = []
        target = camera("cam", url=house.fleet.url("cam"))
        with contextlib.suppress(CameraError):
            await fetch(NativeEngine(), target, target.url or "", soon(1.5), ends)
        assert ends == [end]
        await house.seen("cam")

    with_house([SimulatedCamera("cam", "Gate", gop=3, fault=Fault.parse(fault))], work)


def test_waiting_sessions_cost_no_process() -> None:
    """Two hundred here, to stay quick.

    All wait at once, no worker is started for any, all end clean.
    """

    async def work(house: House) -> None:
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

    with_house([SimulatedCamera(f"cam{n}", "x", fault=Fault("silent")) for n in range(200)], work)


def test_the_second_poll_needs_fewer_round_trips() -> None:
    """Cold: DESCRIBE, SETUP, PLAY, TEARDOWN.

    Warm: no DESCRIBE. When what is remembered fails: cold again, same session.
    """

    async def work(house: House) -> None:
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

    with_house([SimulatedCamera("cam", "Gate", gop=3)], work)


def test_facts_say_who_fetched_and_what_the_cameras_clock_says() -> None:
    async def work(house: House) -> None:
        attempt = await house.take("cam")
        assert attempt.snapshot is not None, attempt.error
        assert attempt.snapshot.engine == "native"
        offset_s = attempt.snapshot.camera_clock_offset_s
        assert offset_s is not None
        assert abs(offset_s - 3600) < 5
        attempt = await house.take("cam", engine="libav")
        assert attempt.snapshot is not None, attempt.error
        assert attempt.snapshot.engine == "libav"

    with_house([SimulatedCamera("cam", "Gate", gop=3, clock_offset_s=3600.0)], work)


def test_over_tls_the_end_is_clean_too(tmp_path: Path) -> None:
    async def work(house: House) -> None:
        for _ in range(3):
            assert (await house.take("cam")).ok
        seen = await house.seen("cam")
        assert (seen.ends_clean, seen.ends_unclean, seen.sessions_max) == (3, 0, 1)

    with_house(
        [SimulatedCamera("cam", "Gate", gop=3, username="viewer", password="x")],
        work,
        tls=certificate(tmp_path),
    )


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_over_ipv6(transport: str) -> None:
    async def work(house: House) -> None:
        for _ in range(2):
            attempt = await house.take("cam", transport=transport, engine="native")
            assert attempt.ok, attempt.error
        assert (await house.seen("cam")).ends_clean == 2

    with_house([SimulatedCamera("cam", "Gate", gop=2)], work, host="::1")


async def scripted(answers: dict[str, str]) -> tuple[asyncio.Server, str, list[str]]:
    """A camera that answers each method with a text; the list gets what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            method, uri, *_ = line.decode().split()
            cseq = ""
            while header := (await reader.readline()).decode().strip():
                cseq = header if header.lower().startswith("cseq") else cseq
            asked.append(f"{method} {uri}")
            if method in answers:
                writer.write(answers[method].replace("{cseq}", cseq).encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/live", asked


def described(sdp: str, headers: str = "") -> str:
    return (
        f"RTSP/1.0 200 OK\r\n{{cseq}}\r\n{headers}Content-Length: {len(sdp.encode())}\r\n\r\n{sdp}"
    )


OK = "RTSP/1.0 200 OK\r\n{cseq}\r\nSession: 7;timeout=60\r\n\r\n"
SDP = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"


@pytest.mark.parametrize(
    ("answers", "setup", "result", "words"),
    [
        (
            {"DESCRIBE": described(SDP + "a=control:track1\r\n", "Content-Base: {base}/x/\r\n")},
            "{base}/x/track1",
            Result.TIMEOUT,
            "SETUP",
        ),
        ({"DESCRIBE": described(SDP)}, "{base}", Result.TIMEOUT, "SETUP"),
        ({"DESCRIBE": described(SDP + "a=control:*\r\n")}, "{base}", Result.TIMEOUT, "SETUP"),
        (
            {"DESCRIBE": described(SDP + "a=control:rtsp://other/t\r\n")},
            "rtsp://other/t",
            Result.TIMEOUT,
            "SETUP",
        ),
        (
            {"DESCRIBE": described("v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n")},
            "",
            Result.ERROR,
            "VP8",
        ),
        ({"DESCRIBE": described("")}, "", Result.ERROR, "nothing"),
        ({"DESCRIBE": "HTTP/1.1 400 Bad Request\r\n\r\n"}, "", Result.ERROR, "HTTP server"),
        (
            {"DESCRIBE": "RTSP/1.0 302 Moved\r\n{cseq}\r\nLocation: rtsp://elsewhere/x\r\n\r\n"},
            "",
            Result.ERROR,
            "another host",
        ),
        *(
            (
                {"DESCRIBE": f"RTSP/1.0 302 Moved\r\n{{cseq}}\r\nLocation: {where}\r\n\r\n"},
                "",
                Result.ERROR,
                "redirects",
            )
            for where in (
                "rtsp://[x/",
                "rtsp://127.0.0.1:99999/",
                "rtsp://127.0.0.1:abc/",
                "http://127.0.0.1/",
                "",
            )
        ),
        (
            {"DESCRIBE": described("v=0\r\nm=video 0 RTP/AVP \u00b2\r\n")},
            "",
            Result.ERROR,
            "nothing",
        ),
        (
            {"DESCRIBE": "RTSP/1.0 \u00b2\u00b2\u00b2 OK\r\n\r\n"},
            "",
            Result.TIMEOUT,
            "bytes came that are no RTSP",
        ),
        (
            {
                "DESCRIBE": described(SDP),
                "SETUP": OK.replace("Session", f"Transport: x;interleaved={'9' * 5000}\r\nSession"),
            },
            "{base}",
            Result.TIMEOUT,
            "PLAY",
        ),
        (
            {
                "DESCRIBE": described(SDP),
                "SETUP": "RTSP/1.0 302 Moved\r\n{cseq}\r\nLocation: {base}2\r\n\r\n",
            },
            "{base}2",
            Result.ERROR,
            "redirects",
        ),
        (
            {
                "DESCRIBE": described(SDP),
                "SETUP": OK,
                "PLAY": "RTSP/1.0 302 Moved\r\n{cseq}\r\nLocation: {base}2\r\n\r\n",
                "TEARDOWN": OK,
            },
            "{base}",
            Result.ERROR,
            "a session that it had set up",
        ),
        (
            {
                "DESCRIBE": described(SDP),
                "SETUP": OK,
                "PLAY": "RTSP/1.0 455 No\r\n{cseq}\r\n\r\n",
                "TEARDOWN": OK,
            },
            "{base}",
            Result.ERROR,
            "455 to PLAY",
        ),
    ],
)
def test_quirks(answers: dict[str, str], setup: str, result: Result, words: str) -> None:
    """Control attributes and bases as cameras write them; what isn't understood is named."""

    async def inside() -> None:
        filled: dict[str, str] = {}
        server, base, asked = await scripted(filled)
        filled.update({method: text.replace("{base}", base) for method, text in answers.items()})
        if "{base}" in answers["DESCRIBE"]:
            filled["DESCRIBE"] = described(
                SDP + "a=control:track1\r\n", f"Content-Base: {base}/x/\r\n"
            )
        target = camera("cam", url=base)
        ends: list[Any] = []
        with pytest.raises(CameraError, match=words) as caught:
            await fetch(NativeEngine(), target, base, soon(1.0), ends)
        assert caught.value.result is result
        assert ends
        if setup:
            assert f"SETUP {setup.replace('{base}', base)}" in asked
        server.close()

    asyncio.run(inside())


def test_a_session_without_an_id_is_torn_down_too() -> None:
    """Some cameras name no Session; they count one all the same."""

    async def inside() -> None:
        bare = "RTSP/1.0 200 OK\r\n{cseq}\r\n\r\n"
        server, base, asked = await scripted(
            {"DESCRIBE": described(SDP), "SETUP": bare, "PLAY": bare, "TEARDOWN": bare}
        )
        ends: list[SessionEnd] = []
        with pytest.raises(CameraError):
            await fetch(NativeEngine(), camera("cam", url=base), base, soon(0.5), ends)
        assert [line.split()[0] for line in asked] == ["DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
        assert ends == [SessionEnd.CLEAN]
        server.close()

    asyncio.run(inside())


def test_a_camera_that_wants_a_describe_before_each_setup_is_understood_and_costs_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused once, or twice where it has worked, it is not asked that way again.

    Ports of a refused SETUP are closed.
    """

    async def inside() -> None:
        answers = {"DESCRIBE": described(SDP), "PLAY": OK, "TEARDOWN": OK, "SETUP": OK}
        server, base, asked = await scripted(answers)
        engine = NativeEngine()
        target = camera("cam", url=base, transport="udp")
        memory = engine._cache(target, base)
        # Each shot is cancelled, and would leave nothing
        monkeypatch.setattr(engine, "_cache", lambda *_: memory)

        async def methods() -> list[str]:
            asked.clear()
            task = asyncio.create_task(fetch(engine, target, base, soon(60)))
            while not any(line.startswith("PLAY") for line in asked):
                if asked and asked[-1].startswith("SETUP") and asked[0].startswith("SETUP"):
                    answers["SETUP"] = OK  # the one after the DESCRIBE
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            return [line.split()[0] for line in asked]

        before = open_files()
        assert await methods() == ["DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
        for refusals in (1, 2):
            memory.warm_worked, memory.warm_refusals = refusals == 2, 0
            for _ in range(refusals):
                answers["SETUP"] = "RTSP/1.0 455 No\r\n{cseq}\r\n\r\n"
                assert await methods() == ["SETUP", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
            assert await methods() == ["DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
        async with asyncio.timeout(20):  # the camera's ends are closed a little later than ours
            while open_files() > before:
                await asyncio.sleep(0.01)
        server.close()

    asyncio.run(inside())


@pytest.mark.parametrize("when", ["before", "while"])
def test_who_is_in_a_hurry_waits_less_for_the_end(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The daemon stops.

    A TEARDOWN nobody answers is given up soon, also one that is already under way.
    """
    monkeypatch.setattr(client, "TEARDOWN_S", 1000.0)

    async def work(house: House) -> None:
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

    with_house([SimulatedCamera("cam", "Gate", gop=2, fault=Fault.parse("stall:TEARDOWN"))], work)


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
def test_a_lease_lives_as_long_as_its_session(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
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

    async def work(house: House) -> None:
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
                statistics.median(
                    abs(a - b) for a, b in zip(seen[lease], seen[session], strict=True)
                )
                < 0.05
            )

    with_house([SimulatedCamera("cam", "Gate", gop=2, fault=Fault.parse(fault))], work)


@pytest.mark.parametrize(
    ("transport", "connections", "end"),
    [("tcp", 2, SessionEnd.NONE), ("udp", 1, SessionEnd.UNCLEAN)],
)
def test_a_setup_that_nobody_answered_may_live_on_over_udp(
    transport: str, connections: int, end: SessionEnd
) -> None:
    """The camera closes after a SETUP.

    Over TCP no session is left, so it is asked anew; over UDP one may be.
    """

    async def inside() -> None:
        asked: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/live"
        memory = SessionCache(
            track=Track("video", 96, "H264"),
            track_url=f"{url}/track1",
            base=url,
            transport=transport,
        )
        session = RtspSession(url, memory, LoginCache("", ""))
        with pytest.raises(CameraError):
            await session.open()
        assert await session.close() is end
        assert [line.split()[0] for line in asked] == [b"SETUP", b"DESCRIBE"][:connections]
        server.close()

    asyncio.run(inside())
