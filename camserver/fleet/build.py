"""Builds this host's part in a fleet from its inventory."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

from camserver.config import Camera, Inventory
from camserver.config.fleet import FleetTable
from camserver.errors import NotOwnerError, RtspBusy
from camserver.events import Event, EventBus
from camserver.fleet.borrowing import BorrowedLease, Borrowing
from camserver.fleet.compaction import Compaction
from camserver.fleet.counters import FleetCounters
from camserver.fleet.examination import store_of
from camserver.fleet.following import EventSink, Following
from camserver.fleet.lending import Lending, Lent, Wish, holder_of
from camserver.fleet.local import LocalDevices
from camserver.fleet.member import FleetMember, Identity
from camserver.fleet.observing import ObservedSession
from camserver.fleet.peers import Peers
from camserver.fleet.records import HostRecord, HostState, RecordError, decode
from camserver.fleet.status import fleet_statistics, fleet_view
from camserver.fleet.store import StoreError
from camserver.fleet.terms import FleetTerms
from camserver.fleet.tls import client_context, server_context
from camserver.host.clock import boot_time
from camserver.host.kernel_timer import KernelTimer
from camserver.host.tasks import SingleFlight
from camserver.leases import Holder, Priority, RtspManager
from camserver.polling.orchestrator import PollingOrchestrator

KNOWN_S = 1.0
MACHINE_ID, BOOT_ID = Path("/etc/machine-id"), Path("/proc/sys/kernel/random/boot_id")


class Fleet:
    """The fleet as the daemon sees it."""

    def __init__(
        self,
        table: FleetTable,
        inventory: Inventory,
        manager: RtspManager,
        orchestrator: PollingOrchestrator,
        emit: Callable[[Event], None],
    ) -> None:
        """Raises OSError when a TLS file cannot be used, or the kernel gives no timer."""
        self._table = table
        self._counters = FleetCounters()
        self._known: dict[str, dict[str, Any]] = {}
        self._known_until = 0.0
        self._asking: SingleFlight[str, None] = SingleFlight()
        self._store = store_of(table, tuple(table.etcd))
        self._tls_files = _tls_files(table)
        self.peers = (
            None
            if self._tls_files is None
            else Peers(client_context(*self._tls_files), self._url_of)
        )
        """The other hosts. None when this host has no certificate."""
        self._lending = Lending(manager, self._store, boot_time)
        self._borrowing = Borrowing(self._ask_owner, boot_time)
        self._local = LocalDevices(manager, orchestrator, self._lending, self._borrowing)
        self._local.configure(inventory.cameras)
        record = HostRecord(
            machine_id=_read(MACHINE_ID),
            boot_id=_read(BOOT_ID),
            epoch=1,
            sequence=0,
            state=HostState.LIVE,
            seen=0,
            url=table.own_url,
            inventory=inventory_hash(inventory.cameras),
            weight=table.weight,
            labels=tuple(table.labels),
            valid_s=FleetTerms().valid_s,
        )
        self.member = FleetMember(
            Identity(table.name, table.host_name, record),
            FleetTerms(vouch=table.vouch),
            self._store,
            self._local,
            KernelTimer(),
            EventBus(self._counters, emit),
            boot_time,
            None if self.peers is None else self.peers.promise,
        )

    def listener(self) -> tuple[tuple[str, int], ssl.SSLContext] | None:
        """The address for other hosts, and its TLS. None when it is turned off. Raises OSError."""
        address = self._table.address
        if address is None or self._tls_files is None:
            return None
        return address, server_context(*self._tls_files)

    def _url_of(self, host: str) -> str:
        return self.member.url_of(host)

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over a new inventory. Returns the changed keys that need a restart."""
        self._local.configure(inventory.cameras)
        self.member.inventory_changed(inventory_hash(inventory.cameras))
        return () if inventory.fleet == self._table else ("fleet",)

    @property
    def polled(self) -> tuple[Camera, ...]:
        """The cameras that this host polls now."""
        return self._local.polled

    def owner_of(self, device: str) -> str:
        """The host that owns a device. Empty when none does."""
        host = self.member.host
        owner = None if host is None else host.mirror.owner(device)
        return owner.host if owner is not None and owner.held else ""

    def owns(self, device: str) -> bool:
        """Whether this host owns a device."""
        host = self.member.host
        return host is not None and device in host.devices.owned

    def statistics(self) -> dict[str, float]:
        """The values of the metrics, by their names."""
        counted = asdict(self._counters)
        return fleet_statistics(self.member, boot_time()) | counted

    def view(self) -> dict[str, object]:
        """The fleet as JSON values, for the API."""
        return fleet_view(self.member, boot_time())

    async def drain(self, host: str, drained: bool) -> str | None:
        """Say whether a host shall own nothing. Returns why that could not be said.

        Raises LookupError for a host that was never in the fleet.
        """
        try:
            await self.member.drain(host, drained=drained)
        except StoreError as error:
            return str(error)
        return None

    async def hold(self, for_s: float) -> tuple[str, tuple[str, ...]]:
        """Let all hosts have sessions for longer without the store; 0 is as ever.

        Returns why that could not be said, or "", and the hosts that do not know it yet.
        """
        try:
            return "", await self.member.hold(for_s)
        except StoreError as error:
            return str(error), ()

    # ---- leases of programs

    def observe(self, camera: str, device: str, holder: Holder) -> ObservedSession:
        """Count a session of go2rtc on this host, whichever host owns the device.

        Raises LeaseStateError for a device that is not in the inventory.
        """
        return self._local.observing.observe(camera, device, holder)

    async def borrow(
        self, camera: Camera, holder: Holder, priority: Priority, wait_s: float
    ) -> BorrowedLease:
        """A lease for a program on this host, from the host that owns the device.

        Raises RtspBusy.
        """
        return await self._borrowing.acquire(camera, holder, priority, wait_s)

    async def _ask_owner(self, owner: str, camera: Camera, wish: Wish, holder: Holder) -> Lent:
        """Raises RtspBusy, NotOwnerError, StoreError."""
        if owner == self._table.host_name:
            return await self._lending.give(camera, wish, holder)
        if self.peers is None:
            raise NotOwnerError(f"host {owner} has its sessions, and cannot be asked: no `listen`")
        return await self.peers.lease(owner, wish)

    async def lend(self, question: bytes, hosts: Iterable[str]) -> dict[str, object]:
        """Give a lease to a program on another host, which asks with a certificate for `hosts`.

        Raises ValueError for a question that makes no sense, PermissionError when the host asks
        for another one, LookupError for an unknown camera; RtspBusy and NotOwnerError.
        """
        try:
            wish = decode(Wish, "the question", question)
        except RecordError as error:
            raise ValueError(str(error)) from None
        if wish.record.host not in hosts:
            raise PermissionError(wish.record.host)
        camera = self._local.camera(wish.device, wish.record.camera)
        try:
            lent = await self._lending.give(camera, wish, holder_of(wish.record))
        except StoreError as error:
            raise RtspBusy(f"the store of the fleet: {error}", camera=camera.id) from None
        return asdict(lent)

    async def cameras(self) -> dict[str, dict[str, Any]]:
        """What the other hosts say of the cameras that they poll, by camera id.

        Callers within KNOWN_S share one answer. A host that does not answer is left out.
        """
        if self.peers is None:
            return {}
        if asyncio.get_running_loop().time() >= self._known_until:
            await self._asking.do("cameras", self._ask_cameras, "cameras of the fleet")
        return self._known

    async def leases(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What the other hosts say of the devices, by (host, device)."""
        answers = await self._ask_others("/v1/leases")
        return {
            (host, str(each.get("device"))): each
            for host, answer in answers.items()
            for each in answer
        }

    async def _ask_others(self, route: str) -> dict[str, list[dict[str, Any]]]:
        """The answers of the other hosts that are live, by host."""
        peers, others = self.peers, self._others()
        if peers is None:
            return {}
        answers = await asyncio.gather(*(peers.rows(name, route) for name in others))
        return dict(zip(others, answers, strict=True))

    async def _ask_cameras(self) -> None:
        answers = await self._ask_others("/v1/cameras")
        self._known = {str(each.get("id")): each for answer in answers.values() for each in answer}
        self._known_until = asyncio.get_running_loop().time() + KNOWN_S

    async def snapshot(self, camera: Camera) -> tuple[str, str | None] | None:
        """Let the host that polls a camera take a picture: (result, error).

        None when it cannot be asked, or when this host polls the camera.
        """
        owner = self.owner_of(camera.device)
        if self.peers is None or not owner or self.owns(camera.device):
            return None
        return await self.peers.snapshot(owner, camera.id)

    async def _follow(self, sink: EventSink) -> None:
        if self.peers is not None:
            await Following(self.peers, self._others, sink).run()

    def _others(self) -> list[str]:
        """The other hosts that are live."""
        host = self.member.host
        return [] if host is None else [name for name, _ in host.mirror.live() if name != host.name]

    async def lines(
        self, host: str, request: web.Request, headers: Mapping[str, str], wait_s: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Let another host answer a request with JSON lines. None come when it cannot be asked."""
        if self.peers is not None:
            async for line in self.peers.lines(host, request.raw_path, headers, wait_s):
                yield line

    async def relay(
        self, host: str, request: web.Request, headers: Mapping[str, str], wait_s: float
    ) -> web.StreamResponse | None:
        """Let another host answer a request. None when it cannot be asked."""
        if self.peers is None:
            return None
        return await self.peers.relay(host, request, headers, wait_s)

    def jobs(self, sink: EventSink) -> dict[str, Coroutine[Any, Any, None]]:
        """What this host does as a member, until `leave` is done or until it is cancelled.

        The events of other hosts go to `sink` while it has listeners.
        """
        return {
            "fleet": self.member.run(),
            "fleet events": self._follow(sink),
            "fleet store": Compaction(self.member, self._store).run(),
        }

    async def leave(self, limit_s: float) -> None:
        """Hand over every device, within a limit."""
        await self.member.leave(limit_s)

    async def close(self) -> None:
        """Close the connections to the store and to other hosts."""
        await self._asking.cancel()
        await self._store.close()
        if self.peers is not None:
            await self.peers.close()


def inventory_hash(cameras: Iterable[Camera]) -> str:
    """The same for the same cameras. It has no passwords in it."""
    texts = sorted(repr(camera) for camera in cameras)  # a repr shows no password
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _tls_files(table: FleetTable) -> tuple[Path, Path, Path] | None:
    if table.ca_file is None or table.cert_file is None or table.key_file is None:
        return None
    return table.ca_file, table.cert_file, table.key_file


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
