"""A fleet of simulated cameras in one process. Each is a device with its own port."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import resource
import ssl
from collections.abc import Iterable
from typing import Any

from camserver.simulator.camera import STREAMS, SimulatedCamera
from camserver.simulator.pictures import Pictures
from camserver.simulator.session import SimulatedConnection
from camserver.simulator.snapshot_url import PATH, SnapshotUrl

DISCARD_PORT = 9
"""The port of a camera that refuses connections. Nothing listens there."""
_FILES_PER_CAMERA = 8


class Fleet:
    """Serves cameras on `host`. All cameras of one codec and size share their pictures."""

    def __init__(
        self,
        cameras: Iterable[SimulatedCamera],
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.cameras = {camera.id: camera for camera in cameras}
        self._host = host
        self._tls = tls
        self._pictures: dict[tuple[str, int, int], Pictures] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._connections: dict[str, set[SimulatedConnection]] = {}
        self._snapshot_urls: list[SnapshotUrl] = []
        self._reboots: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen on all ports. A camera with port 0 gets a free port.

        Raises OSError when a port is in use.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(
            resource.RLIMIT_NOFILE,
            (min(hard, max(soft, _FILES_PER_CAMERA * len(self.cameras))), hard),
        )
        for camera in self.cameras.values():
            await self._listen(camera)
            if camera.http_port is not None:
                self._snapshot_urls.append(SnapshotUrl(camera, self._host, self._tls))
                await self._snapshot_urls[-1].start()
            if camera.fault.kind == "reboot":
                self._reboots.append(
                    asyncio.create_task(self._keep_rebooting(camera), name=f"reboot {camera.id}")
                )

    async def stop(self) -> None:
        """Close all servers and connections."""
        for task in self._reboots:
            task.cancel()
        for camera_id in list(self._servers):
            await self._power_off(camera_id)
        for snapshot_url in self._snapshot_urls:
            await snapshot_url.stop()

    async def reboot(self, camera_id: str, gone_s: float) -> None:
        """Reboot a camera: end all its connections, and listen again after `gone_s` seconds.

        It comes back on the same port.
        """
        await self._power_off(camera_id)
        await asyncio.sleep(gone_s)
        await self._listen(self.cameras[camera_id])

    def records(self) -> dict[str, dict[str, Any]]:
        """The record of each camera, by its id."""
        return {camera.id: dataclasses.asdict(camera.record) for camera in self.cameras.values()}

    def url(self, camera_id: str, stream: str = STREAMS[0]) -> str:
        """The RTSP URL of a stream, without credentials."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"rtsp{'s' if self._tls else ''}://{host}:{self.cameras[camera_id].port}/{stream}"

    def snapshot_url(self, camera_id: str) -> str:
        """The snapshot URL of a camera that has one, without credentials."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{host}:{self.cameras[camera_id].http_port}{PATH}"

    def inventory(self, **defaults: str) -> str:
        """An inventory of the fleet as TOML, with the correct passwords."""
        lines = ["[defaults]", *(f"{key} = {_toml(value)}" for key, value in defaults.items())]
        for camera in self.cameras.values():
            keys = {
                "id": camera.id,
                "name": camera.name,
                "url": self.url(camera.id),
                "max_sessions": camera.max_sessions,
            }
            if camera.http_port is not None:
                keys["snapshot_url"] = self.snapshot_url(camera.id)
            if camera.username:
                keys |= {"username": camera.username, "password": camera.password}
            lines += ["", "[[camera]]", *(f"{key} = {_toml(value)}" for key, value in keys.items())]
        return "\n".join(lines) + "\n"

    async def _listen(self, camera: SimulatedCamera) -> None:
        if camera.fault.kind == "refuse":
            camera.port = camera.port or DISCARD_PORT
            return
        streams = {}
        for number, stream in enumerate(STREAMS):
            key = (camera.codec, camera.width >> number, camera.height >> number)
            if key not in self._pictures:
                self._pictures[key] = await asyncio.to_thread(Pictures, *key)
            streams[stream] = self._pictures[key]
        connections = self._connections.setdefault(camera.id, set())

        server = await asyncio.get_running_loop().create_server(
            lambda: SimulatedConnection(camera, streams, connections),
            self._host,
            camera.port,
            ssl=self._tls,
        )
        camera.port = server.sockets[0].getsockname()[1]
        self._servers[camera.id] = server

    async def _power_off(self, camera_id: str) -> None:
        self._servers.pop(camera_id).close()
        for connection in list(self._connections.pop(camera_id, ())):
            connection.abort()
        await asyncio.sleep(0)

    async def _keep_rebooting(self, camera: SimulatedCamera) -> None:
        gone_s, every_s = (float(a) for a in camera.fault.arguments[:2])
        while True:
            await asyncio.sleep(every_s)
            await self.reboot(camera.id, gone_s)


def _toml(value: object) -> str:
    """A string or a number as TOML.

    A JSON string is also a TOML basic string, except for DEL, which must be escaped in TOML.
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
