"""SnapshotService on fakes: which sources are tried, when the lease ends, what the failure says.

The same on real sessions: test_faults.py, test_http_source.py, test_go2rtc.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from support import camera

from camserver.errors import CameraError
from camserver.leases import Budget, Holder, Priority, RtspManager
from camserver.model import Attempt, CodedKeyframe, Result, SessionEnd, Source, Still
from camserver.snapshots.service import SnapshotService

POLLER = Holder("poller", "gate")
JPEG, CODED = b"\xff\xd8\xff\xd9", b"coded"


@dataclass
class FakeSession:
    """Opens for a second, then gives a keyframe or fails, and takes a second to end."""

    source: FakeSource
    end: SessionEnd = SessionEnd.NONE

    async def __aenter__(self) -> FakeSession:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self.source.told.append("preempted" if kind is not None else "ending")
        await asyncio.sleep(1.0)
        self.end = SessionEnd.CLEAN
        self.source.told.append("closed")

    async def keyframe(self) -> CodedKeyframe:
        self.source.told.append("open")
        await asyncio.sleep(self.source.opens_s)
        if self.source.error is not None:
            raise self.source.error
        return CodedKeyframe("h264", CODED, b"", datetime.now(UTC), "native")


@dataclass
class FakeSource:
    kind: Source = Source.RTSP
    device: str | None = "gate"
    error: CameraError | None = None
    opens_s: float = 1.0
    told: list[str] = field(default_factory=list)
    share_s: float = 0.0

    def session(self, deadline: float) -> FakeSession:
        self.share_s = deadline - asyncio.get_running_loop().time()
        return FakeSession(self)

    def decoded(self, unit: CodedKeyframe) -> None:
        assert unit.data == CODED
        self.told.append("decoded")

    def undecodable(self, unit: CodedKeyframe, error: CameraError) -> None:
        assert unit.data == CODED
        self.told.append(f"undecodable: {error}")

    def failed(self, error: CameraError) -> None:
        self.told.append(f"failed: {error}")


class FakeSources(list[FakeSource]):
    live: FakeSource | None = None

    async def of(self, _: object) -> list[Any]:
        return list(self)

    async def live_view(self, _: object) -> Any:
        return self.live


@dataclass
class FakeDecoder:
    error: CameraError | None = None

    async def decode(self, unit: CodedKeyframe, **_: object) -> Still:
        if self.error is not None:
            raise self.error
        return Still(JPEG, 2, 2, unit.codec)


class Taking:
    """A service on fakes, and the manager whose leases it takes."""

    def __init__(self, *sources: FakeSource, decoder: FakeDecoder | None = None) -> None:
        self.manager = RtspManager()
        self.manager.configure({"gate": Budget(1, 0.0, 5.0)})
        self.sources = FakeSources(sources)
        fake: Any = decoder or FakeDecoder()
        self.service = SnapshotService(self.manager, self.sources, fake)
        self.camera = camera("gate", timeout_s=10.0, lease_wait_s=2.0)

    async def take(self, **keys: Any) -> Attempt:
        return await self.service.take(self.camera, POLLER, **keys)

    @property
    def held(self) -> int:
        return len(self.manager.device_statistics("gate").held)


async def test_the_picture_is_delivered_before_the_session_has_ended() -> None:
    """And the lease is held until it has: the lease covers the session and nothing else."""
    source = FakeSource()
    taking = Taking(source)
    seen: list[tuple[list[str], int]] = []

    async def deliver(attempt: Attempt) -> Attempt:
        seen.append((list(source.told), taking.held))
        return attempt

    attempt = await taking.take(deliver=deliver)
    assert attempt.ok
    assert seen == [(["open", "ending", "decoded"], 1)]
    assert (source.told[-1], taking.held) == ("closed", 0)
    assert taking.manager.device_statistics("gate").cooling == 0  # the end was clean


async def test_a_picture_that_cannot_be_decoded_does_not_hurry_the_sessions_end() -> None:
    source = FakeSource()
    broken = CameraError(Result.BAD_PICTURE, "torn", SessionEnd.NONE)
    taking = Taking(source, decoder=FakeDecoder(broken))
    attempt = await taking.take()
    assert (attempt.result, attempt.error) == (
        Result.BAD_PICTURE,
        "gate: rtsp: torn (after 2.0 s, limit 10 s)",
    )
    assert source.told == ["open", "ending", "undecodable: torn", "closed", "failed: torn"]


@pytest.mark.parametrize(
    ("result", "tried"),
    [
        (Result.NO_KEYFRAME, [Source.RTSP, Source.RTSP_SUB, Source.HTTP]),
        (Result.FULL, [Source.RTSP, Source.HTTP]),
        (Result.UNREACHABLE, [Source.RTSP, Source.HTTP]),
        (Result.OVERLOADED, [Source.RTSP]),
        (Result.AUTH, [Source.RTSP, Source.RTSP_SUB, Source.HTTP]),  # no login was sent
    ],
)
async def test_which_sources_are_tried_after_a_failure(result: Result, tried: list[Source]) -> None:
    """The camera's own word decides; a wrong password is wrong everywhere."""
    sources = [
        FakeSource(
            kind,
            None if kind is Source.HTTP else "gate",
            CameraError(result, f"{kind} says so"),
        )
        for kind in (Source.RTSP, Source.RTSP_SUB, Source.HTTP)
    ]
    attempt = await Taking(*sources).take()
    assert [source.kind for source in sources if source.told] == tried
    assert attempt.result is result
    assert (attempt.error or "").count("says so") == len(tried)


