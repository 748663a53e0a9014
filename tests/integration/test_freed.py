"""What a session needed comes free when it ends. It does not wait for a collection of garbage.

A session has received up to some megabytes, and a daemon has many sessions between two collections.
"""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from house import StartFleet

from camserver.leases import Holder
from camserver.model import Result
from camserver.rtsp.aio.connection import ConnectionClosed, RtspConnection
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


@pytest.mark.parametrize("fault", ["status:453", "stall:PLAY"])
async def test_a_device_that_is_full_leaves_no_garbage(fault: str, fleet: StartFleet) -> None:
    """It says so, or it is silent while another session is open, which is taken as full."""
    busy = SimulatedCamera("cam", "Gate", gop=5, max_sessions=2, fault=Fault.parse(fault))
    house = await fleet([busy])
    gc.collect()
    gc.disable()
    try:
        with await house.manager.acquire("cam", "cam", Holder("live", "view")):
            attempt = await house.take("cam", timeout_s=2.0, engine="native")
        await house.seen("cam")
        left = [each for each in gc.get_objects() if isinstance(each, RtspConnection)]
        assert (attempt.result, left) == (Result.FULL, [])
    finally:
        gc.enable()


async def test_a_connection_that_ends_while_a_request_waits_leaves_no_garbage() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    gc.collect()
    gc.disable()
    try:
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(RtspConnection, "127.0.0.1", port)
        with pytest.raises(ConnectionClosed) as raised:
            await connection.request("DESCRIBE", "rtsp://camera/", {})
        assert raised.value.by_camera
        connection.close()
        await connection.closed
        left = weakref.ref(connection)
        del connection, raised
        await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()
        server.close()
