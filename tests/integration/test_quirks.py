"""Cameras that do things their own way.

Each quirk in the simulator, taken by our client, cold and warm.
"""

from __future__ import annotations

import asyncio

import pytest
from house import StartFleet, psnr_to_source

from camserver.simulator.camera import Fault, SimulatedCamera
from camserver.simulator.quirks import QUIRKS
from camserver.simulator.session import SimulatedConnection

BOTH_WAYS = ("rtp-early", "marked-units", "no-markers", "no-clock", "describe-first")
"""Also over UDP; the others are about the words of RTSP."""


@pytest.mark.parametrize(
    ("quirk", "transport"),
    [
        *(
            (quirk, "udp" if quirk == "no-udp" else "tcp")
            for quirk in QUIRKS
            if quirk not in ("timeout", "play-needs-describe")
        ),
        *((quirk, "udp") for quirk in BOTH_WAYS),
    ],
)
@pytest.mark.parametrize("codec", ["h264", "h265"])
async def test_every_quirk_gives_true_pictures_and_clean_ends(
    quirk: str, transport: str, codec: str, fleet: StartFleet
) -> None:
    """Three polls: nothing remembered, then with what the first one learnt."""
    login = {"username": "viewer", "password": "p: @/", "lock_after": 3}
    house = await fleet([SimulatedCamera("cam", "Gate", codec=codec, gop=3, quirk=quirk, **login)])
    for poll in range(3):
        attempt = await house.take("cam", transport=transport, engine="native", timeout_s=20.0)
        assert attempt.ok, (poll, attempt.error)
        assert psnr_to_source(attempt, house.fleet.cameras["cam"]) > 35
    seen = await house.seen("cam")
    assert (seen.ends_clean, seen.ends_unclean, seen.sessions_max) == (3, 0, 1)


@pytest.mark.parametrize("quirk", ["tracks", "lf", "no-tcp", "no-base", "lower-case"])
async def test_the_other_engine_speaks_with_them_too(quirk: str, fleet: StartFleet) -> None:
    """So that the simulator is not odd in the way our own client is.

    Libav understands the same cameras.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=3, quirk=quirk)])
    transport = "udp" if quirk == "no-tcp" else "tcp"
    attempt = await house.take("cam", engine="libav", transport=transport, timeout_s=20.0)
    assert attempt.ok, attempt.error


async def test_a_session_is_kept_alive_by_what_the_camera_knows(fleet: StartFleet) -> None:
    """It ends sessions that ask nothing for a second, and refuses GET_PARAMETER.

    The keyframe comes after two reminders.
    """
    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=3, quirk="timeout", fault=Fault("no-keyframe"))]
    )
    simulated = house.fleet.cameras["cam"]
    shot = asyncio.create_task(house.take("cam", engine="native", timeout_s=60.0))
    while simulated.requests.count("OPTIONS") < 3:
        assert not shot.done(), shot.result().error
        await asyncio.sleep(0.01)
    simulated.fault = Fault()
    attempt = await shot
    assert attempt.ok, attempt.error
    assert simulated.requests.count("GET_PARAMETER") == 1
    assert (await house.seen("cam")).ends_clean == 1


async def test_who_sends_nothing_without_describe_is_asked_with_it_from_then_on(
    fleet: StartFleet,
) -> None:
    """One poll is lost to it, never a second; the camera sees one session at a time."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, quirk="play-needs-describe")])
    outcomes = [(await house.take("cam", engine="native")).ok for _ in range(6)]
    assert outcomes == [True, False, True, True, True, True]
    assert (await house.seen("cam")).sessions_max == 1


async def test_a_session_named_to_describe_only_costs_no_poll(fleet: StartFleet) -> None:
    """Without DESCRIBE the camera knows no session at PLAY (454).

    It is described at once, over the same connection.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, quirk="session-describe")])
    for _ in range(4):
        attempt = await house.take("cam", engine="native")
        assert attempt.ok, attempt.error
    requests = list(house.fleet.cameras["cam"].requests)
    assert requests[3:9] == ["TEARDOWN", "SETUP", "PLAY", "DESCRIBE", "SETUP", "PLAY"]
    assert requests[10:13] == ["DESCRIBE", "SETUP", "PLAY"], "it is asked from then on"
    seen = await house.seen("cam")
    assert (seen.ends_clean, seen.ends_unclean, seen.sessions_max) == (4, 0, 1)


async def test_a_camera_that_marks_every_slice_since_yesterday_shows_no_torn_picture(
    fleet: StartFleet,
) -> None:
    """An update between two polls, no failure in between.

    H.265 would decode the first marked slice without a word.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", codec="h265", gop=3)])
    simulated = house.fleet.cameras["cam"]
    for _ in range(3):
        simulated.quirk = ""
        for _ in range(2):
            assert (await house.take("cam", engine="native")).ok
        simulated.quirk = "marked-units"
        for _ in range(2):
            attempt = await house.take("cam", engine="native")
            assert psnr_to_source(attempt, simulated) > 35


async def test_two_sessions_of_one_stream_at_once_do_not_disturb_each_other(
    monkeypatch: pytest.MonkeyPatch, fleet: StartFleet
) -> None:
    """A poll and a snapshot of a camera that gives two.

    Each keeps in mind what it was told itself.
    """
    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=10, max_sessions=4, quirk="describe-first")]
    )
    answer = SimulatedConnection._answer
    monkeypatch.setattr(
        SimulatedConnection,
        "_answer",
        lambda connection, request: (
            asyncio.get_running_loop().call_later(0.05, answer, connection, request) and None
        ),
    )

    async def later(delay_s: float) -> bool:
        await asyncio.sleep(delay_s)
        return (await house.take("cam", engine="native")).ok

    assert all(await asyncio.gather(*(later(0.025 * n) for n in range(4))))
    assert (await house.seen("cam")).sessions_max == 4
