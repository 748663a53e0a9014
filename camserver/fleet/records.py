"""What the hosts of a fleet write into the store: keys and records, and their JSON. Pure.

Times in records are durations, never moments: the clocks of hosts may differ. Who reads a record
counts a duration from the moment when it saw the record, so a cool-down may get longer, but not
shorter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from camserver.fleet.terms import FleetTerms
from camserver.model import SessionEnd

FORMAT = 1
"""The format of the records. A host refuses a fleet of a newer format.

A new kind of record that all hosts must heed needs a new format.
"""

HOLD_LEAST_S, HOLD_MOST_S = 60.0, 3600.0


class RecordError(Exception):
    """Raised when a record cannot be read. The text names its key, never its content."""


class Record(BaseModel):
    """A record. Fields that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    def encode(self) -> bytes:
        """The bytes for the store."""
        return self.model_dump_json().encode()


class HostState(StrEnum):
    """What a host says of itself. `dead` is written by another host."""

    LIVE = "live"
    LEAVING = "leaving"  # it hands over its devices, and takes no others
    LEFT = "left"
    DEAD = "dead"


ENDED = frozenset((HostState.LEFT, HostState.DEAD))
"""The states in which an epoch of a host is over: it has no session any more."""


class HostRecord(Record):
    """A host. It is renewed every R by compare-and-swap, with the next sequence number."""

    machine_id: str
    boot_id: str
    epoch: int = Field(ge=1)
    """Grows with each start of the daemon and each death, so that old ownership is not valid."""
    sequence: int = Field(ge=0)
    state: HostState = Field(strict=False)
    seen: int = Field(ge=0)
    """The store's revision that the host has read. Who joined later is not known to it."""
    url: str
    """Where other hosts reach it."""
    inventory: str
    """A hash of its inventory without passwords."""
    weight: float = Field(gt=0, le=1000)
    labels: tuple[str, ...] = Field((), strict=False)
    valid_s: float = Field(gt=0, le=2 * HOLD_MOST_S)
    """How long it may have sessions after this renewal. It is longer while a hold is on."""
    token: str = ""
    """Drawn anew for each epoch, so that two hosts of one name tell their records apart."""


class OwnRecord(Record):
    """The owner of a device. A free one says how the last owner left it."""

    host: str
    epoch: int = Field(ge=1)
    held: bool
    """False: the owner has ended all its sessions, and another host may take the device."""
    cooling_s: tuple[float, ...] = Field((), strict=False)
    """How long the device still counts each closed session."""
    learned_cap: int | None = Field(None, ge=0)
    """How many sessions the device gives, if it gave less than its budget."""
    learned_s: float = 0.0
    """For how long that is believed."""
    due_s: dict[str, float] = Field(default_factory=dict)
    """When each camera is due."""


class ExternalRecord(Record):
    """A session that a program has, by a lease of the device's owner.

    The owner writes it before the program is told, and removes it when the session has ended. The
    host of the program says how it ended. When the device gets another owner, the record stays.
    """

    host: str
    """The host on which the program runs. Without the right of that host it has no session."""
    epoch: int = Field(ge=1)
    camera: str = Field(max_length=256)
    holder: str = Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    """The name of the program, for a person."""
    kind: str = Field(pattern="^(live|external)$")
    priority: str = Field(pattern="^(live|event|poll)$")
    observed: bool = False
    """It was opened without a lease, by go2rtc. It counts even above the budget."""
    withdrawn: str = ""
    """Why the program must end its session. Empty: it need not."""
    ended: SessionEnd | None = Field(None, strict=False)
    """None: the program may have a session."""


class HoldRecord(Record):
    """The store will be away as planned. Hosts may have sessions for longer after a renewal."""

    for_s: float = Field(ge=HOLD_LEAST_S, le=HOLD_MOST_S)


class MetaRecord(Record):
    """What all hosts agree on."""

    format: int = Field(ge=1)
    valid_s: float
    silence_s: float
    renew_s: float
    vouch: bool

    @classmethod
    def of(cls, terms: FleetTerms) -> MetaRecord:
        """The record of a new fleet."""
        return cls(
            format=FORMAT,
            valid_s=terms.valid_s,
            silence_s=terms.silence_s,
            renew_s=terms.renew_s,
            vouch=terms.vouch,
        )

    def refusal(self, terms: FleetTerms) -> str | None:
        """Why a host with these terms must not join. None when it may."""
        if self.format > FORMAT:
            return f"the fleet's records have format {self.format}; this camserver knows {FORMAT}"
        theirs = FleetTerms(self.valid_s, self.silence_s, self.renew_s, self.vouch)
        if theirs != terms:
            return f"the terms of the fleet are {theirs}, those of this host are {terms}"
        return None


R = TypeVar("R", bound=Record)


def decode(kind: type[R], key: str, data: bytes) -> R:
    """Read a record. Raises RecordError."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "all of it"
        raise RecordError(f"{key}: {where}: {first['msg']}") from None


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one fleet. Names may contain any characters, so they are percent-encoded."""

    fleet: str
    prefix: str = field(init=False)
    """The beginning of all keys."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", f"/camserver/{_quoted(self.fleet)}/")

    @property
    def meta(self) -> str:
        """The key of the MetaRecord."""
        return f"{self.prefix}meta"

    @property
    def hold(self) -> str:
        """The key of the HoldRecord."""
        return f"{self.prefix}hold"

    def host(self, name: str) -> str:
        """The key of a host."""
        return f"{self.prefix}host/{_quoted(name)}"

    def drain(self, name: str) -> str:
        """The key that says that a host shall own nothing."""
        return f"{self.prefix}drain/{_quoted(name)}"

    def own(self, device: str) -> str:
        """The key of a device's owner."""
        return f"{self.prefix}own/{_quoted(device)}"

    def external(self, device: str, lease: str) -> str:
        """The key of a lease that a program has."""
        return f"{self.prefix}ext/{_quoted(device)}/{_quoted(lease)}"

    def parse(self, key: str) -> tuple[str, tuple[str, ...]]:
        """The kind of a key and the names in it. Raises RecordError for keys of others."""
        if not key.startswith(self.prefix):
            raise RecordError(f"{key}: not a key of this fleet")
        kind, *names = key.removeprefix(self.prefix).split("/")
        return kind, tuple(unquote(name) for name in names)


def _quoted(name: str) -> str:
    """A name in a key. The colon of a device's port stays: names without % are read quickly."""
    return quote(name, safe=":")
