"""The manager of leases: waiting, preempting, cooling down, and every race that was thought of."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest
from support import VirtualLoop

from camserver.errors import RtspBusy
from camserver.leases import Budget, Holder, Preempted, Priority, RtspManager
from camserver.leases.journal import state_of
from camserver.leases.ticket import Claim, SessionEntry
from camserver.model import SessionEnd

HOLDER = Holder("poller", "gate")


async def test_an_observed_session_counts_and_asks_polls_to_give_way() -> None:
    """Somebody opened a session without asking.

    The poll beside it is one too many, and nobody else gets one.
    """
    m = manager()
    with await m.acquire("gate", "d", HOLDER) as poll:
        seen = m.observe("gate", "d", Holder("live", "go2rtc gate"))
        await poll.preempted()
        assert len(m.statistics()[0].held) == m.sessions == 2
    with pytest.raises(RtspBusy, match="held by live go2rtc gate"):
        await m.acquire("gate", "d", HOLDER, lease_wait_s=1.0)
    assert m.sessions == 1
    seen.release()
    assert m.sessions == 0
    with await m.acquire("gate", "d", HOLDER):
        pass


async def test_polling_does_not_starve_beside_live_views_that_never_stop() -> None:
    """Three clients take turns without a pause.

    A poll gives up after 5 s and comes again, and still gets its picture.
    """
    m = manager()
    over = asyncio.get_running_loop().time() + 300

    async def live() -> None:
        while asyncio.get_running_loop().time() < over:
            with await m.acquire(
                "gate", "d", Holder("live", "view"), priority=Priority.LIVE, lease_wait_s=60
            ):
                await asyncio.sleep(0.3)

    async def polls() -> list[float]:
        pictures = []
        while asyncio.get_running_loop().time() < over:
            try:
                with await m.acquire("gate", "d", HOLDER) as lease:
                    # Who has waited so long is not pushed away: no Preempted
                    async with lease.preemptible():
                        await asyncio.sleep(1.0)
                    pictures.append(asyncio.get_running_loop().time())
            except RtspBusy:
                await asyncio.sleep(5)
        return pictures

    *_, pictures = await asyncio.gather(live(), live(), live(), polls())
    assert len(pictures) > 8


async def test_a_preempted_lease_goes_on_until_it_is_released() -> None:
    """Being asked frees nothing: only the proven end of the session does."""
    m = manager()
    poll = await m.acquire("gate", "d", HOLDER)
    live = asyncio.create_task(
        m.acquire("gate", "d", Holder("live"), priority=Priority.LIVE, lease_wait_s=60.0)
    )
    with pytest.raises(Preempted):
        async with poll.preemptible():
            await asyncio.sleep(60)
    with pytest.raises(Preempted):  # asked before the block began
        async with poll.preemptible():
            await asyncio.sleep(60)
    await asyncio.sleep(30)
    assert not live.done()
    poll.release()
    (await live).release()


async def test_a_lease_covers_a_session_until_it_has_ended() -> None:
    """The session itself says how it ended, also when its block fails."""

    class Session:
        end = SessionEnd.UNCLEAN

        async def __aenter__(self) -> Session:
            return self

        async def __aexit__(self, *_: object) -> None:
            await asyncio.sleep(1.0)
            self.end = SessionEnd.CLEAN

    m = manager(cooldown_s=0.5, unclean_cooldown_s=4.0)
    with contextlib.suppress(ValueError), await m.acquire("gate", "d", HOLDER) as lease:
        async with lease.cover(Session()):
            assert len(m.statistics()[0].held) == 1
            raise ValueError
    with await m.acquire("gate", "d", HOLDER) as lease:
        assert lease.wait_s == pytest.approx(0.5, abs=1e-3)


def manager(**budget: float) -> RtspManager:
    m = RtspManager()
    m.configure(
        {"d": Budget(**{"max_sessions": 1, "cooldown_s": 0.0, "unclean_cooldown_s": 0.0} | budget)}
    )  # type: ignore[arg-type]
    return m


async def test_busy_names_the_holder_and_the_wait() -> None:
    """A caller that gets nothing within lease_wait is told who has it."""
    m = manager()
    with await m.acquire("gate", "d", HOLDER):
        with pytest.raises(
            RtspBusy,
            match=r"gate: no session of d came free in 5 s .*held by poller gate for 5\.0 s",
        ):
            await m.acquire("gate", "d", Holder("snapshot"))
        assert m.try_acquire("gate", "d", HOLDER) is None
    assert m.statistics()[0].busy == 2
    lease = m.try_acquire("gate", "d", HOLDER)
    assert lease is not None
    lease.release()
    lease.release()  # idempotent for its holder


@pytest.mark.parametrize(
    ("end", "wait_s"), [(SessionEnd.NONE, 0.0), (SessionEnd.CLEAN, 1.0), (SessionEnd.UNCLEAN, 4.0)]
)
async def test_cool_down_follows_the_end(end: SessionEnd, wait_s: float) -> None:
    """After a session the device is left alone for as long as its end demands, and not longer."""
    m = manager(cooldown_s=1.0, unclean_cooldown_s=4.0)
    with await m.acquire("gate", "d", HOLDER) as lease:
        lease.ended(end)
    with await m.acquire("gate", "d", HOLDER, lease_wait_s=10) as lease:
        assert lease.wait_s == pytest.approx(wait_s, abs=1e-3)
        assert lease.generation == 2


async def test_a_cancelled_waiter_passes_its_offer_on() -> None:
    """Cancelled in the same instant in which the slot was offered: the next waiter gets it."""
    m = manager()
    held = await m.acquire("a", "d", HOLDER)
    first = asyncio.create_task(m.acquire("b", "d", HOLDER))
    second = asyncio.create_task(m.acquire("c", "d", HOLDER))
    await asyncio.sleep(0)
    held.release()  # offers to `first` ...
    first.cancel()  # ... which is cancelled before it could run
    with pytest.raises(asyncio.CancelledError):
        await first
    (await second).release()
    assert m.statistics()[0].waiting == 0


async def test_a_request_that_overtakes_the_timer_wakes_who_waits() -> None:
    """A busy loop comes late to the end of a cool-down.

    A new request finds the slot free and must not keep it secret.
    """
    m = manager(cooldown_s=0.25)
    with await m.acquire("a", "d", HOLDER) as lease:
        lease.ended(SessionEnd.CLEAN)
    waiting = asyncio.create_task(m.acquire("b", "d", HOLDER))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now += 0.3  # the loop was busy: the timer is due and has not run
    assert m.try_acquire("c", "d", HOLDER) is None
    with await waiting as lease:
        assert lease.wait_s == pytest.approx(0.3)


async def test_an_offer_in_the_instant_of_the_timeout_is_not_lost() -> None:
    """The slot comes free at the very moment the wait ends: somebody holds it afterwards."""
    m = manager()
    held = await m.acquire("a", "d", HOLDER)
    asyncio.get_running_loop().call_later(5.0, held.release)
    outcomes = await asyncio.gather(
        m.acquire("b", "d", HOLDER, lease_wait_s=5.0),
        m.acquire("c", "d", HOLDER, lease_wait_s=5.0),
        return_exceptions=True,
    )
    for outcome in outcomes:
        if not isinstance(outcome, BaseException):
            outcome.release()
    free = m.try_acquire("x", "d", HOLDER)
    assert free is not None, "the slot was lost"
    free.release()


async def test_a_dropped_lease_warns_and_heals() -> None:
    """A lease nobody released is a bug that shows; it costs the device a long cool-down."""
    m = manager(unclean_cooldown_s=3.0)

    async def drop() -> None:
        await m.acquire("gate", "d", HOLDER)
        gc.collect()

    with pytest.warns(ResourceWarning, match="lease of d for poller gate was dropped"):
        await drop()
    with await m.acquire("gate", "d", HOLDER):
        pass


async def test_a_claimed_lease_is_preempted_by_live_that_came_before_the_claim() -> None:
    """After a restart: the recorder still has its session, and is told that live wants it."""
    m = manager()
    m.restore(state_of(7, [SessionEntry("d", 7, external=True)], {}, 0.0))
    live = asyncio.create_task(
        m.acquire("gate", "d", Holder("live"), priority=Priority.LIVE, lease_wait_s=60.0)
    )
    await asyncio.sleep(1)
    claimed = m.claim("gate", "d", Holder("external", "film"), Claim(7), priority=Priority.POLL)
    assert claimed is not None
    await claimed.preempted()
    claimed.release()
    (await live).release()
