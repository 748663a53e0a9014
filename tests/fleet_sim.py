"""A simulated fleet: hosts by the real protocol, a store, a network with faults, and a judge.

Everything runs on one virtual clock, from one seed. Hosts are paused, killed and cut off; writes
are delayed, lost, or land late; clocks drift. The judge sees what the cameras see: when a session
of a device begins and ends.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from camserver.fleet.assignment import ANYWHERE, Candidate, assign
from camserver.fleet.host import FleetHost, Order, Phase, Remains, next_epoch
from camserver.fleet.mirror import Mirror
from camserver.fleet.records import HostRecord, HostState, Keys
from camserver.fleet.store import Change, Entry, Snapshot, Swap
from camserver.fleet.terms import FleetTerms

KEYS = Keys("sim")
TICK_S = 0.1
INTERVAL_S, SESSION_S = 1.0, 0.4
UNCLEAN_S = 5.0
"""How long a device counts a session whose host died."""
REQUEST_S = 1.5
"""After this a host stops waiting for the store."""
WATCH_S = 2.5
"""After this without a heartbeat a host reads the store again."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the fleet does. The controls change one of them, and must fail."""

    terms: FleetTerms = field(default_factory=FleetTerms)
    has_timer: bool = True
    anyone_buries: bool = False
    drift: float = 0.005


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

    def begins(self, device: str, host: str, now: float) -> None:
        self.sessions += 1
        if device in self.open:
            self.faults.append(f"{now:.2f} {device}: {host} beside {self.open[device]}")
        elif now < self.counts_until.get(device, 0.0):
            self.faults.append(f"{now:.2f} {device}: {host} inside a cool-down")
        self.open[device] = host

    def ends(self, device: str, host: str, now: float, *, lost: bool) -> None:
        if self.open.get(device) == host:
            del self.open[device]
        if lost:
            self.counts_until[device] = now + UNCLEAN_S


class World:
    """The clock, the network and the hosts."""

    def __init__(self, seed: int, rules: Rules, hosts: int = 3, devices: int = 12) -> None:
        self.random = random.Random(seed)
        self.rules = rules
        self.now = 0.0
        self.store = Store()
        self.judge = Judge()
        self.devices = [f"device{n}" for n in range(devices)]
        self.hosts = [Host(self, f"host{n}") for n in range(hosts)]
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(when, self.now), next(self._numbers), what))

    def after(self, delay_s: float, what: Callable[[], None]) -> None:
        self.at(self.now + delay_s, what)

    def run(self, seconds: float) -> None:
        for host in self.hosts:
            self.at(self.random.uniform(0, 2), host.start)
        self._plan_faults(seconds)
        while self._queue and self._queue[0][0] <= seconds:
            self.now, _, what = heapq.heappop(self._queue)
            what()

    def _plan_faults(self, seconds: float) -> None:
        at = 20.0
        while at < seconds - 60:
            host = self.random.choice(self.hosts)
            long_s = self.random.choice([0.5, 3.0, 6.0, 7.0, 9.0, 14.0, 25.0])
            kind = self.random.choice(["kill", "pause", "cut", "deaf", "mute", "store", "leave"])
            self.at(at, lambda kind=kind, host=host, s=long_s: self._fault(kind, host, s))
            at += self.random.uniform(2.0, 30.0)

    def _fault(self, kind: str, host: Host, long_s: float) -> None:
        match kind:
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
            case _:
                host.cut = kind
                self.after(long_s, lambda: setattr(host, "cut", ""))


