"""The owner's side of a program's lease: it gives the lease, and counts the session until its end.

The program may run on another host. Its lease is a record in the store, so the next owner of the
device knows it, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import Field

from camserver.config import Camera
from camserver.errors import LeaseStateError, NotOwnerError, RtspBusy
from camserver.fleet.external import Externals, LeaseName
from camserver.fleet.records import ExternalRecord, Record
from camserver.fleet.store import FleetStore
from camserver.leases import Holder, Priority, RtspLease, RtspManager
from camserver.model import SessionEnd

NOT_OURS = "no host owns its device at the moment"
UNREADABLE = "a program whose record cannot be read"
REMOVED = "somebody has removed its record"


class Wish(Record):
    """What the host of a program asks the owner of a device. `record` is the wanted lease."""

    device: str
    number: str = Field(min_length=8, max_length=64)
    wait_s: float = Field(ge=0, le=3600)
    record: ExternalRecord

    @property
    def name(self) -> LeaseName:
        """The name of the lease."""
        return LeaseName(self.device, self.number)


@dataclass(frozen=True, slots=True)
class Lent:
    """A lease that was given. `revision` is the store's, since when the record is there."""

    generation: int
    revision: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A session of a program that counts on a device of ours."""

    device: str
    lease: RtspLease
    since: int
    """The store's revision since when its record is there."""
    watching: asyncio.Task[None]


