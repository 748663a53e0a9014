"""Events of a fleet: this host's place in it, its store, and the other hosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from camserver.events.base import Event, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetJoined(Event):
    """The host has joined the fleet. It takes over devices now."""

    EVENT: ClassVar[str] = "fleet.joined"
    TEXT: ClassVar[str] = "{host} has joined fleet {fleet} of {members} hosts (epoch {epoch})"
    fleet: str
    host: str
    epoch: int
    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetWaiting(Event):
    """The host cannot join yet. It polls nothing meanwhile, and tries again."""

    EVENT: ClassVar[str] = "fleet.waiting"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{host} cannot join fleet {fleet} yet: {reason}"
    fleet: str
    host: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLeft(Event):
    """The host has handed over all its devices."""

    EVENT: ClassVar[str] = "fleet.left"
    TEXT: ClassVar[str] = "{host} has left fleet {fleet}; it has handed over all devices"
    fleet: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLeaveIncomplete(Event):
    """The host stops, and could not hand over all its devices in time.

    The others take them over when they have declared it dead.
    """

    EVENT: ClassVar[str] = "fleet.incomplete"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = (
        "{devices} devices were not handed over within {limit_s:g} s: the other hosts take them"
        " over later ({reason})"
    )
    devices: int
    limit_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFenced(Event):
    """The host has lost its place in the fleet. All its sessions end, then it joins again."""

    EVENT: ClassVar[str] = "fleet.fenced"
    LEVEL: ClassVar[Level] = "error"
    TEXT: ClassVar[str] = "{host} has lost its place in fleet {fleet}: {reason}; it joins again"
    fleet: str
    host: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetNotValid(Event):
    """The host could not renew for too long. It has ended every session."""

    EVENT: ClassVar[str] = "fleet.invalid"
    LEVEL: ClassVar[Level] = "error"
    TEXT: ClassVar[str] = (
        "no renewal got through for {for_s:.1f} s (limit {limit_s:g} s), so every session is ended:"
        " {reason}"
    )
    for_s: float
    limit_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetValid(Event):
    """The host may have sessions again."""

    EVENT: ClassVar[str] = "fleet.valid"
    TEXT: ClassVar[str] = "renewals get through again; polling goes on"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStoreAway(Event):
    """The store of the fleet does not answer."""

    EVENT: ClassVar[str] = "fleet.away"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "the store of the fleet cannot be used: {reason}"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStoreBack(Event):
    """The store of the fleet answers again."""

    EVENT: ClassVar[str] = "fleet.back"
    TEXT: ClassVar[str] = "the store of the fleet answers again, after {away_s:.1f} s"
    away_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHostChanged(Event):
    """Another host has joined, leaves, has left, or is dead."""

    EVENT: ClassVar[str] = "fleet.host"
    TEXT: ClassVar[str] = "host {host} is {state} (epoch {epoch})"
    host: str
    state: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHostBuried(Event):
    """The host declares another one dead, because it was silent for too long."""

    EVENT: ClassVar[str] = "fleet.dead"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = (
        "host {host} was silent for {silent_s:.1f} s (limit {limit_s:g} s): it is declared dead,"
        " and its devices are taken over"
    )
    host: str
    silent_s: float
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDevicesTaken(Event):
    """The host has become the owner of devices. `lost`: their last owner has died."""

    EVENT: ClassVar[str] = "fleet.taken"
    TEXT: ClassVar[str] = "took over {devices} devices, {lost} of them from hosts that are dead"
    devices: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDevicesFreed(Event):
    """The host has handed over devices to others."""

    EVENT: ClassVar[str] = "fleet.freed"
    TEXT: ClassVar[str] = "handed over {devices} devices"
    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetInventoriesDiffer(Event):
    """Hosts have different inventories, so a camera may be polled by nobody."""

    EVENT: ClassVar[str] = "fleet.differ"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "these hosts have another inventory than this one: {hosts}"
    hosts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRecordUnreadable(Event):
    """A record in the store cannot be read. It counts as what is safest."""

    EVENT: ClassVar[str] = "fleet.unreadable"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "a record of the fleet cannot be read: {fault}"
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetNotServed(Event):
    """The address for other hosts cannot be used, so they cannot show this host's pictures."""

    EVENT: ClassVar[str] = "fleet.unserved"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "[fleet] listen cannot be used: {reason}"
    reason: str