class Host:
    """One machine: its process may die and start again, its clock drifts."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.cut = ""  # "cut": nothing gets through; "deaf": no answers; "mute": no requests
        self._clock = (
            world.random.uniform(0, 1000),
            1 + world.random.uniform(-1, 1) * world.rules.drift,
        )
        self._life = 0  # the number of this process
        self._paused = False
        self._host: FleetHost | None = None
        self._heard_at = 0.0
        self._is_reading = False
        self._open: dict[str, int] = {}
        self._next_poll: dict[str, float] = {}
        self._may_from: dict[str, float] = {}
        self._waiting: list[Callable[[], None]] = []  # what comes while the process is paused
        world.store.watchers.append(self._changed)

    @property
    def clock(self) -> float:
        offset, rate = self._clock
        return offset + self.world.now * rate

    def _later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Call `what` in this process, if it still lives then; later when it is paused."""
        life = self._life

        def call() -> None:
            if life != self._life:
                return
            if self._paused:
                self._waiting.append(call)
            else:
                what()

        self.world.after(delay_s, call)

    # ---- life and death

    def start(self) -> None:
        if self._host is not None:
            return
        self._life += 1
        self._paused = False
        self._waiting.clear()
        self._begin_epoch()
        self._tick()

    def _begin_epoch(self) -> None:
        terms = self.world.rules.terms
        me = HostRecord(
            machine_id=self.name,
            boot_id="b",
            epoch=1,
            sequence=0,
            state=HostState.LIVE,
            seen=0,
            url="",
            inventory="",
            weight=1.0,
        )
        mirror = Mirror(KEYS, terms)
        mirror.replace(Snapshot(self.world.store.revision, dict(self.world.store.entries)), 0.0)
        self._host = FleetHost(self.name, next_epoch(mirror, self.name, me), mirror, terms)
        self._may_from.clear()
        self._heard_at = self.clock - 100  # read before anything else

    def die(self) -> None:
        """As kill -9, or the kernel's timer."""
        self._life += 1
        self._host = None
        for device in list(self._open):
            self._end(device, lost=True)

    def pause(self) -> None:
        """As SIGSTOP. Only the kernel's timer can end the process."""
        if self._host is None or self._paused:
            return
        self._paused = True
        life = self._life

        def expired() -> None:
            if life == self._life and self._paused and self._host is not None:
                self.die()
                self.world.after(2.0, self.start)

        if self.world.rules.has_timer:
            left_s = (self._host.validity.until - self.clock) / self._clock[1]
            self.world.after(max(0.0, left_s), expired)

    def resume(self) -> None:
        self._paused = False
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            self.world.after(0.0, call)

    def leave(self) -> None:
        if self._host is not None and not self._paused:
            self._host.leave()

    # ---- the network

    def _delay(self) -> float:
        return self.world.random.choice([0.002, 0.01, 0.05, 0.3])

    def _passes(self, direction: str) -> bool:
        return self.cut not in ("cut", direction) and self.world.store.is_up

    def _send(self, order: Order) -> None:
        world, host = self.world, self._host
        answered = [False]

        def answer(revision: int | None) -> None:
            if answered[0] or host is not self._host or host is None:
                return
            answered[0] = True
            if revision is None:
                host.refused(order)
            else:
                host.committed(order, revision)

        def give_up() -> None:
            if not answered[0] and host is self._host and host is not None:
                answered[0] = True
                host.unknown(order)

        def arrive() -> None:
            revision = world.store.swap(order.swap)
            if self._passes("deaf"):
                self._later(self._delay(), lambda: answer(revision))

        # A cut may also delay a write: it lands when nobody expects it any more
        if self._passes("mute"):
            world.after(self._delay(), arrive)
        elif world.random.random() < 0.3:
            world.after(world.random.uniform(1.0, 12.0), arrive)
        self._later(REQUEST_S, give_up)

    def _changed(self, change: Change) -> None:
        if self._passes("deaf"):
            self._later(self._delay(), lambda: self._see(change))

    def _see(self, change: Change) -> None:
        if self._host is None or self._is_reading:
            return
        if change.revision != self._host.mirror.revision + 1:
            if change.revision > self._host.mirror.revision:
                self._heard_at = self.clock - 100  # a change is missing: read again
            return
        self._heard_at = self.clock
        self._host.apply(change, self.clock)

    def _read(self) -> None:
        if self._is_reading or not (self._passes("mute") and self._passes("deaf")):
            return
        self._is_reading = True
        store = self.world.store
        life = self._life

        def arrive() -> None:
            snapshot = Snapshot(store.revision, dict(store.entries))

            def take() -> None:
                self._is_reading = False
                if self._host is not None and snapshot.revision >= self._host.mirror.revision:
                    self._host.replace(snapshot, self.clock)
                    self._heard_at = self.clock

            self._later(self._delay(), take)

        def give_up() -> None:
            if life == self._life:
                self._is_reading = False

        self.world.after(self._delay(), arrive)
        self.world.after(REQUEST_S, give_up)

    # ---- what the daemon does

    def _tick(self) -> None:
        host = self._host
        if host is None:
            return
        self._later(TICK_S * self.world.random.uniform(0.8, 1.2), self._tick)
        if self.clock - self._heard_at > WATCH_S:
            self._read()
        elif self._passes("deaf") and self.world.store.revision == host.mirror.revision:
            self._heard_at = self.clock  # a heartbeat of the watch
        if host.phase in (Phase.FENCED, Phase.LEFT):
            for device in list(self._open):
                self._end(device, lost=False)
            self._begin_epoch()
            return
        host.want(
            assign(
                dict.fromkeys(self.world.devices, ANYWHERE),
                [Candidate(n) for n, r in host.mirror.live() if r.state is HostState.LIVE],
            )
        )
        if self.world.rules.anyone_buries:
            host.validity.renewed_at = self.clock
        for order in list(host.orders(self.clock)):
            self._send(order)
        while host.acquired:
            take = host.acquired.popleft()
            until = take.seen_at + UNCLEAN_S if take.lost else self.clock
            self._may_from[take.device] = until
        self._poll(host)

    def _poll(self, host: FleetHost) -> None:
        for device in list(self._open):
            if not host.may_open(device, self.clock):
                self._end(device, lost=False)
        for device in host.handing_over:
            host.ended(device, Remains())
        for device in host.owned:
            is_due = self.clock >= self._next_poll.get(device, 0.0)
            is_cool = self.clock >= self._may_from.get(device, 0.0)
            if (
                is_due
                and is_cool
                and device not in self._open
                and host.may_open(device, self.clock)
            ):
                self._begin(device)

    def _begin(self, device: str) -> None:
        self._next_poll[device] = self.clock + INTERVAL_S
        number = self._open[device] = next(self.world._numbers)
        self.world.judge.begins(device, self.name, self.world.now)

        def over() -> None:
            if self._open.get(device) == number:
                self._end(device, lost=False)

        self._later(SESSION_S, over)

    def _end(self, device: str, *, lost: bool) -> None:
        del self._open[device]
        self.world.judge.ends(device, self.name, self.world.now, lost=lost)


def simulate(seed: int, rules: Rules, seconds: float = 300.0, **options: Any) -> World:
    world = World(seed, rules, **options)
    world.run(seconds)
    return world
