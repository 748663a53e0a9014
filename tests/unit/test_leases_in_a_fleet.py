"""The lease manager of a host in a fleet: sessions only of its devices, only while it is valid."""

from __future__ import annotations

import asyncio

import pytest

from camserver.errors import RtspBusy
from camserver.leases import Budget, Holder, Preempted, Priority, RtspManager
from camserver.leases.right import Inherited, Preemption
from camserver.model import SessionEnd

pytestmark = pytest.mark.anyio
POLLER = Holder("poller", "cam")


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
async def manager() -> RtspManager:
    manager = RtspManager(in_fleet=True)
    manager.configure({"d": Budget(2, 0.5, 4.0), "e": Budget()})
    return manager


async def test_a_device_gives_nothing_before_it_is_owned(manager: RtspManager) -> None:
    manager.extend(now() + 10)
    with pytest.raises(RtspBusy):
        await manager.acquire("cam", "d", POLLER, lease_wait_s=1.0)
    manager.own("d", Inherited())
    (await manager.acquire("cam", "d", POLLER)).release()


async def test_a_waiter_gets_its_session_when_the_device_is_owned(manager: RtspManager) -> None:
    manager.extend(now() + 10)
    waiting = asyncio.create_task(manager.acquire("cam", "d", POLLER))
    await asyncio.sleep(1)
    manager.own("d", Inherited())
    lease = await waiting
    assert lease.wait_s == pytest.approx(1.0)
    lease.release()


async def test_nothing_is_given_when_the_host_is_not_valid(manager: RtspManager) -> None:
    manager.own("d", Inherited())
    manager.extend(now() + 3)
    await asyncio.sleep(3)
    waiting = asyncio.create_task(manager.acquire("cam", "d", POLLER, lease_wait_s=30))
    await asyncio.sleep(10)
    assert not waiting.done()
    manager.extend(now() + 5)
    (await waiting).release()


async def test_an_offer_is_not_taken_after_the_device_was_given_up(manager: RtspManager) -> None:
    manager.extend(now() + 10)
    waiting = asyncio.create_task(manager.acquire("cam", "d", POLLER))
    await asyncio.sleep(1)
    manager.own("d", Inherited())  # the waiter has its offer, and has not run yet
    remaining = await manager.disown("d")
    with pytest.raises(RtspBusy, match="may not have sessions"):
        await waiting
    assert remaining.cooling_s == ()


async def test_what_the_device_still_counts_is_inherited(manager: RtspManager) -> None:
    manager.extend(now() + 60)
    start = now()
    manager.own("d", Inherited(cooling_until=(start + 2, start + 3)))
    lease = await manager.acquire("cam", "d", POLLER)
    assert now() - start == pytest.approx(2.0, abs=0.01)
    lease.release()


async def test_an_inherited_cap_holds(manager: RtspManager) -> None:
    manager.extend(now() + 60)
    manager.own("d", Inherited(cap=1, cap_until=now() + 30))
    first = await manager.acquire("cam", "d", POLLER)
    with pytest.raises(RtspBusy):
        await manager.acquire("cam2", "d", POLLER, lease_wait_s=1)
    first.release()


@pytest.mark.parametrize("priority", [Priority.POLL, Priority.EVENT])
async def test_to_give_up_a_device_ends_its_sessions_first(
    manager: RtspManager, priority: Priority
) -> None:
    manager.extend(now() + 60)
    manager.own("d", Inherited())
    lease = await manager.acquire("cam", "d", POLLER, priority=priority)
    giving_up = asyncio.create_task(manager.disown("d"))
    with pytest.raises(Preempted) as preempted:
        async with lease.preemptible():
            await asyncio.sleep(10)
    assert preempted.value.why is Preemption.NO_RIGHT
    await asyncio.sleep(1)
    assert not giving_up.done(), "the transport is not proven closed yet"
    lease.ended(SessionEnd.CLEAN)
    lease.release()
    remaining = await giving_up
    assert remaining.cooling_s == (pytest.approx(0.5, abs=0.01),)


async def test_at_the_end_of_the_validity_all_sessions_end(manager: RtspManager) -> None:
    manager.extend(now() + 5)
    leases = []
    for device in ("d", "e"):
        manager.own(device, Inherited())
        leases.append(await manager.acquire("cam", device, POLLER))
    await asyncio.sleep(5)
    ending = asyncio.create_task(manager.end_all())
    for lease in leases:
        assert await lease.preempted() is Preemption.NO_RIGHT
        assert not ending.done()
        lease.release()
    await ending
    assert await manager.disown("d")


async def test_without_a_fleet_every_device_is_ours() -> None:
    manager = RtspManager()
    manager.configure({"d": Budget()})
    (await manager.acquire("cam", "d", POLLER)).release()
