"""Pictures of a snapshot URL, for the doctor: some, one after the other."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from camserver.capture.build import Capture
from camserver.config import Camera
from camserver.doctor.comparison import APART_S, SHOTS, Shot
from camserver.doctor.probe import ONE_SESSION_S


async def snapshots(capture: Capture, camera: Camera, url: str) -> AsyncIterator[Shot]:
    """Take SHOTS pictures, APART_S seconds after each other. Raises CameraError."""
    loop = asyncio.get_running_loop()
    for number in range(SHOTS):
        if number:
            await asyncio.sleep(APART_S)
        began = loop.time()
        session = capture.http.session(camera, url, began + camera.timeout_s)
        async with session:
            unit = await session.keyframe()
        still = await capture.decoder.decode(unit, width=None, deadline=loop.time() + ONE_SESSION_S)
        yield Shot(
            still.width,
            still.height,
            len(still.jpeg),
            loop.time() - began,
            hashlib.sha256(unit.data).digest(),
            "JPEG" if unit.codec == "mjpeg" else unit.codec,
        )
