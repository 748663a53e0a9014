"""Hosts of a fleet in one process on a virtual clock: the real driver, leases and schedule.

The store is in memory, and may be away. Polls are sessions that the judge sees. A host may be
killed, by a test or by the timer that stands for the kernel's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fleet_records import host_record
from fleet_world import KEYS, UNCLEAN_S, Judge, Store

from camserver.config import Camera
from camserver.errors import NotOwnerError, RtspBusy
from camserver.events import Event
from camserver.fleet import store as fleet_store
from camserver.fleet.borrowing import Borrowing
from camserver.fleet.lending import Lending, Lent, Wish, holder_of
from camserver.fleet.local import LocalDevices
from camserver.fleet.member import FleetMember, Identity
from camserver.fleet.store import Change, StoreError, StoreUnknownError, Swap
from camserver.fleet.terms import FleetTerms
from camserver.host.clock import utc_now
from camserver.leases import Budget, Holder, Preempted, Priority, RtspManager
from camserver.model import Attempt, Result, SessionEnd, Snapshot, Source, Still
from camserver.polling.orchestrator import PollingOrchestrator

CALL_S = 2.0
SESSION_S = 0.3
TEARDOWN_S = 0.05


def now() -> float:
    return asyncio.get_running_loop().time()


class MemoryStore(Store):
    """The store itself, with all changes since its start."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.changes: list[Change] = []
        self.changed = asyncio.Event()
        self.watchers.append(self._note)

    def _note(self, change: Change) -> None:
        self.changes.append(change)
        self.changed.set()
        self.changed = asyncio.Event()


class StoreLink:
    """The store as one host reaches it. `is_cut`: nothing gets through."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.is_cut = False

    async def _pass(self) -> None:
        await asyncio.sleep(self.store.random.choice([0.001, 0.005, 0.02]))
        if self.is_cut or not self.store.is_up:
            await asyncio.sleep(CALL_S)
            raise StoreError("no answer")

    async def read(self, _prefix: str) -> fleet_store.Snapshot:
        await self._pass()
        return fleet_store.Snapshot(self.store.revision, dict(self.store.entries))

    async def swap(self, swap: Swap) -> int | None:
        try:
            await self._pass()
        except StoreError:
            if self.store.random.random() < 0.3:  # it lands when nobody expects it any more
                late_s = self.store.random.uniform(0.0, 8.0)
                asyncio.get_running_loop().call_later(late_s, self.store.swap, swap)
            raise StoreUnknownError("no answer") from None
        revision = self.store.swap(swap)
        try:
            await self._pass()
        except StoreError:
            raise StoreUnknownError("no answer") from None
        return revision

    async def watch(self, _prefix: str, after: int) -> AsyncIterator[Change]:
        await self._pass()
        yield Change(after)
        seen = after
        while True:
            changed = self.store.changed
            for change in self.store.changes[:]:
                if change.revision > seen:
                    await self._pass()
                    seen = change.revision
                    yield change
            if self.store.revision <= seen:
                await changed.wait()


class FakeTimer:
    """Stands for the kernel's timer."""

    def __init__(self, kill: Callable[[], None]) -> None:
        self._kill = kill
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, at: float) -> None:
        self.disarm()
        self._handle = asyncio.get_running_loop().call_at(at, self._kill)

    def disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def attempt_of(camera: Camera, result: Result) -> Attempt:
    at = utc_now()
    if result is not Result.OK:
        return Attempt(camera.id, at, result, "busy")
    still = Still(b"", 1, 1, "h264")
    shot = Snapshot(camera.id, camera.name, still, Source.RTSP, "native", at, 1, 0, None)
    return Attempt(camera.id, at, result, None, shot)


