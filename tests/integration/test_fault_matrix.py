"""Every fault of the simulator, from the first session on and later, beside healthy cameras.

Real sockets, TLS and the real decoder: what `tests/unit/test_fault_matrix.py` has in memory. All
cameras have their faults at the same time.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from house import StartFleet, certificate, psnr_to_source

from camserver.model import Attempt
from camserver.simulator.camera import METHODS, Fault, SimulatedCamera

KINDS = (
    *("refuse", "deaf", "silent", "no-keyframe", "cut", "damage"),
    *(f"stall:{method}" for method in METHODS),
    *("status:401", "status:404", "status:401:SETUP", "status:453:SETUP", "status:503:PLAY"),
    *("loss:0.3", "reorder:0.3", "slow:2000"),
)
HARMLESS = {
    *("stall:OPTIONS", "stall:GET_PARAMETER", "stall:TEARDOWN"),
    *("loss:0.3", "reorder:0.3", "slow:2000"),
}
"""A picture may come all the same. Then it is true."""
AT_DESCRIBE = {"stall:DESCRIBE", "status:401", "status:404"}
"""Harmless later: our own client remembers the description of the session before."""
VARIANTS = {
    "native by UDP": {"engine": "native", "transport": "udp"},
    "native over TLS": {"engine": "native"},
    "libav by TCP": {"engine": "libav"},
    "libav by UDP": {"engine": "libav", "transport": "udp"},
}
AT_ONCE = 4
"""As many as the service of these tests has workers for sessions of libav."""
SHORT_S, LONG_S = 1.0, 60.0
"""Limits of a faulty and of a healthy camera. The long one is for a busy machine."""


@pytest.mark.parametrize("keys", VARIANTS.values(), ids=VARIANTS)
async def test_every_fault_beside_healthy_cameras(
    keys: dict[str, str], tmp_path: Path, fleet: StartFleet
) -> None:
    cameras = [SimulatedCamera(kind, kind, gop=5) for kind in (*KINDS, "healthy", "well")]
    is_tls = keys is VARIANTS["native over TLS"]
    house = await fleet(cameras, tls=certificate(tmp_path) if is_tls else None)
    house.may_refuse_logins |= set(KINDS)
    free = asyncio.Semaphore(AT_ONCE)
    over = asyncio.Event()

    async def take(camera: str, timeout_s: float = LONG_S) -> Attempt:
        async with free:
            attempt = await house.take(camera, timeout_s=timeout_s, lease_wait_s=LONG_S, **keys)
        if attempt.snapshot is not None:
            assert psnr_to_source(attempt, house.fleet.cameras[camera]) > 30, camera
        return attempt

    async def fails_and_recovers(kind: str) -> None:
        simulated = house.fleet.cameras[kind]
        later = HARMLESS | (AT_DESCRIBE if keys["engine"] == "native" else set())
        for harmless in (HARMLESS, later):  # at the first session, and later
            if kind == "refuse":
                await house.fleet._power_off(kind)
            simulated.fault = Fault.parse(kind)
            attempt = await take(kind, LONG_S if kind == "damage" else SHORT_S)
            assert kind in harmless or not attempt.ok, (kind, attempt)
            simulated.fault = Fault()
            if kind == "refuse":
                await house.fleet._listen(simulated)
            after = await take(kind)
            assert after.ok, (kind, after.error)
        assert (await house.seen(kind)).sessions_max == 1, kind

    async def stays_well(camera: str) -> int:
        count = 0
        while not over.is_set():
            attempt = await take(camera)
            assert attempt.ok, (camera, attempt.error)
            count += 1
        return count

    async with asyncio.TaskGroup() as group:
        healthy = [group.create_task(stays_well(camera)) for camera in ("healthy", "well")]
        faulty = [group.create_task(fails_and_recovers(kind)) for kind in KINDS]
        await asyncio.gather(*faulty)
        over.set()
    assert min(task.result() for task in healthy) >= 2
