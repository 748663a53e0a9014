"""Cameras made of combinations of habits.

Only true pictures come out, and no wrong login goes in.
"""

from __future__ import annotations

import asyncio

from house import House, psnr_to_source, with_house
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camserver.simulator.camera import SimulatedCamera

ONE_OF = {  # habits that exclude each other, by what they are about
    "login": [
        "",
        "kept-nonce",
        "stale-bare-401",
        "closes-after-401",
        "new-nonce",
        "md5-sess",
        "sha-256",
    ],
    "control": ["", "control-absolute", "control-star", "control-missing", "control-slash"],
    "base": ["", "no-base", "content-location", "base-without-slash"],
    "numbers": ["", "cseq-zero", "cseq-missing"],
    "head": ["", "lf", "folded", "lower-case", "no-colon"],
    "session": ["", "session-describe", "no-session-id"],
    "description": ["", "sets-in-band", "sets-one-field", "tracks"],
    "markers": ["", "marked-units", "no-markers"],
    "way": ["", "options-first", "describe-first", "rtp-early"],
    "channel": ["", "audio-on-channel", "rtcp-on-channel", "repeats", "stray-bytes"],
    "units": ["", "sei-broken", "unknown-units", "annex-b", "no-end-bits"],
    "padding": ["", "padding-lie"],
}
HABITS = st.fixed_dictionaries({about: st.sampled_from(names) for about, names in ONE_OF.items()})
CAMERAS = st.lists(
    st.tuples(
        st.sampled_from(["h264", "h265", "mjpeg"]),
        st.sampled_from(["tcp", "udp"]),
        st.sampled_from(["digest", "basic", ""]),
        HABITS,
    ),
    min_size=6,
    max_size=6,
)
POLLS = 3


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CAMERAS)
def test_whatever_a_camera_is_made_of(cameras: list[tuple[str, str, str, dict[str, str]]]) -> None:
    """Codec x packets x login x headers x description.

    Three polls each, all of them pictures that the camera sent.
    """
    simulated, transports = [], {}
    for number, (codec, transport, auth, habits) in enumerate(cameras):
        login = (
            {"username": "viewer", "password": "p@:/#%? \u00fc", "auth": auth, "lock_after": 3}
            if auth
            else {}
        )
        quirk = "+".join(habit for habit in habits.values() if habit)
        simulated.append(
            SimulatedCamera(
                f"cam{number}", f"Gate {number}", codec=codec, gop=2, fps=15.0, quirk=quirk, **login
            )
        )
        transports[f"cam{number}"] = transport

    async def polled(house: House, camera: SimulatedCamera) -> None:
        for poll in range(POLLS):
            attempt = await house.take(camera.id, transport=transports[camera.id], timeout_s=30.0)
            assert attempt.ok, (
                camera.codec,
                camera.quirk,
                transports[camera.id],
                poll,
                attempt.error,
            )
            assert psnr_to_source(attempt, camera) > 35, (camera.codec, camera.quirk, poll)
        seen = await house.seen(camera.id)
        assert (seen.ends_clean, seen.sessions_max, seen.locked) == (POLLS, 1, False), camera.quirk

    async def work(house: House) -> None:
        async with asyncio.TaskGroup() as tasks:
            for camera in simulated:
                tasks.create_task(polled(house, camera))

    with_house(simulated, work)
