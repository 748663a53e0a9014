"""Real daemons in a fleet on one machine, with a real etcd and simulated cameras as the judge."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from cut_link import CutLink
from etcd_server import EtcdCluster
from house import House, house_of
from support import free_port

from camserver.client import DaemonUnavailableError, SyncLeaseClient
from camserver.fleet.authority import CA_FILE, issue, make_authority
from camserver.simulator.camera import SimulatedCamera

INTERVAL_S = 1.0
"""The interval of the cameras, where a test names no other."""
UNCLEAN_S = 3.0
"""How long a simulated camera counts a session that was lost."""
MARGIN_S = 0.5
"""How much longer the inventory says. On a busy machine both event loops are late."""


class HostProcess:
    """One host: a daemon with its own socket and output."""

    def __init__(self, name: str, folder: Path, links: list[CutLink]) -> None:
        self.name = name
        self.links = links
        """Its links to the nodes of the store."""
        self.config, self.log = folder / f"{name}.toml", folder / f"{name}.log"
        self.output, self.socket = folder / name, folder / f"{name}.sock"
        self.client = SyncLeaseClient(self.socket)
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("a") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "camserver", "run", "--config", str(self.config), stderr=log
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    async def ended(self) -> int:
        """The exit status of the process, when it has ended."""
        assert self.process is not None
        status = await self.process.wait()
        self.process = None
        return status

    async def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended()

    def view(self) -> dict[str, Any]:
        """What it says of the fleet. Empty while it does not answer."""
        try:
            view: dict[str, Any] = self.client.get("/v1/fleet")
        except DaemonUnavailableError:
            return {}
        return view

    @property
    def owned(self) -> int:
        return int(self.view().get("owned", 0))


class FleetHosts:
    """The hosts of a fleet, their store, and the cameras that they share."""

    def __init__(
        self, house: House, etcd: EtcdCluster, folder: Path, interval_s: float = INTERVAL_S
    ) -> None:
        self.house = house
        self.etcd = etcd
        self.folder = folder
        self.interval_s = interval_s
        self.hosts: dict[str, HostProcess] = {}
        self.ended: Counter[str] = Counter()
        """How often the process of each host has ended by itself. It is started again."""
        self.opened: dict[str, list[float]] = {camera: [] for camera in house.fleet.cameras}
        """When each camera saw a session begin."""

    async def host(
        self, name: str, more: str = "", cameras: str = "", http: str = ""
    ) -> HostProcess:
        links = [CutLink(node.port) for node in self.etcd.nodes]
        for link in links:
            await link.start()
        host = self.hosts[name] = HostProcess(name, self.folder, links)
        port = free_port()
        certificate, key = issue(self.folder / "ca", name)
        urls = [f"http://127.0.0.1:{link.port}" for link in links]
        inventory = cameras or self.house.fleet.inventory(
            interval=f"{self.interval_s:g}s", unclean_cooldown=f"{UNCLEAN_S + MARGIN_S:g}s"
        )
        host.config.write_text(
            f'[fleet]\nname = "test"\nhost = "{name}"\netcd = {json.dumps(urls)}\n{more}\n'
            f'listen = "127.0.0.1:{port}"\nurl = "https://127.0.0.1:{port}"\n'
            f'ca_file = "{self.folder}/ca/{CA_FILE}"\ncert_file = "{certificate}"\n'
            f'key_file = "{key}"\n'
            f'[polling]\nstop_timeout = "5s"\n'
            f'[http]\nlisten = "{http}"\nactions = {str(bool(http)).lower()}\n'
            f'[output]\ndirectory = "{host.output}"\n'
            f'[api]\nsocket = "{host.socket}"\n{inventory}'
        )
        return host

    async def get(self, client: SyncLeaseClient, route: str) -> Any:
        """Ask a host, without blocking the links of all hosts."""
        return await asyncio.to_thread(client.get, route)

    async def until(self, condition: Any, seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(condition):
                await self._revive()
                await asyncio.sleep(0.05)

    async def _revive(self) -> None:
        """Start hosts again that have ended by themselves, as systemd does.

        On a machine that is very busy, a host that cannot end its sessions in time is killed.
        """
        for host in self.hosts.values():
            if host.process is not None and host.process.returncode is not None:
                self.ended[host.name] += 1
                await host.start()

    async def until_shared(self) -> None:
        """Until every device is owned, and every host that runs owns some."""
        running = [host for host in self.hosts.values() if host.process is not None]
        everything = len(self.house.fleet.cameras)

        def shared() -> bool:
            owned = [host.owned for host in running]
            return sum(owned) == everything and all(owned)

        await self.until(shared)

    async def until_polled(self) -> None:
        """Until every camera has seen a new session."""
        before = {camera: len(times) for camera, times in self.opened.items()}
        await self.until(lambda: all(len(self.opened[c]) > n for c, n in before.items()))

    async def watch(self) -> None:
        """Note when sessions begin, until cancelled."""
        seen = dict.fromkeys(self.opened, 0)
        while True:
            for camera in self.house.fleet.cameras.values():
                if camera.record.opens > seen[camera.id]:
                    seen[camera.id] = camera.record.opens
                    self.opened[camera.id].append(time.monotonic())
            await asyncio.sleep(0.02)

    def longest_gap_s(self, since: float) -> float:
        """The longest time without a new session of a camera, from a moment until now."""
        gaps = []
        for times in self.opened.values():
            marks = [since, *(t for t in times if t > since), time.monotonic()]
            gaps += [later - earlier for earlier, later in pairwise(marks)]
        return max(gaps)

    def verdict(self) -> dict[str, str]:
        """What the cameras object to. Empty: never a session too many, or too early."""
        faults = {}
        for camera in self.house.fleet.cameras.values():
            most, early = camera.record.sessions_max, camera.record.early
            if most > camera.max_sessions or early or camera.record.refused_full:
                faults[camera.id] = f"{most} at once, {early} too early"
        return faults


@asynccontextmanager
async def fleet_of(
    folder: Path, cameras: int = 6, nodes: int = 1, interval_s: float = INTERVAL_S
) -> AsyncIterator[FleetHosts]:
    """A fleet without hosts yet. What runs at the end is stopped."""
    simulated = [
        SimulatedCamera(f"cam{n}", f"Cam {n}", gop=2, unclean_cooldown_s=UNCLEAN_S)
        for n in range(cameras)
    ]
    make_authority(folder / "ca", "test")
    etcd = EtcdCluster(folder, nodes)
    await asyncio.to_thread(etcd.start)
    try:
        async with house_of(simulated) as house:
            fleet = FleetHosts(house, etcd, folder, interval_s)
            watching = asyncio.create_task(fleet.watch())
            try:
                yield fleet
            finally:
                watching.cancel()
                for host in fleet.hosts.values():
                    for link in host.links:
                        await link.stop()
                    if host.process is not None and host.process.returncode is None:
                        host.process.kill()
                        await host.process.wait()
    finally:
        etcd.stop()
