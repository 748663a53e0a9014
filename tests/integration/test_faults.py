"""Whatever a camera does.

The attempt ends in time with the right word, and the camera's record shows rule one kept.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from house import StartFleet, certificate, psnr_to_source

from camserver.leases import Budget
from camserver.model import Result, Source
from camserver.simulator.camera import FULL_VOICES, Fault, SimulatedCamera

ENGINES = pytest.mark.parametrize("engine", ["native", "libav"])


@ENGINES
@pytest.mark.parametrize(
    ("fault", "result"),
    [
        ("refuse", Result.UNREACHABLE),
        ("deaf", Result.TIMEOUT),
        ("stall:DESCRIBE", Result.TIMEOUT),
        ("stall:SETUP", Result.TIMEOUT),
        ("stall:PLAY", Result.TIMEOUT),
        ("silent", Result.TIMEOUT),
        ("no-keyframe", Result.NO_KEYFRAME),
        ("damage", Result.BAD_PICTURE),
        ("status:401", Result.AUTH),
        ("status:404", Result.NOT_FOUND),
        ("status:503", Result.FULL),
        ("status:453:SETUP", Result.FULL),
        ("status:403:PLAY", Result.FULL),
    ],
)
async def test_each_fault_has_its_word_and_the_camera_recovers(
    fault: str, result: Result, engine: str, fleet: StartFleet
) -> None:
    """The attempt ends in time with the right word, nothing stays open, the next one works."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=5, fault=Fault.parse(fault))])
    simulated = house.fleet.cameras["cam"]
    # A decoder that is new may need seconds on a busy machine
    timeout_s = 20.0 if fault == "damage" else 2.0
    attempt = await house.take("cam", timeout_s=timeout_s, engine=engine)
    assert attempt.result is result, attempt.error
    await house.seen("cam")
    if fault != "refuse":
        simulated.fault = Fault()
        assert (await house.take("cam", engine=engine)).ok
        seen = await house.seen("cam")
        assert (seen.sessions_max, seen.ends_unclean) == (1, 0)


async def test_a_killed_session_worker_frees_the_lease_only_when_the_camera_is_free(
    fleet: StartFleet,
) -> None:
    """Rule one, from the camera's side.

    Kills and cancellations in between, never two sessions at once.
    """
    house = await fleet([SimulatedCamera("cam", "Gate")])
    simulated = house.fleet.cameras["cam"]
    for _ in range(3):
        simulated.fault = Fault("silent")
        opens = simulated.record.opens
        task = asyncio.create_task(house.take("cam", timeout_s=30.0, engine="libav"))
        while simulated.record.opens == opens:
            await asyncio.sleep(0.01)
        os.kill(house.sessions.pids[0], signal.SIGKILL)
        assert (await task).result is Result.CRASHED
        opens = simulated.record.opens
        task = asyncio.create_task(house.take("cam", timeout_s=30.0, engine="libav"))
        while simulated.record.opens == opens:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert house.manager.statistics()[0].held == ()
        simulated.fault = Fault()
        assert (await house.take("cam")).ok
    assert (await house.seen("cam")).sessions_max == 1


async def test_two_cameras_of_one_device_share_its_session(fleet: StartFleet) -> None:
    """Ten pictures at once of a device that gives one session.

    All are taken, one after the other.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=5)])
    attempts = await asyncio.gather(*(house.take("cam", lease_wait_s=30.0) for _ in range(10)))
    assert all(a.ok for a in attempts), [a.error for a in attempts]
    seen = await house.seen("cam")
    assert (seen.sessions_max, seen.ends_clean, seen.ends_unclean) == (1, 10, 0)


async def test_a_reboot_costs_what_it_lasts(fleet: StartFleet) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate")])
    assert (await house.take("cam")).ok
    rebooting = asyncio.create_task(house.fleet.reboot("cam", 0.5))
    await asyncio.sleep(0)
    assert (await house.take("cam")).result is Result.UNREACHABLE
    await rebooting
    assert (await house.take("cam")).ok


@pytest.mark.parametrize("voice", FULL_VOICES)
async def test_in_company_every_voice_means_full(voice: str, fleet: StartFleet) -> None:
    """We hold a session of the device ourselves, and were told it gives two.

    Whatever it says now, it is full.

    With that session gone the same words mean what they say.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", full_voice=voice)])
    house.manager.configure({"cam": Budget(2, 0.0, 0.0)})
    simulated = house.fleet.cameras["cam"]
    simulated.fault = Fault("silent")
    waiting = asyncio.create_task(house.take("cam", timeout_s=60.0))
    while "PLAY" not in simulated.requests:
        await asyncio.sleep(0.01)
    attempt = await house.take("cam", timeout_s=2.0)
    assert attempt.result is Result.FULL, attempt.error
    waiting.cancel()
    await asyncio.wait({waiting})
    simulated.fault = Fault.parse("status:401")
    assert (await house.take("cam")).result is Result.AUTH


