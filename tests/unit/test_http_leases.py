"""Snapshot URLs take leases, too: of the device's web server, beside its RTSP sessions."""

from __future__ import annotations

import asyncio

import pytest
from support import camera

from camserver.errors import RtspBusy
from camserver.leases import Budget, Holder, RtspManager, budgets_of, http_device
from camserver.leases.http_device import alike, box_of
from camserver.leases.journal import JournalState
from camserver.leases.right import Inherited
from camserver.leases.ticket import SessionEntry
from camserver.model import SessionEnd

HOLDER = Holder("poller", "gate")
WEB = http_device("box")


def test_names() -> None:
    assert (box_of(WEB), box_of("box")) == ("box", "box")
    assert (alike(WEB, "hall"), alike("box", "hall")) == (http_device("hall"), "hall")


def test_only_cameras_with_a_snapshot_url_have_a_web_server() -> None:
    cameras = [
        camera("a", device="box", max_sessions=4),
        camera("b", device="box", snapshot_url="http://box/", max_http=2, http_cooldown_s=0.5),
        camera("c", device="hall"),
    ]
    assert budgets_of(cameras) == {
        "box": Budget(1, 0.25, 5.0),
        WEB: Budget(2, 0.5, 5.0),
        "hall": Budget(1, 0.25, 5.0),
    }


async def test_a_session_and_a_snapshot_do_not_wait_for_each_other() -> None:
    m = RtspManager()
    m.configure({"box": Budget(1), WEB: Budget(1, 0.5)})
    with await m.acquire("gate", "box", HOLDER), await m.acquire("gate", WEB, HOLDER) as snapshot:
        with pytest.raises(RtspBusy):
            await m.acquire("yard", WEB, HOLDER, lease_wait_s=1.0)
        snapshot.ended(SessionEnd.CLEAN)
    began = asyncio.get_running_loop().time()
    (await m.acquire("gate", WEB, HOLDER)).release()
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.5)


async def test_a_camera_with_another_device_takes_its_snapshots_along() -> None:
    m, budget = RtspManager(), Budget(1, 0.0, 3.0)
    hall = http_device("hall")
    m.configure({"box": budget, WEB: budget}, {"gate": "box"})
    held = await m.acquire("gate", WEB, HOLDER)
    m.configure({"hall": budget, hall: budget}, {"gate": "hall"})
    assert held.device == hall
    with pytest.raises(RtspBusy):
        await m.acquire("gate", hall, HOLDER, lease_wait_s=1.0)
    (await m.acquire("gate", "hall", HOLDER)).release()
    held.release()
    m.configure({"yard": budget}, {"gate": "yard"})  # without a snapshot URL
    assert m.device_statistics(http_device("hall")).cooling == 1


def test_a_snapshot_of_an_earlier_process_stays_one() -> None:
    entry = SessionEntry(WEB, 7, external=False, cooling_until=9.0, camera="gate")
    state = JournalState(sessions={(WEB, 7): entry}).on({"gate": "hall"})
    assert {device for device, _ in state.sessions} == {WEB, http_device("hall")}


async def test_in_a_fleet_the_web_server_goes_with_its_device() -> None:
    m = RtspManager(in_fleet=True)
    m.configure({"box": Budget(1, 0.0, 0.0), WEB: Budget(1, 0.0, 0.0)})
    waiting = asyncio.create_task(m.acquire("gate", WEB, HOLDER, lease_wait_s=60.0))
    await asyncio.sleep(1)
    assert not waiting.done()
    m.extend(asyncio.get_running_loop().time() + 1000)
    await asyncio.sleep(1)
    assert not waiting.done()
    m.own("box", Inherited())
    lease = await waiting
    late = asyncio.create_task(m.acquire("yard", WEB, HOLDER, lease_wait_s=60.0))
    await asyncio.sleep(0)
    disowned = asyncio.create_task(m.disown("box"))
    await lease.preempted()
    await asyncio.sleep(1)
    assert not disowned.done(), "its request is still open"
    with pytest.raises(RtspBusy):
        await late
    lease.release()
    await disowned
