"""Drives one epoch of this host: it makes the swaps, follows the store, and moves devices.

The protocol (`host.py`) decides. This module does what it says, and ends every session when the
validity of the host is over:

- Before a session may be opened, the kernel's timer stands at the end of the validity.
- The timer is taken back only when every session of this process has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from camserver.events import Event
from camserver.events.fleet import (
    FleetDevicesFreed,
    FleetDevicesTaken,
    FleetHostBuried,
    FleetJoined,
    FleetNotValid,
    FleetValid,
)
from camserver.fleet.assignment import Candidate, assign
from camserver.fleet.health import StoreHealth
from camserver.fleet.host import FleetHost
from camserver.fleet.news import News
from camserver.fleet.orders import Order, Phase, Purpose
from camserver.fleet.parts import Ask, DevicesOfHost, Timer
from camserver.fleet.records import HostState
from camserver.fleet.store import Change, FleetStore, Snapshot, StoreError, StoreUnknownError
from camserver.fleet.vouching import Asking

TICK_S = 0.2
"""How often the protocol is asked, at least, what is to be done."""
QUIET_S = 2.5
"""A watch without news for so long hangs: every host's renewals are news.

Time in which this process did not run counts little: the news may be there already.
"""
READ_S = 10.0
"""How long the store may take to give everything."""
RETRY_S = 0.3
MANY_DEVICES = 1000
OVER = frozenset((Phase.LEFT, Phase.FENCED))


class Epoch:
    """One epoch, from joining until it has left or was fenced."""

    def __init__(
        self,
        host: FleetHost,
        store: FleetStore,
        local: DevicesOfHost,
        timer: Timer,
        health: StoreHealth,
        emit: Callable[[Event], None],
        clock: Callable[[], float],
        ask: Ask | None,
    ) -> None:
        """`clock` counts in suspend, too. The mirror of `host` has just been read.

        `ask` asks another host to vouch for this one. None: this host cannot ask.
        """
        self.host = host
        self._fleet = host.mirror.keys.fleet
        self._terms = host.validity.terms
        self._store = store
        self._local = local
        self._timer = timer
        self._health = health
        self._emit = emit
        self._clock = clock
        self._ask_one = ask
        self._news = News(host.name, emit)
        self._wake = asyncio.Event()
        self._extended = asyncio.Event()
        self._extended_until = 0.0
        self._assigned: object = None
        self._is_assigning = self._is_abandoned = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Timeout | None = None
        self._quiet_s = self._looked_at = 0.0
        self._said_dead: object = None
        self._handing: set[str] = set()

    async def run(self) -> None:
        """Run until the epoch is over. Afterwards no session of this process is open."""
        self._local.begin(self.host, self._wake.set)
        try:
            async with asyncio.TaskGroup() as group:
                self._start(group, self._follow(), "fleet store")
                self._start(group, self._guard(), "fleet validity")
                await self._work(group)
                await self._local.end_all()
                for task in self._tasks:
                    task.cancel()
        finally:
            await self._local.end_all()
            self._timer.disarm()

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> None:
        task = group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def leave(self) -> None:
        """Hand over every device, and leave."""
        self._is_abandoned = self.host.phase is Phase.JOINING
        self.host.leave()
        self._wake.set()

    def inventory_changed(self, inventory: str) -> None:
        """Take over a change of the inventory, and its hash."""
        self.host.set_inventory(inventory)
        self._wake.set()

    # ---- what the protocol wants

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while self.host.phase not in OVER and not self._is_abandoned:
            self._wake.clear()
            now = self._clock()
            self._notice_silence(now)
            self._assign(group)
            for order in list(self.host.orders(now)):
                self._say(order, now)
                self._start(group, self._make(order), f"fleet {order.purpose}")
            self._extend()  # before a renewal is sent that says less than the last one
            if self._ask_one is not None and (asking := self.host.asking(now)) is not None:
                self._start(group, self._ask(asking, self._ask_one), "fleet vouching")
            self._end_lost(group)
            self._take_over(now)
            self._local.look()
            self._hand_over(group, self.host.devices.to_end)
            self._news.look(self.host.mirror)
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _assign(self, group: asyncio.TaskGroup) -> None:
        """Compute the assignment anew when hosts or devices have changed."""
        mirror = self.host.mirror
        candidates = tuple(
            Candidate(name, record.weight, record.labels)
            for name, record in sorted(mirror.live())
            if record.state is HostState.LIVE and name not in mirror.drained
        )
        inventories = tuple(sorted((n, record.inventory) for n, record in mirror.live()))
        key = candidates, self._local.version, inventories
        if key != self._assigned and not self._is_assigning:
            self._assigned, self._is_assigning = key, True
            self._start(group, self._assign_to(candidates), "fleet assignment")

    async def _assign_to(self, candidates: tuple[Candidate, ...]) -> None:
        reach = dict(self._local.reach)
        if len(reach) > MANY_DEVICES:  # it would block the event loop
            wanted = await asyncio.to_thread(assign, reach, candidates)
        else:
            wanted = assign(reach, candidates)
        self.host.devices.want(self._kept(wanted))
        self._is_assigning = False
        self._wake.set()

    def _kept(self, wanted: dict[str, str | None]) -> dict[str, str | None]:
        """The assignment, without hand-overs to hosts that have another inventory.

        They compute another assignment, so they may not take the device.
        """
        mirror, me = self.host.mirror, self.host.name
        mine = mirror.host(me)
        others = {
            name
            for name, record in mirror.live()
            if mine is not None and record.inventory != mine.inventory
        }
        owned = self.host.devices.owned
        return {
            device: me if target in others and device in owned else target
            for device, target in wanted.items()
        }

    async def _make(self, order: Order) -> None:
        """Make a swap, and tell the protocol what became of it."""
        started = self._clock()
        try:
            revision = await self._store.swap(order.swap)
        except StoreUnknownError as error:
            self._health.failed(error)
            self.host.unknown(order)
        except StoreError as error:
            self._health.failed(error)
            await asyncio.sleep(RETRY_S)  # it refused at once, and would do so again
            self.host.refused(order)
        else:
            self._health.answered()
            self._health.latency_s = self._clock() - started
            if revision is not None:
                self.host.committed(order, revision)
                self._extend()
                if order.purpose is Purpose.FREE:
                    self._emit(FleetDevicesFreed(devices=len(order.about)))
            else:
                # The mirror is older than the store. The watch brings what is new: to read a large
                # fleet at each such race would cost each host more than the race.
                await asyncio.sleep(RETRY_S)
                self.host.refused(order)
        self._wake.set()

    async def _ask(self, asking: Asking, ask_one: Ask) -> None:
        """Ask all other hosts to vouch for this one, because the store is away."""
        hosts = list(asking.hosts)
        answers = await asyncio.gather(*(ask_one(host, asking.hosts[host]) for host in hosts))
        agreed = [host for host, agrees in zip(hosts, answers, strict=True) if agrees]
        self.host.answered(asking, agreed)
        self._extend()

    def _say(self, order: Order, now: float) -> None:
        if order.purpose is Purpose.BURY and order.swap.expected != self._said_dead:
            self._said_dead = order.swap.expected
            self._emit(
                FleetHostBuried(
                    host=order.about[0],
                    silent_s=self.host.silence.silent_s(order.about[0], now),
                    limit_s=self.host.silence.limit_s(order.about[0]),
                )
            )

    # ---- devices

    def _extend(self) -> None:
        """Let sessions begin, after the kernel's timer was set.

        A renewal may be proven so late that its time is over already. That extends nothing, and
        the timer would kill this process at once. At the end of a hold the validity gets shorter:
        then the timer is set in any case.
        """
        validity, now = self.host.validity, self._clock()
        is_member = self.host.phase in (Phase.LIVE, Phase.LEAVING)
        is_new = validity.until > self._extended_until and validity.may_open(now)
        is_shorter = validity.until < self._extended_until
        if not is_member or not (is_new or is_shorter):
            return
        if not self._extended_until:
            self._emit(
                FleetJoined(
                    fleet=self._fleet,
                    host=self.host.name,
                    epoch=self.host.epoch,
                    members=sum(1 for _ in self.host.mirror.live()),
                )
            )
        self._timer.arm(validity.until)
        self._extended_until = validity.until
        self._local.extend(validity.sessions_end_at - now)
        self._extended.set()

    def _take_over(self, now: float) -> None:
        devices = self.host.devices
        acquired, devices.acquired = devices.acquired, deque()
        takes = []
        for take in acquired:
            if take.device in self._handing:  # it was ours before, and that has not ended yet
                devices.acquired.append(take)
            elif take.device in devices.owned:
                takes.append(take)
        for take in takes:
            self._local.take_over(take, now - take.seen_at)
        if takes:
            lost = sum(take.lost for take in takes)
            self._emit(FleetDevicesTaken(devices=len(takes), lost=lost))

    def _end_lost(self, group: asyncio.TaskGroup) -> None:
        lost, self.host.devices.lost = self.host.devices.lost, deque()
        self._hand_over(group, lost)

    def _hand_over(self, group: asyncio.TaskGroup, devices: Iterable[str]) -> None:
        for device in set(devices) - self._handing:
            self._handing.add(device)
            self._start(group, self._hand_over_one(device), f"hand over {device}")

    async def _hand_over_one(self, device: str) -> None:
        remains = await self._local.hand_over(device)
        self._handing.discard(device)
        if all(take.device != device for take in self.host.devices.acquired):
            self.host.devices.ended(device, remains)
        self._wake.set()

    async def _guard(self) -> None:
        """End every session when the validity is over, then take the kernel's timer back."""
        validity = self.host.validity
        while True:
            while not validity.may_open(self._clock()):
                self._extended.clear()
                await self._extended.wait()
            await self._lapse()
            self._emit(
                FleetNotValid(
                    for_s=self._clock() - validity.renewed_at,
                    limit_s=validity.until - validity.renewed_at,
                    reason=self._health.reason or "the store was not reached",
                )
            )
            await self._local.end_all()
            if not validity.may_open(self._clock()):
                self._timer.disarm()
                while not validity.may_open(self._clock()):
                    self._extended.clear()
                    await self._extended.wait()
            self._emit(FleetValid())

    async def _lapse(self) -> None:
        """Wait until the validity is over. It is extended, or gets shorter, meanwhile."""
        validity = self.host.validity
        while (left_s := validity.sessions_end_at - self._clock()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left_s, self._terms.renew_s))

    # ---- the store

    async def _follow(self) -> None:
        """Keep the mirror at what the store has.

        When the watch has ended, everything is read before the next watch: only then this host
        knows that it has missed nothing.
        """
        while True:
            was_away = False
            try:
                await self._watch()
            except StoreError as error:
                self._health.failed(error)
                was_away = True
            self.host.lost_sight()
            while (snapshot := await self._read(after_s=RETRY_S if was_away else 0.0)) is None:
                was_away = True
            self._health.answered()
            self.host.replace(snapshot, self._clock(), was_away=was_away)
            self._extend()
            self._wake.set()

    async def _read(self, after_s: float) -> Snapshot | None:
        """Everything in the store, after a pause. None when it does not answer."""
        await asyncio.sleep(after_s)
        try:
            async with asyncio.timeout(READ_S):
                return await self._store.read(self.host.mirror.keys.prefix)
        except (StoreError, TimeoutError) as error:
            self._health.failed(StoreError(str(error) or f"no answer within {READ_S:g} s"))
        return None

    def _notice_silence(self, now: float) -> None:
        """End a watch that is quiet for too long."""
        self._quiet_s += min(now - self._looked_at, 2 * TICK_S)
        self._looked_at = now
        if self._quiet_s > QUIET_S:
            self._quiet_s = 0.0
            self._read_anew()

    async def _watch(self) -> None:
        """Apply changes until `_read_anew` is called. Raises StoreError."""
        self._quiet_s = 0.0
        watch = self._store.watch(self.host.mirror.keys.prefix, self.host.mirror.revision)
        try:
            async with asyncio.timeout(None) as self._watching:
                async for change in watch:
                    self._see(change)
        except TimeoutError:
            return
        finally:
            self._watching = None

    def _see(self, change: Change) -> None:
        self._quiet_s = 0.0
        self.host.apply(change, self._clock())
        self._extend()
        self._wake.set()

    def _read_anew(self) -> None:
        if self._watching is not None and not self._watching.expired():
            self._watching.reschedule(asyncio.get_running_loop().time())
