"""What leases survive.

The daemon's death, a camera that is away for a while, a device that gets another name.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from camserver.errors import RtspBusy
from camserver.leases import Budget, Holder, Priority, RtspManager
from camserver.leases.journal import LeaseJournal, load, state_of
from camserver.leases.ticket import Claim, SessionEntry
from camserver.model import SessionEnd

HOLDER = Holder("poller", "gate")
FILM = Holder("live", "film", uid=1000, keeps_secret=True)


async def test_a_box_with_a_new_name_is_still_the_same_box() -> None:
    """A reload renames a device, twice.

    What is open, who waits, and the cool-down after it, count under the new name.
    """
    m, budget = RtspManager(), Budget(1, 0.0, 3.0)
    m.configure({"d": budget}, {"gate": "d"})
    held = await m.acquire("gate", "d", Holder("live", "film"), priority=Priority.LIVE)
    early = asyncio.create_task(
        m.acquire("gate", "d", Holder("external", "film"), lease_wait_s=60.0)
    )
    poll = asyncio.create_task(m.acquire("gate", "d", HOLDER, lease_wait_s=60.0))
    await asyncio.sleep(1)
    m.configure({"hall": budget}, {"gate": "hall"})
    m.configure({"yard": budget}, {"gate": "yard"})
    assert held.device == "yard"
    with pytest.raises(RtspBusy):
        await m.acquire("gate", "yard", HOLDER, lease_wait_s=1.0)
    late = asyncio.create_task(m.acquire("gate", "yard", HOLDER, lease_wait_s=60.0))
    await asyncio.sleep(1)
    held.release()
    with await early as lease:
        # 1 + 1 + 1 of waiting, 3 of cool-down
        assert lease.wait_s == pytest.approx(6.0, abs=0.01)
        assert not late.done()
        lease.ended(SessionEnd.NONE)
    # It would open what it knew before
    with pytest.raises(RtspBusy, match="its device is yard by now"):
        await poll
    (await late).release()
    await asyncio.sleep(10)
    m.configure({"yard": budget}, {"gate": "yard"})
    assert [d.device for d in m.statistics()] == ["yard"]


async def test_a_camera_that_leaves_a_box_frees_nothing_there() -> None:
    """Its session was opened on the recorder that other cameras still use.

    It counts there until it has ended, and rests.
    """
    m, budget = RtspManager(), Budget(1, 3.0, 4.0)
    m.configure({"nvr": budget}, {"gate": "nvr", "yard": "nvr"})
    held = await m.acquire("gate", "nvr", Holder("live", "film"))
    m.configure({"nvr": budget, "own": budget}, {"gate": "own", "yard": "nvr"})
    assert m.try_acquire("yard", "nvr", HOLDER) is None
    assert m.try_acquire("gate", "own", HOLDER) is None
    waiting = asyncio.create_task(m.acquire("yard", "nvr", HOLDER, lease_wait_s=60.0))
    await asyncio.sleep(1)
    held.ended(SessionEnd.CLEAN)
    held.release()
    with await waiting as lease:
        assert lease.wait_s == pytest.approx(4.0, abs=0.01)
    after = RtspManager()  # the next process, after kill -9 of one that had not ended it
    after.configure({"nvr": budget, "own": budget}, {"gate": "own", "yard": "nvr"})
    after.restore(
        state_of(7, [SessionEntry("nvr", 7, external=False, camera="gate")], {}, 0.0).on(
            {"gate": "own", "yard": "nvr"}
        )
    )
    assert after.try_acquire("yard", "nvr", HOLDER) is None
    assert after.try_acquire("gate", "own", HOLDER) is None


async def test_cameras_that_turn_out_to_be_one_box_share_what_is_open() -> None:
    """And one that leaves it takes its own session along."""
    m, budget = RtspManager(), Budget(2, 0.0, 3.0)
    m.configure({"a": budget, "b": budget}, {"gate": "a", "yard": "b"})
    first = await m.acquire("gate", "a", Holder("live", "film"))
    second = await m.acquire("yard", "b", Holder("live", "film"))
    m.configure({"nvr": budget}, {"gate": "nvr", "yard": "nvr"})
    assert m.try_acquire("gate", "nvr", HOLDER) is None
    m.configure({"nvr": budget, "b": budget}, {"gate": "nvr", "yard": "b"})
    assert {d.device: len(d.held) for d in m.statistics() if d.held} == {
        "a": 1,
        "b": 1,
        "nvr": 2,
    }
    second.ended(SessionEnd.UNCLEAN)
    second.release()
    m.configure({"nvr": budget}, {"gate": "nvr", "yard": "nvr"})
    (device,) = (d for d in m.statistics() if d.device == "nvr")
    assert (len(device.held), device.cooling) == (1, 1)
    first.release()


async def test_a_reload_that_gives_more_wakes_who_waits() -> None:
    m = RtspManager()
    m.configure({"d": Budget(1)}, {"gate": "d"})
    held = await m.acquire("gate", "d", HOLDER)
    waiting = asyncio.create_task(m.acquire("gate", "d", HOLDER, lease_wait_s=60.0))
    await asyncio.sleep(1)
    m.configure({"d": Budget(2)}, {"gate": "d"})
    with await waiting as lease:
        assert lease.wait_s == pytest.approx(1.0, abs=0.01)
    held.release()


async def test_a_device_renamed_while_nobody_looked_keeps_its_sessions() -> None:
    """The journal knows them by camera.

    One that was only observed is taken over when it is seen again.
    """
    left = state_of(
        8,
        [
            SessionEntry("old", 7, external=True, camera="gate"),
            SessionEntry("old", 8, external=True, camera="gate", observed=True),
        ],
        {},
        0.0,
    ).on({"gate": "new"})
    m = RtspManager()
    m.configure({"new": Budget(2, 0.0, 4.0)}, {"gate": "new"})
    m.restore(left)
    assert m.try_acquire("gate", "new", HOLDER) is None
    seen = m.observe("gate", "new", Holder("live", "go2rtc gate"))
    again = m.claim("gate", "new", Holder("live", "film"), Claim(7), priority=Priority.LIVE)
    assert again is not None
    (device,) = m.statistics()
    assert (len(device.held), device.cooling) == (2, 0)
    for lease in (seen, again):
        lease.release()


async def test_a_session_of_a_camera_that_is_away_for_a_while_is_not_forgotten() -> None:
    m = RtspManager()
    m.configure({})
    m.restore(state_of(7, [SessionEntry("d", 7, external=True)], {}, 0.0))
    await asyncio.sleep(100)
    m.configure({"d": Budget(1, 0.0, 4.0)})
    assert m.try_acquire("gate", "d", HOLDER) is None
    lease = m.claim("gate", "d", Holder("live", "film"), Claim(7), priority=Priority.LIVE)
    assert lease is not None
    assert m.sessions == 1
    lease.release()


async def test_what_was_left_by_an_earlier_process(tmp_path: Path) -> None:
    """Ours cool down, another's waits for its claim, what was learned is kept."""
    path, wall = tmp_path / "leases.json", [1000.0]
    for life in range(3):
        file = LeaseJournal(path)
        m = RtspManager(journal=file, wall=lambda: wall[0])
        m.configure({"d": Budget(3, 0.0, 4.0), "other": Budget()})
        m.restore(load(path))
        if life == 0:
            live = await m.acquire("gate", "d", FILM)
            poll = await m.acquire("gate", "d", HOLDER)
            poll.refused(certain=True)
            claim = Claim.parse(live.claim)
            live.abandon()  # killed: nobody says anything
            poll.abandon()
            continue
        device = next(d for d in m.statistics() if d.device == "d")
        assert device.learned is not None
        assert device.learned.cap == 1
        assert device.cooling == 2
        for _ in range(700):  # the journal is written anew meanwhile
            with await m.acquire("x", "other", HOLDER) as lease:
                lease.ended(SessionEnd.NONE)
        assert path.read_text().count("\n") < 1100
        with path.open("a") as torn:
            torn.write('{"is": "session", "devi')
        wall[0] += 1
        if life < 2:
            file.close()
    other, guessed = replace(FILM, uid=1001), Claim(claim.generation, "guessed")
    assert m.claim("gate", "d", other, claim, priority=Priority.LIVE) is None
    for wrong in (guessed, Claim(claim.generation)):
        assert m.claim("gate", "d", FILM, wrong, priority=Priority.LIVE) is None
    again = m.claim("gate", "d", FILM, claim, priority=Priority.LIVE)
    assert again is not None
    assert m.claim("gate", "d", FILM, claim, priority=Priority.LIVE) is None
    assert again.generation > claim.generation
    assert claim.secret not in path.read_text()
    again.release()
    file.close()


async def test_a_program_of_an_earlier_version_keeps_its_lease(tmp_path: Path) -> None:
    """It claims by the generation, over several restarts, as the same user only."""
    path, old = tmp_path / "leases", Holder("live", "film", uid=1000)
    generation = ""
    for _ in range(3):
        file = LeaseJournal(path)
        m = RtspManager(journal=file)
        m.configure({"d": Budget(1, 0.0, 4.0)})
        m.restore(load(path))
        if generation:
            other = replace(old, uid=1001)
            claim = Claim.parse(generation)
            assert m.claim("gate", "d", other, claim, priority=Priority.LIVE) is None
            lease = m.claim("gate", "d", old, claim, priority=Priority.LIVE)
        else:
            lease = await m.acquire("gate", "d", old)
        assert lease is not None
        generation = lease.claim
        assert generation == str(lease.generation)
        lease.abandon()
        file.close()
    assert "secret" not in repr(Claim(7, "secret"))