class MemoryHost:
    """One host. `start` begins a new process."""

    def __init__(self, name: str, fleet: MemoryFleet) -> None:
        self.name = name
        self.link = StoreLink(fleet.store)
        self.deaths = 0
        self.is_alive = False
        self._fleet = fleet
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open: set[str] = set()

    def start(self) -> None:
        cameras = self._fleet.cameras
        self.is_alive = True
        self.manager = RtspManager(in_fleet=True)
        self.manager.configure({c.device: Budget(1, 0.1, UNCLEAN_S + 0.5) for c in cameras})
        self.orchestrator = PollingOrchestrator(
            self._poll, sessions=100, open_rate=1000.0, emit=self.said
        )
        self.lending = Lending(self.manager, self.link, now)
        self.borrowing = Borrowing(self._ask_owner, now)
        local = LocalDevices(self.manager, self.orchestrator, self.lending, self.borrowing)
        local.configure(cameras)
        self.timer = FakeTimer(self.die)
        record = host_record(machine_id=self.name)
        self.member = FleetMember(
            Identity("sim", self.name, record),
            self._fleet.terms,
            self.link,
            local,
            self.timer,
            self.said,
            now,
        )
        assert self.member._keys == KEYS
        self._spawn(self.member.run())
        self._spawn(self.orchestrator.run())

    async def _ask_owner(self, owner: str, camera: Camera, wish: Wish, holder: Holder) -> Lent:
        """Ask another host, which may die meanwhile, as the real ones do over HTTP."""
        other = self._fleet.hosts[owner]
        if other is self:
            return await self.lending.give(camera, wish, holder)
        await asyncio.sleep(0.01)
        if not other.is_alive:
            raise NotOwnerError("no answer")
        wish = Wish.model_validate_json(wish.encode())
        giving = asyncio.get_running_loop().create_task(
            other.lending.give(camera, wish, holder_of(wish.record))
        )
        other._tasks.add(giving)
        try:
            return await giving
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise NotOwnerError("it died") from None
        finally:
            other._tasks.discard(giving)

    def said(self, event: Event) -> None:
        if event.EVENT.startswith("fleet"):
            self._fleet.log.append(f"{now():.1f} {self.name}: {event.text}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def die(self) -> None:
        """As kill -9: what is open is lost, nothing is said to anybody."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.deaths += 1
        self.timer.disarm()
        self._fleet.log.append(f"{now():.1f} {self.name}: died")
        for device in self._open:
            self._fleet.judge.ends(device, self.name, now(), lost=True)
        self._open.clear()
        self.borrowing._leases.clear()  # nobody is told anything any more
        for task in self._tasks:
            task.cancel()
        for counted in self.lending._counted.values():
            counted.lease.abandon()  # its manager dies, too
            counted.watching.cancel()

    async def stop(self) -> None:
        """As SIGTERM."""
        await self.member.leave(3.0)
        await self.orchestrator.stop(0.2)
        self.die()

    async def _poll(self, camera: Camera, *_: object) -> Attempt:
        manager, result = self.manager, Result.OK
        try:
            with await manager.acquire(camera.id, camera.device, Holder("poller")) as lease:
                try:
                    async with lease.preemptible():
                        self._begin(camera.device)
                        await asyncio.sleep(SESSION_S)
                except Preempted:
                    result = Result.BUSY
                finally:
                    if camera.device in self._open:
                        await asyncio.sleep(TEARDOWN_S)
                    self._end(camera.device)
                    lease.ended(SessionEnd.CLEAN)
        except RtspBusy:
            result = Result.BUSY
        return attempt_of(camera, result)

    def _begin(self, device: str) -> None:
        if self.is_alive:
            self._open.add(device)
            self._fleet.judge.begins(device, self.name, now())
            self._fleet.polled[device] = now()

    def _end(self, device: str) -> None:
        if device in self._open:
            self._open.discard(device)
            self._fleet.judge.ends(device, self.name, now(), lost=False)


class Program:
    """A program on a host that has sessions under leases, as `camserver lease -- ffmpeg` has.

    It lives on when the daemon of its host dies. The kernel ends it when its right is over.
    """

    def __init__(self, fleet: MemoryFleet, seed: int, *, has_timer: bool = True) -> None:
        self.has_timer = has_timer
        self.sessions = 0
        self.is_stopping = False
        self._fleet = fleet
        self._dice = random.Random(seed)

    async def run(self) -> None:
        """Have sessions of any camera on any host, until it is stopping."""
        while not self.is_stopping:
            await asyncio.sleep(self._dice.uniform(0.5, 5.0))
            host = self._fleet.hosts[self._dice.choice(sorted(self._fleet.hosts))]
            camera = self._dice.choice(self._fleet.cameras)
            if host.is_alive:
                priority = self._dice.choice(list(Priority))
                with contextlib.suppress(RtspBusy):
                    await self.session(host, camera, self._dice.uniform(0.5, 15.0), priority)

    async def session(
        self, host: MemoryHost, camera: Camera, lasts_s: float, priority: Priority = Priority.LIVE
    ) -> None:
        """Have one session on a host. Raises RtspBusy."""
        daemon, holder = host.borrowing, Holder("external", "ffmpeg")
        lease = await daemon.acquire(camera, holder, priority, 3.0)
        name, until = f"a program of {host.name}", lease.right[1]
        judge, ends_at = self._fleet.judge, now() + lasts_s
        judge.begins(lease.device, name, now())
        self.sessions += 1
        while now() < (min(ends_at, until) if self.has_timer else ends_at):
            if lease.withdrawn.done():
                break
            await asyncio.sleep(0.05)
            if host.is_alive and host.borrowing is daemon:
                until = lease.right[1]
        if now() >= until and self.has_timer:
            judge.ends(lease.device, name, now(), lost=True)
        else:
            await asyncio.sleep(TEARDOWN_S)
            judge.ends(lease.device, name, now(), lost=False)
            lease.ended(SessionEnd.CLEAN)
        if host.is_alive and host.borrowing is daemon:
            lease.release()


class MemoryFleet:
    """The hosts, their store, and the judge."""

    def __init__(self, seed: int, cameras: list[Camera], names: str = "abc") -> None:
        self.terms = FleetTerms()
        self.store = MemoryStore(seed)
        self.judge = Judge()
        self.cameras = cameras
        self.polled: dict[str, float] = {}
        self.log: list[str] = []
        self.hosts = {name: MemoryHost(name, self) for name in names}

    def start(self) -> None:
        for host in self.hosts.values():
            host.start()

    def unpolled(self, within_s: float) -> list[str]:
        """The devices without a session in the last seconds."""
        return [c.device for c in self.cameras if now() - self.polled.get(c.device, 0.0) > within_s]
