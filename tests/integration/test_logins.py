"""Rule two, from the camera's side.

A right password is never counted as a wrong one, whatever the camera does with nonces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from house import StartFleet, certificate
from support import free_port

from camserver.leases import Holder
from camserver.model import Result, SessionEnd
from camserver.simulator.camera import SimulatedCamera

LOGIN: dict[str, Any] = {"username": "viewer", "password": "p@:/#%? \u00fc", "lock_after": 3}
NONCES = [
    "",
    "kept-nonce",
    "stale-bare-401",
    "stale-closes",
    "closes-after-401",
    "new-nonce",
    "md5-sess",
    "sha-256",
]
POLLS = 6


@pytest.mark.parametrize(
    ("engine", "transport"), [("native", "tcp"), ("native", "udp"), ("libav", "tcp")]
)
@pytest.mark.parametrize("quirk", NONCES)
async def test_a_right_password_is_never_counted_as_wrong(
    quirk: str, engine: str, transport: str, fleet: StartFleet
) -> None:
    """An account that locks after three wrong logins never locks.

    Every poll gives a picture, every end is clean.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, quirk=quirk, **LOGIN)])
    for number in range(POLLS):
        attempt = await house.take("cam", engine=engine, transport=transport)
        assert attempt.ok, (number, attempt.error)
    seen = await house.seen("cam")
    assert (seen.wrong_logins, seen.locked, seen.ends_clean, seen.sessions_max) == (
        0,
        False,
        POLLS,
        1,
    )


@pytest.mark.parametrize(
    ("quirk", "cold", "warm"),
    [
        (
            "",
            ["DESCRIBE", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN"],
            ["SETUP", "SETUP", "PLAY", "TEARDOWN"],
        ),
        (
            "kept-nonce",
            ["DESCRIBE", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN"],
            ["SETUP", "PLAY", "TEARDOWN"],
        ),
    ],
)
async def test_how_many_round_trips_a_poll_takes(
    quirk: str, cold: list[str], warm: list[str], fleet: StartFleet
) -> None:
    """As docs/cameras.md says.

    A nonce is used again only after the camera gave it to two connections in a row.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, quirk=quirk, **LOGIN)])
    simulated = house.fleet.cameras["cam"]
    asked = []
    for _ in range(4):
        simulated.requests.clear()
        assert (await house.take("cam", engine="native")).ok
        asked.append(list(simulated.requests))
    assert (asked[0], asked[3]) == (cold, warm)


@pytest.mark.parametrize("quirk", ["", "stale-bare-401", "stale-closes", "new-nonce"])
async def test_a_camera_that_kept_its_nonce_until_now_costs_one_refusal_at_most(
    quirk: str, fleet: StartFleet
) -> None:
    """An update, or a nonce that lives for an hour.

    The poll goes on, cold, under the same lease; no nonce is trusted again.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, quirk="kept-nonce", **LOGIN)])
    simulated = house.fleet.cameras["cam"]
    house.may_refuse_logins.add("cam")
    for _ in range(3):
        assert (await house.take("cam", engine="native")).ok
    for _ in range(4):
        simulated.quirk = "+".join(filter(None, ("kept-nonce", quirk)))
        simulated.nonce += "x"
        attempt = await house.take("cam", engine="native")
        assert attempt.ok, attempt.error
    seen = await house.seen("cam")
    assert seen.wrong_logins <= 1
    assert seen.sessions_max == 1


# new-nonce says stale=true to whatever is wrong, so each of its refusals asks for one more try
@pytest.mark.parametrize("quirk", [quirk for quirk in NONCES if quirk != "new-nonce"])
async def test_a_wrong_password_is_sent_once_a_poll(quirk: str, fleet: StartFleet) -> None:
    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=2, quirk=quirk, username="viewer", password="right")]
    )
    for polls in range(1, 4):
        attempt = await house.take(
            "cam", password="wr0ng", sub_url=house.fleet.url("cam", "stream2")
        )
        assert attempt.result is Result.AUTH, attempt.error
        assert house.fleet.cameras["cam"].record.wrong_logins <= polls


async def test_a_camera_that_closes_at_a_wrong_login_gets_one_a_poll(fleet: StartFleet) -> None:
    """Cold, and when the password has changed since; no other source is tried with it."""
    house = await fleet(
        [
            SimulatedCamera(
                "cam", "Gate", gop=2, quirk="wrong-login-closes", **(LOGIN | {"lock_after": 0})
            )
        ]
    )
    simulated = house.fleet.cameras["cam"]
    assert (await house.take("cam")).ok
    old, simulated.password = simulated.password, "new"
    house.may_refuse_logins.add("cam")
    for polls in range(1, 4):
        attempt = await house.take("cam", password=old, sub_url=house.fleet.url("cam", "stream2"))
        assert attempt.result is Result.UNREACHABLE, attempt.error
        assert simulated.record.wrong_logins == polls


async def test_the_password_changes_while_a_nonce_is_kept(fleet: StartFleet) -> None:
    """One wrong login for each poll, also when it is the kept challenge that it answers."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, quirk="kept-nonce", **LOGIN)])
    simulated = house.fleet.cameras["cam"]
    for _ in range(3):
        assert (await house.take("cam")).ok
    old, simulated.password = simulated.password, "new"
    house.may_refuse_logins.add("cam")
    attempt = await house.take("cam", password=old)
    assert attempt.result is Result.AUTH
    assert simulated.record.wrong_logins == 1


async def test_over_tls_too(tmp_path: Path, fleet: StartFleet) -> None:
    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=2, quirk="stale-bare-401", **LOGIN)],
        tls=certificate(tmp_path),
    )
    for _ in range(POLLS):
        assert (await house.take("cam", engine="native")).ok
    assert (await house.seen("cam")).wrong_logins == 0


@pytest.mark.parametrize("engine", ["native", "libav"])
async def test_a_wrong_password_is_sent_once_a_poll_whatever_it_is_taken_for(
    engine: str, fleet: StartFleet
) -> None:
    """Beside another session of the device a 401 is taken for "full": no other source sends it."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2, max_sessions=2, **LOGIN)])
    alone = await house.take("cam", engine=engine, password="wr0ng")
    assert (alone.result, alone.label) == (Result.AUTH, "wrong password")
    with await house.manager.acquire("cam", "cam", Holder("live", "film")) as other:
        beside = await house.take(
            "cam",
            engine=engine,
            password="wr0ng",
            snapshot_url=f"http://127.0.0.1:{free_port()}/still.jpg",
        )
        other.ended(SessionEnd.NONE)
    assert beside.result is Result.FULL
    assert "http" not in (beside.error or "")
    assert (await house.seen("cam")).wrong_logins == 2