@ENGINES
@pytest.mark.parametrize(
    ("voice", "results"),
    [
        ("453", {Result.FULL}),
        ("503", {Result.FULL}),
        ("403", {Result.FULL}),
        ("401", {Result.AUTH}),
        ("rst", {Result.UNREACHABLE}),
        ("eof-after-play", {Result.UNREACHABLE, Result.TIMEOUT}),
        ("silence", {Result.TIMEOUT}),
    ],
)
async def test_every_voice_of_full_ends_in_time(
    voice: str, results: set[Result], engine: str, fleet: StartFleet
) -> None:
    """Somebody else holds the only session.

    Whatever the camera says then, no second session is opened, none stays.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", full_voice=voice)])
    simulated = house.fleet.cameras["cam"]
    reader, writer = await asyncio.open_connection("127.0.0.1", simulated.port)
    writer.write(
        b"SETUP rtsp://x/stream1/trackID=0 RTSP/1.0\r\nCSeq: 1\r\n"
        b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
    )
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    attempt = await house.take("cam", timeout_s=2.0, engine=engine)
    assert attempt.result in results, attempt.error
    assert simulated.record.refused_full >= 1
    assert simulated.record.ends_unclean == 0
    writer.close()
    await writer.wait_closed()
    await house.seen("cam")
    assert (await house.take("cam")).ok


async def test_cool_down_is_kept_after_clean_and_unclean_ends(fleet: StartFleet) -> None:
    """Not one connection comes while the camera still counts the last session.

    Killed workers cost the long wait.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", cooldown_s=0.2, unclean_cooldown_s=1.4)])
    simulated = house.fleet.cameras["cam"]
    house.manager.configure({"cam": Budget(1, 0.25, 1.5)})
    for _ in range(3):
        assert (await house.take("cam")).ok
        simulated.fault = Fault("silent")
        opens = simulated.record.opens
        task = asyncio.create_task(house.take("cam", timeout_s=30.0, engine="libav"))
        while simulated.record.opens == opens:
            await asyncio.sleep(0.01)
        os.kill(house.sessions.pids[0], signal.SIGKILL)
        assert (await task).result is Result.CRASHED
        simulated.fault = Fault()
    assert (await house.take("cam")).ok
    seen = await house.seen("cam")
    assert (seen.early, seen.refused_full, seen.sessions_max) == (0, 0, 1)


@ENGINES
@pytest.mark.parametrize("codec", ["h264", "h265"])
async def test_lost_and_reordered_packets_never_show(
    codec: str, engine: str, fleet: StartFleet
) -> None:
    """UDP that loses and reorders: what is published equals its source.

    The rest is named; then it is well again.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", codec, gop=3)])
    simulated = house.fleet.cameras["cam"]
    published = 0
    for fault in ("loss:0.05", "reorder:0.3", "loss:0.6"):
        simulated.fault = Fault.parse(fault)
        for _ in range(4):
            attempt = await house.take("cam", transport="udp", timeout_s=2.0, engine=engine)
            if attempt.ok:
                published += 1
                assert psnr_to_source(attempt, simulated) > 35, fault
            else:
                named = {Result.BAD_PICTURE, Result.NO_KEYFRAME, Result.TIMEOUT}
                if engine == "libav":
                    # What libav says when its probing meets the rest of a picture
                    named.add(Result.UNREACHABLE)
                assert attempt.result in named, attempt.error
    simulated.fault = Fault()
    assert (await house.take("cam", transport="udp")).ok
    assert published


@ENGINES
async def test_a_cut_in_a_keyframe_is_a_failure_and_a_slow_network_is_not(
    engine: str, fleet: StartFleet
) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate", fps=2.0, gop=4)])
    simulated = house.fleet.cameras["cam"]
    simulated.fault = Fault.parse("cut")
    attempt = await house.take("cam", engine=engine)
    assert attempt.result in (Result.UNREACHABLE, Result.BAD_PICTURE), attempt.error
    simulated.fault = Fault.parse("slow:60000")
    attempt = await house.take("cam", engine=engine)
    assert psnr_to_source(attempt, simulated) > 35


async def test_the_sub_stream_helps_where_the_main_one_fails(fleet: StartFleet) -> None:
    """No such main stream.

    The sub-stream's picture is taken, half as large, and the session count stays one.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", fault=Fault.parse("status:404@stream1"))])
    attempt = await house.take("cam", sub_url=house.fleet.url("cam", "stream2"))
    assert attempt.snapshot is not None, attempt.error
    assert (attempt.snapshot.source, attempt.snapshot.still.width) == (Source.RTSP_SUB, 320)
    assert (await house.seen("cam")).sessions_max == 1
    house.fleet.cameras["cam"].fault = Fault.parse("no-keyframe@stream1")
    attempt = await house.take("cam", sub_url=house.fleet.url("cam", "stream2"))
    assert attempt.snapshot is not None, attempt.error
    assert attempt.snapshot.source is Source.RTSP_SUB


async def test_rtsps_with_and_without_a_certificate_to_trust(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """RTSP over TLS works with a camera's own certificate; tls_verify = true refuses it."""
    house = await fleet(
        [SimulatedCamera("cam", "Gate", username="viewer", password="x")], tls=certificate(tmp_path)
    )
    attempt = await house.take("cam")
    assert psnr_to_source(attempt, house.fleet.cameras["cam"]) > 35
    attempt = await house.take("cam", tls_verify=True)
    assert not attempt.ok
    # libav's TEARDOWN comes together with its close, and a TLS server's loop no longer hands it
    # over.
    assert (await house.seen("cam")).sessions_max == 1