async def test_a_refused_login_is_not_sent_by_another_source_whatever_it_is_taken_for() -> None:
    """Rule two: the sub-stream's login would be the second of this poll."""
    error = CameraError(Result.FULL, "taken as full", status=401, login_refused=True)
    first, second = FakeSource(error=error), FakeSource(Source.HTTP, device=None)
    assert not (await Taking(first, second).take()).ok
    assert second.told == []


async def test_live_view_preempts_a_poll_until_its_keyframe_is_there() -> None:
    """Before: the session ends at once. After: it is ending anyway, and the picture stays."""
    for asked_after_s, result in ((0.5, Result.BUSY), (1.5, Result.OK)):
        source = FakeSource()
        taking = Taking(source)
        poll = asyncio.create_task(taking.take())
        await asyncio.sleep(asked_after_s)
        with await taking.manager.acquire(
            "gate", "gate", Holder("live"), priority=Priority.LIVE
        ) as live:
            live.ended(SessionEnd.NONE)
            assert source.told[-1] != "open", "live got its lease before the session's end"
        attempt = await poll
        assert attempt.result is result
        assert ("preempted" in source.told) == (result is Result.BUSY)


async def test_a_busy_device_is_seen_through_who_watches_it_live() -> None:
    """Live view has the session: its picture costs the camera nothing."""
    main, live = FakeSource(), FakeSource(Source.GO2RTC, device=None)
    taking = Taking(main)
    taking.sources.live = live
    with await taking.manager.acquire("gate", "gate", Holder("live")) as held:
        attempt = await taking.take()
        held.ended(SessionEnd.NONE)
    assert attempt.ok
    assert attempt.snapshot is not None
    assert attempt.snapshot.source is Source.GO2RTC
    assert main.told == []


async def test_a_preempted_poll_takes_its_picture_from_who_watches_live() -> None:
    """Its own session ends for them; go2rtc shows the camera by then."""
    main, live = FakeSource(), FakeSource(Source.GO2RTC, device=None)
    taking = Taking(main)
    taking.sources.live = live
    poll = asyncio.create_task(taking.take())
    await asyncio.sleep(0.5)
    with await taking.manager.acquire("gate", "gate", Holder("live"), priority=Priority.LIVE) as it:
        it.ended(SessionEnd.NONE)
        attempt = await poll
    assert attempt.ok
    assert attempt.snapshot is not None
    assert attempt.snapshot.source is Source.GO2RTC
    assert not any(word.startswith("failed") for word in main.told)


async def test_a_busy_device_says_who_has_it() -> None:
    taking = Taking(FakeSource(), FakeSource(Source.RTSP_SUB))
    with await taking.manager.acquire("gate", "gate", Holder("live", "film")) as held:
        attempt = await taking.take()
        held.ended(SessionEnd.NONE)
    assert attempt.result is Result.BUSY
    assert (attempt.error or "").startswith("gate: no session of gate came free in 2 s")
    assert (attempt.error or "").count("held by live film") == 1


async def test_each_source_has_its_share_of_the_time() -> None:
    """The last one has all that is left, and none is begun with less than half a second."""
    late = CameraError(Result.NO_KEYFRAME, "late")
    taking = Taking(
        FakeSource(error=late, opens_s=8.7),
        FakeSource(Source.HTTP, device=None, error=late),
    )
    attempt = await taking.take()
    # 8.7 s and one for its end: 0.3 s are left of 10
    assert attempt.error == "gate: rtsp: late (after 9.7 s, limit 10 s)"
    assert taking.sources[1].told == []
    taking = Taking(FakeSource(error=late), FakeSource(Source.HTTP, device=None))
    assert (await taking.take()).ok
    assert [source.share_s for source in taking.sources] == [5.0, pytest.approx(8.0)]


async def test_a_cancelled_poll_ends_its_session_and_its_lease_first() -> None:
    for after_s in (0.5, 1.5):
        source = FakeSource()
        taking = Taking(source)
        poll = asyncio.create_task(taking.take())
        await asyncio.sleep(after_s)
        poll.cancel()
        await asyncio.wait({poll})
        assert poll.cancelled()
        assert taking.held == 0
