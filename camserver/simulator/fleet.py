"""A fleet of simulated cameras in one process: each is a device with a port of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Iterable
from typing import Any

from camserver.simulator.camera import SimulatedCamera
from camserver.simulator.pictures import Pictures
from camserver.simulator.session import RtspConnection


class Fleet:
    """Serves cameras on loopback; pictures are shared by all cameras of one codec and size."""

    def __init__(self, cameras: Iterable[SimulatedCamera], *, host: str = "127.0.0.1",
                 tls: ssl.SSLContext | None = None) -> None:
        self.cameras = {camera.id: camera for camera in cameras}
        self._host = host
        self._tls = tls
        self._pictures: dict[tuple[str, int, int], Pictures] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._connections: dict[str, set[RtspConnection]] = {}

    async def start(self) -> None:
        """Listen; a camera with port 0 gets a free one."""
        for camera in self.cameras.values():
            if camera.fault.kind == "refuse" and camera.port == 0:
                camera.port = 9     # discard: nothing listens there
            await self._listen(camera)

    async def stop(self) -> None:
        """Close everything."""
        for camera_id in list(self._servers):
            await self._power_off(camera_id)

    async def reboot(self, camera_id: str, gone_s: float) -> None:
        """End all connections of a camera, be gone for `gone_s` seconds, come back on the same port."""
        await self._power_off(camera_id)
        await asyncio.sleep(gone_s)
        await self._listen(self.cameras[camera_id])

    def records(self) -> dict[str, dict[str, Any]]:
        """What each camera saw."""
        return {camera.id: dataclasses.asdict(camera.record) for camera in self.cameras.values()}

    def url(self, camera_id: str) -> str:
        """The camera's RTSP URL, without credentials."""
        return f"rtsp{'s' if self._tls else ''}://{self._host}:{self.cameras[camera_id].port}/stream1"

    def inventory(self, **defaults: str) -> str:
        """An inventory of the fleet as TOML."""
        lines = ["[defaults]", *(f'{key} = "{value}"' for key, value in defaults.items())]
        for camera in self.cameras.values():
            lines += ["", "[[camera]]", f'id = "{camera.id}"', f'name = "{camera.name}"', f'url = "{self.url(camera.id)}"',
                      f"max_sessions = {camera.max_sessions}"]
            if camera.username:
                lines += [f'username = "{camera.username}"', f"password = '{camera.password}'"]
        return "\n".join(lines) + "\n"

    async def _listen(self, camera: SimulatedCamera) -> None:
        if camera.fault.kind == "refuse":
            return
        key = (camera.codec, camera.width, camera.height)
        if key not in self._pictures:
            self._pictures[key] = await asyncio.to_thread(Pictures, *key)
        pictures = self._pictures[key]
        connections = self._connections.setdefault(camera.id, set())

        def connect() -> RtspConnection:
            connection = RtspConnection(camera, pictures)
            connections.add(connection)
            return connection

        server = await asyncio.get_running_loop().create_server(connect, self._host, camera.port, ssl=self._tls)
        camera.port = server.sockets[0].getsockname()[1]
        self._servers[camera.id] = server

    async def _power_off(self, camera_id: str) -> None:
        self._servers.pop(camera_id).close()
        for connection in self._connections.pop(camera_id, ()):
            connection.abort()
        await asyncio.sleep(0)
