"""Programs with sessions in a fleet, one fault at a time: never a session too many or too early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import fleet_world
import pytest
from fleet_world import KEYS, UNCLEAN_S
from memory_fleet import MemoryFleet, MemoryHost, now
from support import camera, run_virtual

from camserver.config import Camera
from camserver.errors import NotOwnerError, RtspBusy
from camserver.fleet.borrowing import BorrowedLease
from camserver.fleet.lending import Wish
from camserver.fleet.store import Change, Swap
from camserver.leases import Budget, Holder, Priority
from camserver.model import SessionEnd

CAMERAS = [camera(f"cam{n}", device=f"device{n}", interval_s=2.0) for n in range(4)]
PROGRAM = Holder("live", "film")


@dataclass
class Scene:
    """A program on one host has a session of a camera of another host."""

    fleet: MemoryFleet
    owner: MemoryHost
    host: MemoryHost
    """The program's."""
    camera: Camera
    lease: BorrowedLease

    def ends(self, *, killed: bool = False) -> None:
        """The session ends: the program says so, or the kernel has killed it."""
        self.fleet.judge.ends(self.camera.device, "program", now(), lost=killed)
        if not killed:
            self.lease.ended(SessionEnd.CLEAN)
        self.lease.release()

    async def killed_in_time(self) -> None:
        """The program does not end by itself. The kernel ends it when its right is over."""
        until = self.lease.right[1]
        while now() < until:
            await asyncio.sleep(0.02)
            if not self.lease.withdrawn.done():
                until = self.lease.right[1]
        self.ends(killed=True)

    async def polled(self) -> None:
        """The camera is polled again, and nothing was too early."""
        await asyncio.sleep(40)
        assert self.fleet.judge.faults == []
        assert self.fleet.unpolled(5.0) == []


def play(scene: Callable[[Scene], Awaitable[None]], cameras: list[Camera] = CAMERAS) -> None:
    """Play a scene, in which a program has just begun its session."""

    async def work() -> None:
        fleet = MemoryFleet(3, cameras, "ab")
        fleet.start()
        await asyncio.sleep(15)
        owner = next(h for h in fleet.hosts.values() if h.manager._table.right.owned)
        host = next(h for h in fleet.hosts.values() if h is not owner)
        device = min(owner.manager._table.right.owned)
        target = next(c for c in cameras if c.device == device)
        lease = await host.borrowing.acquire(target, PROGRAM, Priority.LIVE, 10.0)
        fleet.judge.begins(device, "program", now())
        await asyncio.sleep(3)
        await scene(Scene(fleet, owner, host, target, lease))
        for each in fleet.hosts.values():
            each.die()

    run_virtual(work)


def test_the_owner_counts_a_session_before_it_sees_the_record() -> None:
    """Its watch may lag behind the swap by which it wrote the record."""

    async def scene(it: Scene) -> None:
        it.ends()
        epoch = it.owner.member._epoch
        assert epoch is not None
        see, loop = epoch._see, asyncio.get_running_loop()

        def late(change: Change) -> None:
            loop.call_later(0.15, see, change)

        epoch._see = late  # type: ignore[method-assign]
        for _ in range(3):
            lease = await it.host.borrowing.acquire(it.camera, PROGRAM, Priority.LIVE, 10.0)
            await asyncio.sleep(8)
            assert not lease.withdrawn.done()
            lease.ended(SessionEnd.CLEAN)
            lease.release()
        await it.polled()

    play(scene)


def test_the_record_of_a_session_is_removed_by_hand() -> None:
    async def scene(it: Scene) -> None:
        it.fleet.store.swap(Swap({}, {KEYS.external(*it.lease.name): None}))
        assert "record" in await it.lease.withdrawn
        await it.killed_in_time()
        await it.polled()

    play(scene)


def test_the_record_of_the_host_of_a_program_is_removed_by_hand() -> None:
    """The host joins again in an epoch that it never had, although it owned nothing."""

    async def scene(it: Scene) -> None:
        before = it.lease.host.epoch
        it.fleet.store.swap(Swap({}, {KEYS.host(it.host.name): None}))
        await it.killed_in_time()
        await it.polled()
        assert it.host.member.host is not None
        assert it.host.member.host.epoch > before

    play(scene, [replace(each, hosts=("a",)) for each in CAMERAS])


