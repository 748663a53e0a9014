"""What leases survive: the daemon's death, a camera that is away for a while, a device that gets another name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support import run_virtual

from camserver.errors import RtspBusy
from camserver.leases import Budget, Holder, Priority, RtspManager
from camserver.leases.state import Remembered, State, StateFile, load
from camserver.records import SessionEnd

HOLDER = Holder("poller", "gate")


def test_a_box_with_a_new_name_is_still_the_same_box() -> None:
    """A reload renames a device: the session that is open, and the cool-down after it, count under the new name, too."""
    async def work() -> None:
        m = RtspManager()
        m.configure({"d": Budget(1, 0.0, 3.0)})
        held = await m.acquire("gate", "d", Holder("live", "film"), priority=Priority.LIVE)
        m.configure({"yard": Budget(1, 0.0, 3.0)}, {"yard": "d"})
        with pytest.raises(RtspBusy):
            await m.acquire("gate", "yard", HOLDER, lease_wait_s=1.0)
        held.release()
        with await m.acquire("gate", "yard", HOLDER, lease_wait_s=5.0) as lease:
            assert lease.wait_s == pytest.approx(3.0, abs=0.01)

    run_virtual(work)


def test_a_session_of_a_camera_that_is_away_for_a_while_is_not_forgotten() -> None:
    async def work() -> None:
        m = RtspManager()
        m.configure({})
        m.restore(State(7, {7: Remembered("d", 7, external=True)}), lambda _: 4.0)
        await asyncio.sleep(100)
        m.configure({"d": Budget(1, 0.0, 4.0)})
        assert m.try_acquire("gate", "d", HOLDER) is None
        lease = m.claim("gate", "d", Holder("live", "film"), 7, priority=Priority.LIVE)
        assert lease is not None
        lease.release()

    run_virtual(work)


def test_what_was_left_by_an_earlier_process(tmp_path: Path) -> None:
    """Ours cool down, another's waits for its claim however often we die meanwhile, what was learned is kept."""
    async def work() -> None:
        path, wall = tmp_path / "leases.json", [1000.0]
        for life in range(3):
            m = RtspManager(file := StateFile(path, lambda _, end: 4.0 if end == "unclean" else 0.0, lambda: wall[0]))
            m.configure({"d": Budget(3, 0.0, 4.0), "other": Budget()})
            state = load(path)
            file.take_over(state, lambda _: 4.0)
            m.restore(state, lambda _: 4.0, lambda: wall[0])
            if life == 0:
                live = await m.acquire("gate", "d", Holder("live", "film"))
                poll = await m.acquire("gate", "d", HOLDER)
                poll.refused(certain=True)
                generation = live.generation
                live.abandon()      # killed: nobody says anything
                poll.abandon()
                continue
            device = next(d for d in m.statistics() if d.device == "d")
            assert device.learned is not None
            assert device.learned.cap == 1
            assert device.cooling == 2
            for _ in range(700):        # the journal is written anew meanwhile
                with await m.acquire("x", "other", HOLDER) as lease:
                    lease.ended(SessionEnd.NONE)
            assert path.read_text().count("\n") < 1100
            with path.open("a") as torn:
                torn.write('{"is": "session", "devi')
            wall[0] += 1
            if life < 2:
                file.close()
        again = m.claim("gate", "d", Holder("live", "film"), generation, priority=Priority.LIVE)
        assert again is not None
        assert m.claim("gate", "d", Holder("live", "film"), generation, priority=Priority.LIVE) is None
        assert again.generation > generation
        again.release()
        file.close()

    run_virtual(work)
