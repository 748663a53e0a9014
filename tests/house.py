"""Simulated cameras, the service that takes their pictures, and expected pictures, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg
from support import camera

from camserver.capture.build import build_capture
from camserver.capture.engines import RtspEngine
from camserver.capture.libav import LibavEngine
from camserver.capture.native import NativeEngine
from camserver.config import Camera
from camserver.leases import Budget, Holder, RtspManager, http_device
from camserver.model import Attempt, CodedKeyframe, SessionEnd
from camserver.simulator.camera import Record, SimulatedCamera
from camserver.simulator.fleet import Fleet
from camserver.snapshots.service import SnapshotService
from camserver.snapshots.sources import Sources

HOLDER = Holder("poller")


class House:
    """Simulated cameras, and the service that takes their pictures."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.manager = RtspManager()
        self.capture = build_capture(95, sessions=4)
        self.sessions, self.decoders = self.capture.sessions, self.capture.decoders
        self.service = SnapshotService(
            self.manager, Sources(self.capture.rtsp, self.capture.http), self.capture.decoder
        )
        self.may_refuse_logins: set[str] = set()
        """Cameras that got a wrong password, or that refuse a right password on purpose."""

    async def take(self, camera_id: str, **keys: Any) -> Attempt:
        simulated = self.fleet.cameras[camera_id]
        keys = {
            "url": self.fleet.url(camera_id),
            "username": simulated.username,
            "password": simulated.password,
            "timeout_s": 5.0,
        } | keys
        if keys["password"] != simulated.password:
            self.may_refuse_logins.add(camera_id)
        return await self.service.take(camera(camera_id, **keys), HOLDER)

    async def seen(self, camera_id: str) -> Record:
        """The camera's record, after the camera has seen that no session is open any more."""
        record = self.fleet.cameras[camera_id].record
        async with asyncio.timeout(20):
            while record.sessions_now:
                await asyncio.sleep(0.01)
        return record


async def fetch(
    engine: NativeEngine | LibavEngine | RtspEngine,
    target: Camera,
    url: str,
    deadline: float,
    ends: list[SessionEnd] | None = None,
) -> CodedKeyframe:
    """The first keyframe of one session. The session's end is added to `ends` in any case."""
    session = engine.session(target, url, deadline)
    try:
        async with session:
            return await session.keyframe()
    finally:
        if ends is not None:
            ends.append(session.end)


StartFleet = Callable[..., Awaitable[House]]
"""The fixture `fleet`: simulated cameras, and options of Fleet."""


@contextlib.asynccontextmanager
async def house_of(cameras: list[SimulatedCamera], **options: Any) -> AsyncIterator[House]:
    """Run simulated cameras and the service.

    At the end no camera may have counted a wrong login, unless a test gave it one.
    """
    fleet = Fleet(cameras, **options)
    await fleet.start()
    house = House(fleet)
    budgets = {c.id: Budget(c.max_sessions, 0.0, 0.0) for c in cameras}
    # `support.camera` is "cam", also where its snapshot URL is not one of these cameras
    web = {http_device(name): Budget(1, 0.0, 0.0) for name in ("cam", *budgets)}
    house.manager.configure(budgets | web)
    try:
        yield house
        for simulated in cameras:
            may_refuse = simulated.id in house.may_refuse_logins
            assert may_refuse or simulated.record.wrong_logins == 0, simulated.record
    finally:
        await house.capture.close()
        await fleet.stop()


def with_house(
    cameras: list[SimulatedCamera], work: Callable[[House], Awaitable[None]], **options: Any
) -> None:
    """Run `work` with a house, for tests that are not async."""

    async def inside() -> None:
        async with house_of(cameras, **options) as house:
            await work(house)

    asyncio.run(inside())


def rgb(codec: str, data: bytes) -> Any:
    """The decoded picture, by the colour matrix it names: BT.709 for video, BT.601 for JFIF."""
    if codec == "mjpeg":
        return simplejpeg.decode_jpeg(data)
    decoder = av.CodecContext.create("hevc" if codec == "h265" else codec, "r")
    frame = [*decoder.decode(av.Packet(data)), *decoder.decode(None)][0]
    return frame.to_ndarray(
        format="rgb24", src_colorspace="ITU709", src_color_range="MPEG", dst_color_range="JPEG"
    )


def psnr(shown: Any, sent: Any) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((shown.astype(float) - sent) ** 2))))


def psnr_to_source(attempt: Attempt, source: SimulatedCamera) -> float:
    assert attempt.snapshot is not None, attempt.error
    shown = simplejpeg.decode_jpeg(attempt.snapshot.still.jpeg)
    best = 0.0
    for sent in reversed(source.keyframes):
        best = max(best, psnr(shown, rgb(source.codec, sent)))
        if best > 35:
            break
    return best


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's TLS context with a self-signed certificate, as cameras have."""
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=camera",
            "-keyout",
            str(folder / "key.pem"),
            "-out",
            str(folder / "cert.pem"),
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