def test_the_store_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner still knows that the program had a session."""
    monkeypatch.setattr(fleet_world, "UNCLEAN_S", 30.0)
    cameras = [replace(each, hosts=("a",), unclean_cooldown_s=30.5) for each in CAMERAS]

    async def scene(it: Scene) -> None:
        it.owner.manager.configure({c.device: Budget(1, 0.1, 30.5) for c in cameras})
        it.fleet.store.entries.clear()
        it.fleet.store.changes.clear()
        it.fleet.store.revision = 0
        await it.killed_in_time()
        await it.polled()

    play(scene, cameras)


def test_a_reload_gives_the_camera_another_device() -> None:
    """It is the same box under another name. Both names count the session."""

    async def scene(it: Scene) -> None:
        new = [replace(it.camera, device="box"), *(c for c in CAMERAS if c is not it.camera)]
        judge = it.fleet.judge
        judge.boxes["box"] = it.camera.device
        for host in it.fleet.hosts.values():
            host.manager.configure(
                {c.device: Budget(1, 0.1, UNCLEAN_S + 0.5) for c in new},
                {c.id: c.device for c in new},
            )
            host.member._local.configure(new)
        await asyncio.sleep(20)
        assert judge.faults == []
        assert not it.lease.withdrawn.done()
        it.ends()
        await asyncio.sleep(10)
        assert now() - it.fleet.polled["box"] < 5.0

    play(scene)


def test_requests_that_wait_follow_the_device() -> None:
    async def scene(it: Scene) -> None:
        waiting = [
            asyncio.create_task(it.host.borrowing.acquire(it.camera, PROGRAM, Priority.LIVE, 300.0))
            for _ in range(2)
        ]
        await asyncio.sleep(1)
        await it.owner.member.drain(it.owner.name, drained=True)
        await asyncio.sleep(5)
        assert it.camera.device in it.host.manager._table.right.owned
        it.ends()
        for each in asyncio.as_completed(waiting, timeout=20):
            (await each).release()
        await it.polled()

    play(scene)


def test_a_withdrawal_comes_before_the_answer() -> None:
    async def scene(it: Scene) -> None:
        it.ends()
        await asyncio.sleep(3)
        ask = it.host.borrowing._ask

        async def slow(*question: object) -> object:
            answer = await ask(*question)  # type: ignore[arg-type]
            await asyncio.sleep(1.0)
            return answer

        it.host.borrowing._ask = slow  # type: ignore[assignment]
        recorder = asyncio.create_task(
            it.host.borrowing.acquire(it.camera, PROGRAM, Priority.POLL, 20.0)
        )
        await asyncio.sleep(0.5)
        live = asyncio.create_task(
            it.owner.borrowing.acquire(it.camera, PROGRAM, Priority.LIVE, 8.0)
        )
        lease = await recorder
        assert "live" in await lease.withdrawn
        lease.release()
        (await live).release()
        await it.polled()

    play(scene)


def test_a_question_that_names_another_epoch_is_refused() -> None:
    """Such a lease would never be over, even when that host is dead."""

    async def scene(it: Scene) -> None:
        record = it.lease.host.externals.record(it.lease.name)
        assert record is not None
        record = record.model_copy(update={"epoch": record.epoch + 1000})
        wish = Wish(device=it.camera.device, number="0123456789", wait_s=0.0, record=record)
        with pytest.raises(NotOwnerError, match="not known"):
            await it.owner.lending.give(it.camera, wish, PROGRAM)

    play(scene)


def test_a_session_of_go2rtc_counts_at_the_owner_of_its_device() -> None:
    """Also when there is none free, and when the device gets another owner."""

    async def scene(it: Scene) -> None:
        observing = it.host.member._local.observing
        session = observing.observe(it.camera.id, it.camera.device, Holder("live", "go2rtc x"))
        await asyncio.sleep(1)
        assert labels(it.owner, it) == ["film on host b", "go2rtc x on host b"]
        await it.owner.member.drain(it.owner.name, drained=True)
        await asyncio.sleep(5)
        assert labels(it.owner, it) == []
        assert sorted(labels(it.host, it)) == ["film on host b", "go2rtc x on host b"]
        session.ended(SessionEnd.CLEAN)
        session.release()
        it.ends()
        await asyncio.sleep(1)
        assert labels(it.host, it) == []
        assert not [key for key in it.fleet.store.entries if "/ext/" in key]
        await it.polled()

    play(scene)


def test_a_session_of_go2rtc_counts_before_its_host_may_have_sessions() -> None:
    """The host has just been started. It must not poll beside what its go2rtc shows."""

    async def scene(it: Scene) -> None:
        it.ends()
        it.host.die()
        it.host.start()
        session = it.host.member._local.observing.observe(
            it.camera.id, it.camera.device, Holder("live", "go2rtc x")
        )
        assert labels(it.host, it) == ["go2rtc x"]
        await it.owner.stop()
        await asyncio.sleep(30)
        assert labels(it.host, it) == ["go2rtc x"]
        assert now() - it.fleet.polled[it.camera.device] > 20.0
        session.release()
        it.owner.start()
        await it.polled()

    play(scene)


def labels(host: MemoryHost, it: Scene) -> list[str]:
    """Who has sessions of the camera's device, as a host counts them."""
    held = host.manager.device_statistics(it.camera.device).held
    return [holder.label for holder, _ in held]


