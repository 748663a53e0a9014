"""A simulated fleet: hosts by the real protocol in a world with faults.

Hosts are paused, killed and cut off; writes are delayed, lost, or land late; clocks drift. The
judge sees what the cameras see: when a session of a device begins and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fleet_records import host_record
from fleet_world import KEYS, UNCLEAN_S, Fault, Rules, World

from camserver.fleet.assignment import ANYWHERE, Candidate, assign
from camserver.fleet.holds import Holds
from camserver.fleet.host import FleetHost, next_epoch
from camserver.fleet.mirror import Mirror
from camserver.fleet.orders import Order, Phase, Remains
from camserver.fleet.records import HostState
from camserver.fleet.store import Change, Snapshot
from camserver.fleet.vouching import Asking

TICK_S = 0.1
INTERVAL_S, SESSION_S = 1.0, 0.4
REQUEST_S = 1.5
"""After this a host stops waiting for the store."""
WATCH_S = 2.5
"""After this without a heartbeat a host reads the store again."""
ASK_S = 0.8
"""After this a host stops waiting for the answers of other hosts."""


class Host:
    """One machine: its process may die and start again, its clock drifts."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.cut = ""  # "cut": nothing gets through; "deaf": no answers; "mute": no requests
        self._clock = (
            world.random.uniform(0, 1000),
            1 + world.random.choice((-1, 1)) * world.rules.drift,
        )
        self._life = 0  # the number of this process
        self._paused = False
        self._host: FleetHost | None = None
        self._heard_at = 0.0
        self._is_reading = self._is_behind = False
        self._open: dict[str, int] = {}
        self._next_poll: dict[str, float] = {}
        self._may_from: dict[str, float] = {}
        self._holds = Holds(world.rules.terms)
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
        self._holds = Holds(self.world.rules.terms)
        self._begin_epoch()
        self._tick()

    def _begin_epoch(self) -> None:
        terms = self.world.rules.terms
        mirror = Mirror(KEYS, terms, self._holds)
        mirror.replace(
            Snapshot(self.world.store.revision, dict(self.world.store.entries)), self.clock
        )
        me = next_epoch(mirror, self.name, host_record(machine_id=self.name))
        self._host = FleetHost(self.name, me, mirror, terms)
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
        return self.cut not in ("cut", "isolated", direction) and self.world.store.is_up

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
                self._is_behind = True  # a change is missing: read again
            return
        self._heard_at = self.clock
        self._host.apply(change, self.clock)

    def _read(self, *, was_away: bool) -> None:
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
                    self._is_behind = False
                    self._host.replace(snapshot, self.clock, was_away=was_away)
                    self._heard_at = self.clock

            self._later(self._delay(), take)

        def give_up() -> None:
            if life == self._life:
                self._is_reading = False

        self.world.after(self._delay(), arrive)
        self.world.after(REQUEST_S, give_up)

    def _ask(self, host: FleetHost, asking: Asking) -> None:
        """Ask the other hosts to vouch for this one."""
        agreed: list[str] = []

        def ask(other: Host) -> None:
            if other.promises(self.name, host.epoch, asking.hosts[other.name]):
                self._later(self._delay(), partial(agreed.append, other.name))

        for other in self.world.hosts:
            assert isinstance(other, Host)
            if other.name in asking.hosts and "isolated" not in (self.cut, other.cut):
                other._later(self._delay(), partial(ask, other))

        def answered() -> None:
            if host is self._host:
                host.answered(asking, agreed)

        self._later(ASK_S, answered)

    def promises(self, host: str, its_epoch: int, our_epoch: int) -> bool:
        mine = self._host
        return mine is not None and mine.promise(host, its_epoch, our_epoch, self.clock)

    # ---- what the daemon does

    def owns(self, device: str) -> bool:
        """Whether this host may have a session of a device now."""
        host = self._host
        return device in self._open or (host is not None and host.may_open(device, self.clock))

    def _tick(self) -> None:
        host = self._host
        if host is None:
            return
        self._later(TICK_S * self.world.random.uniform(0.8, 1.2), self._tick)
        was_away = self.clock - self._heard_at > WATCH_S
        if was_away:
            host.lost_sight()
        if was_away or self._is_behind:
            self._read(was_away=was_away)
        elif self._passes("deaf") and self.world.store.revision == host.mirror.revision:
            self._heard_at = self.clock  # a heartbeat of the watch
        if host.phase in (Phase.FENCED, Phase.LEFT):
            for device in list(self._open):
                self._end(device, lost=False)
            self._begin_epoch()
            return
        host.devices.want(
            assign(
                dict.fromkeys(self.world.devices, ANYWHERE),
                [Candidate(n) for n, r in host.mirror.live() if r.state is HostState.LIVE],
            )
        )
        if self.world.rules.anyone_buries:
            host._joined_at = 0
        if (asking := host.asking(self.clock)) is not None:
            self._ask(host, asking)
        for order in list(host.orders(self.clock)):
            self._send(order)
        while host.devices.acquired:
            take = host.devices.acquired.popleft()
            left = max(take.last.cooling_s, default=0.0) if take.last is not None else 0.0
            self._may_from[take.device] = take.seen_at + (UNCLEAN_S if take.lost else left)
        self._poll(host)
        self.world.judge_owners()

    def _poll(self, host: FleetHost) -> None:
        for device in list(self._open):
            if not host.may_open(device, self.clock):
                self._end(device, lost=False)
        for device in host.devices.handing_over - self._open.keys():
            left_s = self._may_from.get(device, 0.0) - self.clock
            host.devices.ended(device, Remains(cooling_s=(left_s,) if left_s > 0 else ()))
        for device in host.devices.owned:
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
        number = self._open[device] = next(self.world.numbers)
        self.world.judge.begins(device, self.name, self.world.now)

        def over() -> None:
            if self._open.get(device) == number:
                self._end(device, lost=False)

        self._later(SESSION_S, over)

    def _end(self, device: str, *, lost: bool) -> None:
        del self._open[device]
        self.world.judge.ends(device, self.name, self.world.now, lost=lost)


def simulate(
    seed: int,
    rules: Rules,
    seconds: float = 300.0,
    *,
    plan: Sequence[Fault] | None = None,
    devices: int = 12,
) -> World:
    world = World(seed, rules, Host, devices=devices)
    world.run(seconds, plan)
    return world
