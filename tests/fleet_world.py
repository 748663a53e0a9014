"""The world of a simulated fleet: a clock, a store, a network with faults, and a judge.

Everything runs on one virtual clock, from one seed. `fleet_sim.py` has the hosts.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from camserver.fleet.records import HoldRecord, Keys
from camserver.fleet.store import Change, Entry, Swap
from camserver.fleet.terms import FleetTerms

KEYS = Keys("sim")
UNCLEAN_S = 5.0
"""How long a device counts a session whose host died."""


class SimulatedHost(Protocol):
    """What the world does to a host."""

    name: str
    cut: str

    def start(self) -> None: ...
    def die(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def leave(self) -> None: ...
    def owns(self, device: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What the fleet does. The controls change one of them, and must fail."""

    terms: FleetTerms = field(default_factory=FleetTerms)
    has_timer: bool = True
    anyone_buries: bool = False
    """Hosts also declare those dead which have not seen them join."""
    drift: float = 0.005
    has_holds: bool = False
    """Operators announce outages of the store."""


class Store:
    """Keys with revisions. A swap is atomic."""

    def __init__(self) -> None:
        self.revision = 0
        self.entries: dict[str, Entry] = {}
        self.watchers: list[Callable[[Change], None]] = []
        self.is_up = True

    def swap(self, swap: Swap) -> int | None:
        for key, revision in swap.expected.items():
            entry = self.entries.get(key)
            if (0 if entry is None else entry.revision) != revision:
                return None
        self.revision += 1
        changed: dict[str, Entry | None] = {}
        for key, value in swap.changes.items():
            if value is None:
                self.entries.pop(key, None)
                changed[key] = None
            else:
                changed[key] = self.entries[key] = Entry(value, self.revision)
        for watcher in self.watchers:
            watcher(Change(self.revision, changed))
        return self.revision


@dataclass(slots=True)
class Judge:
    """What the cameras see. A device gives one session, and counts a lost one for some time."""

    open: dict[str, str] = field(default_factory=dict)  # device -> host
    counts_until: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    sessions: int = 0
    boxes: dict[str, str] = field(default_factory=dict)
    """Devices that are the same box as another one, by another name."""

    def owners(self, device: str, hosts: list[str], now: float) -> None:
        """Note which hosts may have a session of a device at a moment."""
        if len(hosts) > 1:
            self.faults.append(f"{now:.2f} {device}: owned by {' and '.join(hosts)}")

    def begins(self, device: str, host: str, now: float) -> None:
        self.sessions += 1
        device = self.boxes.get(device, device)
        if device in self.open:
            self.faults.append(f"{now:.2f} {device}: {host} beside {self.open[device]}")
        elif now < self.counts_until.get(device, 0.0):
            self.faults.append(f"{now:.2f} {device}: {host} inside a cool-down")
        self.open[device] = host

    def ends(self, device: str, host: str, now: float, *, lost: bool) -> None:
        device = self.boxes.get(device, device)
        if self.open.get(device) == host:
            del self.open[device]
        if lost:
            self.counts_until[device] = now + UNCLEAN_S


HOLD_S = 60.0
KINDS = ("kill", "pause", "cut", "deaf", "mute", "isolated", "store", "leave")
"""cut: nothing passes between a host and the store. deaf: no answers. mute: no requests.
isolated: neither the store nor other hosts.
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the host of a number, and for how long."""

    at: float
    kind: str
    host: int
    long_s: float


class World:
    """The clock, the network and the hosts."""

    def __init__(
        self,
        seed: int,
        rules: Rules,
        host: Callable[[World, str], SimulatedHost],
        *,
        hosts: int = 3,
        devices: int = 12,
    ) -> None:
        self.random = random.Random(seed)
        self.numbers = itertools.count()
        self.rules = rules
        self.now = 0.0
        self.store = Store()
        self.judge = Judge()
        self.devices = [f"device{n}" for n in range(devices)]
        self.hosts = [host(self, f"host{n}") for n in range(hosts)]
        self._queue: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(when, self.now), next(self.numbers), what))

    def after(self, delay_s: float, what: Callable[[], None]) -> None:
        self.at(self.now + delay_s, what)

    def run(self, seconds: float, plan: Sequence[Fault] | None = None) -> None:
        """Run with the faults of a plan, or with faults from the seed."""
        for host in self.hosts:
            self.at(self.random.uniform(0, 2), host.start)
        for fault in self._random_faults(seconds) if plan is None else plan:
            self.at(fault.at, partial(self._begin, fault))
        while self._queue and self._queue[0][0] <= seconds:
            self.now, _, what = heapq.heappop(self._queue)
            what()

    def judge_owners(self) -> None:
        for device in self.devices:
            owners = [host.name for host in self.hosts if host.owns(device)]
            self.judge.owners(device, owners, self.now)

    def _hold(self, record: bytes | None) -> None:
        self.store.swap(Swap({}, {KEYS.hold: record}))

    def _random_faults(self, seconds: float) -> Iterator[Fault]:
        at = 20.0
        while at < seconds - 30:
            host = self.random.randrange(len(self.hosts))
            long_s = self.random.choice([0.5, 3.0, 6.0, 7.0, 9.0, 14.0, 25.0])
            kinds = (*KINDS, "hold", "hold", "hold") if self.rules.has_holds else KINDS
            yield Fault(at, self.random.choice(kinds), host, long_s)
            at += self.random.uniform(1.0, 15.0)

    def _begin(self, fault: Fault) -> None:
        host, long_s = self.hosts[fault.host], fault.long_s
        match fault.kind:
            case "kill":
                host.die()
                self.after(long_s, host.start)
            case "pause":
                host.pause()
                self.after(long_s, host.resume)
            case "store":
                self.store.is_up = False
                self.after(long_s, lambda: setattr(self.store, "is_up", True))
            case "leave":
                host.leave()
            case "hold":
                self._hold(HoldRecord(for_s=HOLD_S).encode())
                self.after(long_s, partial(self._hold, None))
            case _:
                host.cut = fault.kind
                self.after(long_s, lambda: setattr(host, "cut", ""))