class Lending:
    """The leases of programs on the devices of this host."""

    def __init__(
        self,
        manager: RtspManager,
        store: FleetStore,
        clock: Callable[[], float],
    ) -> None:
        """`clock` is the fleet's, which counts in suspend, too."""
        self._cameras: Mapping[str, list[Camera]] = {}
        self._manager = manager
        self._store = store
        self._clock = clock
        self._externals: Externals | None = None
        self._devices: set[str] = set()
        self._counted: dict[LeaseName, Counted] = {}
        self._giving: set[LeaseName] = set()  # their record is being written

    def configure(self, cameras: Mapping[str, list[Camera]]) -> None:
        """Take over the cameras of an inventory, by device."""
        self._cameras = cameras

    def begin(self, externals: Externals) -> None:
        """Begin an epoch. No device is ours."""
        self.forget_all()
        self._externals = externals

    async def give(self, camera: Camera, wish: Wish, holder: Holder) -> Lent:
        """Wait for a session of the camera's device, and give the lease of it.

        Raises RtspBusy, NotOwnerError and StoreError. Then there is no lease: if its record lands
        later, the host of the program ends it.
        """
        name, externals = wish.name, self._externals
        if externals is None or name.device not in self._devices:
            raise NotOwnerError(NOT_OURS)
        if name in self._giving or name in self._counted or not externals.knows(wish.record):
            raise NotOwnerError(f"host {wish.record.host} is not known here as it is now")
        lease = await self._acquire(camera, wish, holder)
        self._giving.add(name)
        revision = None
        try:
            swap = externals.grant(name, wish.record) if lease.device == name.device else None
            revision = None if swap is None else await self._store.swap(swap)
        finally:
            self._giving.discard(name)
            # When the device is being handed over, the next owner finds the record
            if revision is not None and name.device in self._devices:
                self._keep(externals, name, wish.record, name.device, lease, revision)
            else:
                _end(lease, SessionEnd.NONE)
            externals.changed((name,))
        if revision is None:
            raise NotOwnerError(NOT_OURS)
        return Lent(lease.generation, revision)

    async def _acquire(self, camera: Camera, wish: Wish, holder: Holder) -> RtspLease:
        """Raises RtspBusy, and NotOwnerError when the device was handed over meanwhile."""
        try:
            if wish.record.observed:
                return self._manager.observe(camera.id, wish.device, holder)
            return await self._manager.acquire(
                camera.id,
                wish.device,
                holder,
                priority=Priority[wish.record.priority.upper()],
                lease_wait_s=wish.wait_s,
            )
        except LeaseStateError:
            raise NotOwnerError(NOT_OURS) from None
        except RtspBusy:
            if wish.device in self._devices:
                raise
            raise NotOwnerError(NOT_OURS) from None

    # ---- devices

    def take_over(self, device: str) -> None:
        """Count the sessions that programs have of a device, before anybody gets a lease of it.

        A reload may have given a camera another device. Its session counts on that one, too.
        """
        self._devices.add(device)
        externals = self._externals
        if externals is None:
            return
        cameras = [camera.id for camera in self._cameras.get(device, ())]
        for name in (*externals.of_device(device), *externals.of_cameras(cameras)):
            self._look_at(externals, name, device)

    def hand_over(self, device: str) -> None:
        """Leave the sessions of programs to the next owner of a device: it finds their records."""
        self._devices.discard(device)
        for name in [name for name, each in self._counted.items() if each.device == device]:
            _end(self._drop(name), SessionEnd.NONE)

    def forget_all(self) -> None:
        """Own nothing any more. The records may be lost, too: what counts here cools down."""
        for name, each in list(self._counted.items()):
            if self._externals is not None:
                self._cool(each.device, self._externals.ends_within_s(self._clock()))
            _end(self._drop(name), SessionEnd.NONE)
        self._devices.clear()

    # ---- records

    def look(self, names: Iterable[LeaseName]) -> None:
        """Find out what has become of leases whose records have changed."""
        externals = self._externals
        if externals is None:
            return
        for name in names:
            counted = self._counted.get(name)
            device = name.device if counted is None else counted.device
            if device in self._devices and name not in self._giving:
                self._look_at(externals, name, device)

    def _look_at(self, externals: Externals, name: LeaseName, device: str) -> None:
        counted = self._counted.get(name)
        if counted is not None and not externals.has_seen(counted.since):
            return  # it is looked at again when the mirror shows the record
        if not externals.exists(name):
            if counted is not None:  # the session may be there: its host is told, and says the end
                externals.withdraw(name, REMOVED)
            return
        record = externals.record(name)
        if counted is None:
            self._count(externals, name, record, device)
        if not externals.is_over(name, self._clock()) or name not in self._counted:
            return
        if record is None or record.ended is None:  # the host of the program is dead
            self._cool(device)
        end = None if record is None else record.ended
        _end(self._drop(name), end or SessionEnd.NONE)
        externals.counted(name)

    def _count(
        self,
        externals: Externals,
        name: LeaseName,
        record: ExternalRecord | None,
        device: str,
    ) -> None:
        """Count a session for which an earlier owner gave the lease."""
        if record is None:
            holder, camera, priority = Holder("external", UNREADABLE), "", Priority.EVENT
        else:
            holder, camera = holder_of(record), record.camera
            priority = Priority[record.priority.upper()]
        try:
            lease = self._manager.hold(camera, device, holder, priority)
        except LeaseStateError:  # it has left the inventory, and is handed over soon
            return
        self._keep(externals, name, record, device, lease, 0)

    def _keep(
        self,
        externals: Externals,
        name: LeaseName,
        record: ExternalRecord | None,
        device: str,
        lease: RtspLease,
        since: int,
    ) -> None:
        externals.lent[name] = record
        watching = asyncio.create_task(_watch(externals, name, lease), name=f"program, {device}")
        self._counted[name] = Counted(device, lease, since, watching)

    def _drop(self, name: LeaseName) -> RtspLease:
        counted = self._counted.pop(name)
        counted.watching.cancel()
        if self._externals is not None:
            self._externals.lent.pop(name, None)
        return counted.lease

    def _cool(self, device: str, lasts_s: float = 0.0) -> None:
        """Count a session that ends with its host within `lasts_s`, or has ended with it."""
        cameras = self._cameras.get(device, ())
        if cameras:
            with suppress(LeaseStateError):  # it has left the inventory
                self._manager.cool(device, _now() + lasts_s + lost_cooldown_s(cameras[0]))


def holder_of(record: ExternalRecord) -> Holder:
    """The holder of a program's lease, as its device's owner shows it."""
    return Holder(record.kind, f"{record.holder} on host {record.host}")


def lost_cooldown_s(camera: Camera) -> float:
    """How long a device counts a session whose host has died."""
    lost_s = camera.lost_cooldown_s
    return camera.unclean_cooldown_s if lost_s is None else lost_s


async def _watch(externals: Externals, name: LeaseName, lease: RtspLease) -> None:
    """Let the program be told when its session must end."""
    externals.withdraw(name, await lease.preempted())


def _end(lease: RtspLease, end: SessionEnd) -> None:
    lease.ended(end)
    lease.release()


def _now() -> float:
    return asyncio.get_running_loop().time()