def test_go2rtc_opens_a_session_while_its_device_is_handed_over() -> None:
    """The hand-over does not wait for its end: the new owner counts it."""

    async def scene(it: Scene) -> None:
        it.ends()
        observing = it.owner.member._local.observing
        draining = asyncio.create_task(it.owner.member.drain(it.owner.name, drained=True))
        while it.camera.device not in it.owner.member._local._owned:
            await asyncio.sleep(0.01)
        while it.camera.device in it.owner.member._local._owned:
            await asyncio.sleep(0.01)
        session = observing.observe(it.camera.id, it.camera.device, Holder("live", "go2rtc x"))
        await draining
        await asyncio.sleep(5)
        assert it.camera.device in it.host.manager._table.right.owned
        assert labels(it.host, it) == ["go2rtc x on host a"]
        session.release()
        await it.polled()

    play(scene)


def test_a_host_without_its_store_asks_for_no_lease_during_a_hold() -> None:
    """It could not say how the sessions end: they would pile up at their owner."""

    async def scene(it: Scene) -> None:
        it.ends()
        assert await it.owner.member.hold(600.0) == ()
        it.host.link.is_cut = True
        await asyncio.sleep(5)
        observing = it.host.member._local.observing
        session = observing.observe(it.camera.id, it.camera.device, Holder("live", "go2rtc x"))
        with pytest.raises(RtspBusy, match="not reached"):
            await it.host.borrowing.acquire(it.camera, PROGRAM, Priority.LIVE, 3.0)
        await asyncio.sleep(60)
        assert not [key for key in it.fleet.store.entries if "/ext/" in key]
        session.release()
        it.host.link.is_cut = False
        await asyncio.sleep(10)
        assert await it.owner.member.hold(0.0) == ()
        await it.polled()

    play(scene)


@pytest.mark.parametrize("removed", ["all of it", "a host and its devices"])
def test_what_is_removed_during_a_hold_is_not_taken(removed: str) -> None:
    """The other host is cut off, and may have sessions until the time of the hold is over."""

    async def scene(it: Scene) -> None:
        it.ends()
        assert await it.owner.member.hold(600.0) == ()
        it.host.link.is_cut = True
        await asyncio.sleep(5)
        assert await it.owner.member.hold(0.0) == (it.host.name,)
        keys = [KEYS.host(it.host.name), *(KEYS.own(c.device) for c in CAMERAS)]
        if removed == "all of it":
            keys = list(it.fleet.store.entries)
        it.fleet.store.swap(Swap({}, dict.fromkeys(keys)))
        await asyncio.sleep(500)
        assert it.host.deaths == 0
        it.host.link.is_cut = False
        await asyncio.sleep(140)
        await it.polled()

    play(scene)


def test_the_timer_of_the_kernel_follows_a_validity_that_gets_shorter() -> None:
    """Even when the process was late, and its sessions must end at once."""

    async def scene(it: Scene) -> None:
        it.ends()
        assert await it.owner.member.hold(600.0) == ()
        epoch = it.owner.member._epoch
        assert epoch is not None
        armed: list[float] = []
        it.owner.timer.arm = armed.append  # type: ignore[method-assign]
        epoch.host.validity.until = now() + 1.0  # shorter than CLOSE_S and MARGIN_S
        epoch._extend()
        assert armed == [now() + 1.0]

    play(scene)
