"""The owner's side of a program's lease: it gives the lease, and counts the session until its end.

The program may run on another host. Its lease is a record in the store, so the next owner of the
device knows it, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import Field

from camserver.config import Camera
from camserver.errors import LeaseStateError, NotOwnerError
from camserver.fleet.external import Externals, LeaseName
from camserver.fleet.records import ExternalRecord, Record
from camserver.fleet.store import FleetStore
from camserver.leases import Holder, Priority, RtspLease, RtspManager
from camserver.model import SessionEnd

NOT_OURS = "no host owns its device at the moment"
UNREADABLE = "a program whose record cannot be read"


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


class Lending:
    """The leases of programs on the devices of this host."""

    def __init__(
        self,
        manager: RtspManager,
        store: FleetStore,
        clock: Callable[[], float],
    ) -> None:
        """`clock` is the fleet's, which counts in suspend, too."""
        self.lost_cooldown_s: Mapping[str, float] = {}
        """How long each device counts a session whose host has died."""
        self._manager = manager
        self._store = store
        self._clock = clock
        self._externals: Externals | None = None
        self._devices: set[str] = set()
        self._lent: dict[LeaseName, RtspLease] = {}
        self._giving: set[LeaseName] = set()  # their record is being written
        self._watching: dict[LeaseName, asyncio.Task[None]] = {}

    def begin(self, externals: Externals) -> None:
        """Begin an epoch. No device is ours."""
        self._externals = externals

    async def give(self, camera: Camera, wish: Wish, holder: Holder) -> Lent:
        """Wait for a session of the camera's device, and give the lease of it.

        Raises RtspBusy, NotOwnerError and StoreError. Then there is no lease: if its record lands
        later, the host of the program ends it.
        """
        name, externals = wish.name, self._externals
        if externals is None or name.device not in self._devices:
            raise NotOwnerError(NOT_OURS)
        priority = Priority[wish.record.priority.upper()]
        try:
            lease = await self._manager.acquire(
                camera.id, name.device, holder, priority=priority, lease_wait_s=wish.wait_s
            )
        except LeaseStateError:
            raise NotOwnerError(NOT_OURS) from None
        self._giving.add(name)
        revision = None
        try:
            swap = externals.grant(name, wish.record)
            revision = None if swap is None else await self._store.swap(swap)
        finally:
            self._giving.discard(name)
            externals.changed((name,))
            # When the device is being handed over, the next owner finds the record
            if revision is not None and name.device in self._devices:
                self._keep(externals, name, lease)
            else:
                _end(lease, SessionEnd.NONE)
        if revision is None:
            raise NotOwnerError(NOT_OURS)
        return Lent(lease.generation, revision)

    # ---- devices

    def take_over(self, device: str) -> None:
        """Count the sessions that programs have of a device, before anybody gets a lease of it."""
        self._devices.add(device)
        if self._externals is not None:
            self.look(self._externals.of_device(device))

    def hand_over(self, device: str) -> None:
        """Leave the sessions of programs to the next owner of a device."""
        self._devices.discard(device)
        for name in [name for name in self._lent if name.device == device]:
            _end(self._drop(name), SessionEnd.NONE)

    # ---- records

    def look(self, names: Iterable[LeaseName]) -> None:
        """Find out what has become of leases whose records have changed."""
        if self._externals is None:
            return
        for name in names:
            if name.device in self._devices and name not in self._giving:
                self._look_at(self._externals, name)

    def _look_at(self, externals: Externals, name: LeaseName) -> None:
        is_over = externals.is_over(name, self._clock())
        if name not in self._lent and externals.exists(name):
            self._count(externals, name)
        if not is_over:
            return
        if name in self._lent:
            record = externals.record(name)
            end = None if record is None else record.ended
            if end is None:  # the host of the program is dead
                lost_s = self.lost_cooldown_s.get(name.device, 0.0)
                self._manager.cool(name.device, _now() + lost_s)
            _end(self._drop(name), end or SessionEnd.UNCLEAN)
        externals.counted(name)

    def _count(self, externals: Externals, name: LeaseName) -> None:
        """Count a session for which an earlier owner gave the lease."""
        record = externals.record(name)
        if record is None:
            holder, camera, priority = Holder("external", UNREADABLE), "", Priority.EVENT
        else:
            holder, camera = holder_of(record), record.camera
            priority = Priority[record.priority.upper()]
        self._keep(externals, name, self._manager.hold(camera, name.device, holder, priority))

    def _keep(self, externals: Externals, name: LeaseName, lease: RtspLease) -> None:
        self._lent[name] = lease
        self._watching[name] = asyncio.create_task(
            self._watch(externals, name, lease), name=f"lease of a program, {name.device}"
        )

    async def _watch(self, externals: Externals, name: LeaseName, lease: RtspLease) -> None:
        externals.withdraw(name, await lease.preempted())

    def _drop(self, name: LeaseName) -> RtspLease:
        self._watching.pop(name).cancel()
        return self._lent.pop(name)


def holder_of(record: ExternalRecord) -> Holder:
    """The holder of a program's lease, as its device's owner shows it."""
    return Holder(record.kind, f"{record.holder} on host {record.host}")


def _end(lease: RtspLease, end: SessionEnd) -> None:
    lease.ended(end)
    lease.release()


def _now() -> float:
    return asyncio.get_running_loop().time()
