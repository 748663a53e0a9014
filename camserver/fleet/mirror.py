"""What this host knows of the fleet: the store's records as typed values, at one revision. Pure.

Records that cannot be read are named in `faults`, and count as what is safest: a host that is
there, a device that another host has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from camserver.fleet.holds import Holds
from camserver.fleet.records import (
    ENDED,
    HOLD_MOST_S,
    ExternalRecord,
    HoldRecord,
    HostRecord,
    Keys,
    MetaRecord,
    OwnRecord,
    RecordError,
    decode,
)
from camserver.fleet.store import Change, Entry, Snapshot
from camserver.fleet.terms import FleetTerms

Key = tuple[str, tuple[str, ...]]
"""The kind of a key, and the names in it."""


@dataclass(frozen=True, slots=True)
class Known:
    """A record and the store's revision at its last change."""

    record: HostRecord | OwnRecord | ExternalRecord | HoldRecord | MetaRecord | None
    """None: it cannot be read."""
    revision: int


@dataclass(slots=True)
class Mirror:
    """The records of one fleet."""

    keys: Keys
    terms: FleetTerms
    holds: Holds
    revision: int = 0
    meta: Known | None = None
    hold: Known | None = None
    hosts: dict[str, Known] = field(default_factory=dict)
    owners: dict[str, Known] = field(default_factory=dict)
    drained: dict[str, int] = field(default_factory=dict)
    """The hosts that shall own nothing, and the revision of that record."""
    devices_of: dict[str, set[str]] = field(default_factory=dict)
    """The devices whose newest record names a host as owner, by host."""
    externals: dict[str, dict[str, Known]] = field(default_factory=dict)
    """The leases of programs, by device and lease."""
    externals_of: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """Those of each camera, as (device, lease)."""
    faults: dict[str, str] = field(default_factory=dict)
    """What cannot be read, by key."""
    _ended_at: dict[tuple[str, int], float] = field(default_factory=dict)
    _missing_since: dict[str, float] = field(default_factory=dict)

    def replace(self, snapshot: Snapshot, now: float) -> None:
        """Take over everything that the store has."""
        self.meta = self.hold = None
        tables = (self.hosts, self.owners, self.externals, self.externals_of)
        for table in (*tables, self.faults, self.devices_of):
            table.clear()
        self.drained.clear()
        self._apply(snapshot.entries, snapshot.revision, now)

    def apply(self, change: Change, now: float) -> list[Key]:
        """Take over a change. Changes that are known already have no effect.

        Returns what has changed.
        """
        if change.revision <= self.revision:
            return []
        return self._apply(change.entries, change.revision, now)

    def host(self, name: str) -> HostRecord | None:
        """A host's record. None when it is not there or cannot be read."""
        known = self.hosts.get(name)
        record = None if known is None else known.record
        return record if isinstance(record, HostRecord) else None

    def owner(self, device: str) -> OwnRecord | None:
        """The owner of a device. None when nobody ever had it, or it cannot be read."""
        known = self.owners.get(device)
        record = None if known is None else known.record
        return record if isinstance(record, OwnRecord) else None

    def external(self, device: str, lease: str) -> ExternalRecord | None:
        """The lease of a program. None when it is not there or cannot be read."""
        known = self.externals.get(device, {}).get(lease)
        record = None if known is None else known.record
        return record if isinstance(record, ExternalRecord) else None

    @property
    def hold_s(self) -> float | None:
        """How long hosts may have sessions after a renewal while a hold is on. None: no hold."""
        record = None if self.hold is None else self.hold.record
        return record.for_s if isinstance(record, HoldRecord) else None

    @property
    def silence_s(self) -> float:
        """How long every host must be silent before it is certain that it has no session."""
        times = [record.valid_s for _, record in self.live()]
        if self.hold is not None:
            times.append(self.hold_s or HOLD_MOST_S)
        return self.terms.silence_for(max(times, default=self.terms.valid_s))

    def live(self) -> Iterable[tuple[str, HostRecord]]:
        """The hosts that are there, also those that are leaving."""
        for name in self.hosts:
            record = self.host(name)
            if record is not None and record.state not in ENDED:
                yield name, record

    def epoch_is_over(self, host: str, epoch: int, now: float) -> bool:
        """Whether a host has no session of this epoch any more.

        A host without a record may be alive: somebody may have removed the record. It notices at
        its next renewal. So it is over when it has been missing for W.
        """
        if host not in self.hosts:
            missing_since = self._missing_since.setdefault(host, now)
            return now - missing_since > self.silence_s and now > self.holds.over_at(host)
        record = self.host(host)
        if record is None:  # it cannot be read: it may be there
            return False
        return record.epoch > epoch or (record.epoch == epoch and record.state in ENDED)

    def over_since(self, host: str, epoch: int, now: float) -> float:
        """When this host has seen that an epoch was over. `now` when it sees it only now."""
        return self._ended_at.setdefault((host, epoch), now)

    def epochs_of_programs(self, host: str) -> Iterator[int]:
        """The epochs of a host in which programs on it got leases."""
        for device, leases in self.externals.items():
            for lease in leases:
                record = self.external(device, lease)
                if record is not None and record.host == host:
                    yield record.epoch

    def _apply(self, entries: Mapping[str, Entry | None], revision: int, now: float) -> list[Key]:
        changed = []
        for key, entry in entries.items():
            self.faults.pop(key, None)
            try:
                parsed = self.keys.parse(key)
                changed.append(parsed)
                self._put(key, parsed, entry, now)
            except RecordError as error:
                self.faults[key] = str(error)
        self.revision = revision
        return changed

    def _put(self, key: str, parsed: Key, entry: Entry | None, now: float) -> None:
        """Take over one record. Raises RecordError, after it has noted that there is one."""
        match parsed:
            case "meta", ():
                self.meta = None if entry is None else Known(None, entry.revision)
                if entry is not None:
                    self.meta = Known(decode(MetaRecord, key, entry.value), entry.revision)
            case "hold", ():
                self.hold = None if entry is None else Known(None, entry.revision)
                if entry is not None:
                    self.hold = Known(decode(HoldRecord, key, entry.value), entry.revision)
            case "drain", (name,):
                self.drained.pop(name, None)
                if entry is not None:
                    self.drained[name] = entry.revision
            case "host", (name,):
                self._put_host(name, key, entry, now)
            case "own", (device,):
                self._put_owner(device, key, entry)
            case "ext", (device, lease):
                self._put_external(device, lease, key, entry)
            case _ if entry is not None:
                raise RecordError(f"{key}: not a key that this camserver knows")

    def _put_host(self, name: str, key: str, entry: Entry | None, now: float) -> None:
        _put(self.hosts, name, key, entry, HostRecord)
        if entry is None:
            self._missing_since[name] = now
        else:
            self._missing_since.pop(name, None)
        record = self.host(name)
        if record is not None:
            self.holds.saw(name, record, now)
            self._note_end(name, record, now)

    def _put_external(self, device: str, lease: str, key: str, entry: Entry | None) -> None:
        before = self.external(device, lease)
        if before is not None:
            self.externals_of.get(before.camera, set()).discard((device, lease))
        of_device = self.externals.setdefault(device, {})
        if entry is None:
            of_device.pop(lease, None)
            if not of_device:
                del self.externals[device]
            return
        _put(of_device, lease, key, entry, ExternalRecord)
        after = self.external(device, lease)
        if after is not None:
            self.externals_of.setdefault(after.camera, set()).add((device, lease))

    def _put_owner(self, device: str, key: str, entry: Entry | None) -> None:
        before = self.owner(device)
        if before is not None:
            self.devices_of.get(before.host, set()).discard(device)
        _put(self.owners, device, key, entry, OwnRecord)
        after = self.owner(device)
        if after is not None:
            self.devices_of.setdefault(after.host, set()).add(device)

    def _note_end(self, name: str, record: HostRecord, now: float) -> None:
        self._ended_at.setdefault((name, record.epoch - 1), now)
        if record.state in ENDED:
            self._ended_at.setdefault((name, record.epoch), now)


def _put(
    table: dict[str, Known],
    name: str,
    key: str,
    entry: Entry | None,
    kind: type[HostRecord | OwnRecord | ExternalRecord],
) -> None:
    if entry is None:
        table.pop(name, None)
        return
    table[name] = Known(None, entry.revision)
    table[name] = Known(decode(kind, key, entry.value), entry.revision)
