"""A daemon with its socket, and the cameras it polls, for tests of the API and its clients."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from house import House, house_of
from support import camera

from camserver.api.metrics import Metrics
from camserver.api.pictures import PictureRoutes
from camserver.api.read_routes import ReadRoutes
from camserver.api.responses import Services
from camserver.api.sse import EventStream
from camserver.archive.listing import ArchiveListing
from camserver.client import DaemonUnavailableError, SyncLeaseClient
from camserver.config.output import OutputTable
from camserver.leases import RtspManager
from camserver.polling.on_demand import OnDemand
from camserver.polling.orchestrator import PollingOrchestrator
from camserver.simulator.camera import SimulatedCamera
from camserver.storage.outcomes import Outcomes


class Desk:
    """A daemon with its socket, and the cameras it polls."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house = house
        self.socket, self.config, self.output = (
            folder / "api.sock",
            folder / "c.toml",
            folder / "out",
        )
        self.client = SyncLeaseClient(self.socket)
        self.log = folder / "log"
        self.http = ""  # the address of the wall page
        self.more = ""  # tables of the inventory

    def write(self, **defaults: str) -> None:
        self.config.write_text(
            f'[http]\nlisten = "{self.http}"\n[output]\ndirectory = "{self.output}"\n[api]\n'
            f'socket = "{self.socket}"\n{self.more}\n' + self.house.fleet.inventory(**defaults)
        )

    def facts(self, camera: str = "cam") -> dict[str, Any]:
        """The content of latest.json."""
        try:
            facts: dict[str, Any] = json.loads((self.output / camera / "latest.json").read_text())
            return facts
        except FileNotFoundError:
            return {"attempt": {"result": None}}

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[asyncio.subprocess.Process]:
        with self.log.open("a") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "camserver", "run", "--config", str(self.config), stderr=log
            )
        try:
            await self.until(lambda: self.ask("GET", "/healthz"))
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                assert await process.wait() == 0

    def ask(self, method: str, route: str) -> Any:
        try:
            return self.client.get(route) if method == "GET" else self.client.post(route)
        except DaemonUnavailableError:
            return None

    async def until(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        """Wait for `condition`, which runs in a thread.

        `seconds` is a limit for a busy machine, not the usual time.
        """
        async with asyncio.timeout(seconds):
            while not (value := await asyncio.to_thread(condition)):
                await asyncio.sleep(0.02)
        return value

    async def run(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "camserver",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"CAMSERVER_SOCKET": str(self.socket)},
        )

    def held(self) -> list[dict[str, Any]]:
        return [held for device in self.client.get("/v1/leases") for held in device["held"]]


async def _never(*_: object) -> Any:
    raise NotImplementedError


def bare(folder: Path, manager: RtspManager) -> tuple[Services, ReadRoutes]:
    """The services and routes of a server without a daemon: one camera, `cam`, and its leases."""
    outcomes = Outcomes()
    polling = PollingOrchestrator(_never, sessions=1, open_rate=1, emit=lambda _: None)
    services = Services(
        lambda: (camera("cam"),),
        lambda _: folder,
        outcomes,
        manager,
        polling.cameras,
        OnDemand(polling, outcomes),
        *[_never] * 3,
    )
    thumbnails: Any = None
    metrics: Any = Metrics(_never)  # type: ignore[arg-type]
    listing = ArchiveListing(OutputTable(directory=folder))
    pictures = PictureRoutes(services, listing, thumbnails)
    return services, ReadRoutes(services, EventStream(lambda: str), metrics, pictures)


StartDaemon = Callable[..., Awaitable[Desk]]
"""The fixture `daemon`: simulated cameras, `http`, `more` tables, and keys of [defaults]."""


@asynccontextmanager
async def desk_at(
    folder: Path,
    cameras: list[SimulatedCamera] | None = None,
    http: str = "",
    more: str = "",
    **defaults: str,
) -> AsyncIterator[Desk]:
    """Run a daemon that polls simulated cameras."""
    async with house_of(cameras or [SimulatedCamera("cam", "Gate", gop=2)]) as house:
        desk = Desk(house, folder)
        desk.http, desk.more = http, more
        desk.write(**({"interval": "300ms"} | defaults))
        async with desk.daemon():
            yield desk
