"""What a session needed comes free when it ends. It does not wait for a collection of garbage.

A session has received up to some megabytes, and a daemon has many sessions between two collections.
"""

from __future__ import annotations

import gc

import pytest
from house import StartFleet

from camserver.rtsp.aio.connection import RtspConnection
from camserver.simulator.camera import Fault, SimulatedCamera


@pytest.mark.parametrize("fault", ["", "silent", "status:404", "stall:PLAY", "cut"])
async def test_a_session_leaves_no_garbage(fault: str, fleet: StartFleet) -> None:
    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=5, fault=Fault.parse(fault) if fault else Fault())]
    )
    gc.collect()
    gc.disable()
    try:
        await house.take("cam", timeout_s=2.0, engine="native")
        await house.seen("cam")
        left = [each for each in gc.get_objects() if isinstance(each, RtspConnection)]
        assert not left
    finally:
        gc.enable()
