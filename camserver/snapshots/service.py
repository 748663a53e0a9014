"""SnapshotService: takes one picture of one camera, from its sources in order, under a lease.

It knows no schedule and no disk.

The lease covers only the session. It is released when the session's transport is proven closed (or
when the worker that held the session is dead). Decoding and delivery begin when the
keyframe is complete, and run while the session ends. A distant camera answers TEARDOWN late, and
the picture does not need to wait for that.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from camserver.capture.decoder import Decoder
from camserver.config import Camera
from camserver.errors import CameraError, LeaseStateError, RtspBusy
from camserver.health import PictureHealth
from camserver.host.clock import WallClock, utc_now
from camserver.host.tasks import child_task
from camserver.leases import Holder, Preempted, Priority, RtspLease, RtspManager
from camserver.model import (
    Attempt,
    CodedKeyframe,
    Phases,
    References,
    Result,
    Snapshot,
    Source,
    Still,
)
from camserver.rtsp.refusals import reinterpret_as_full
from camserver.snapshots.failures import SourceFailure, failed_attempt, may_help
from camserver.snapshots.sources import PictureSource

MIN_SHARE_S = 0.5
"""A source is not tried when less time than this is left."""

Deliver = Callable[[Attempt], Awaitable[Attempt]]
"""Stores or publishes the outcome, and may return a worse one (a full disk)."""


class SourcesOf(Protocol):
    """The interface of `Sources`, which a test may replace by a fake."""

    async def of(self, camera: Camera) -> list[PictureSource]:
        """The sources of a camera, in the order in which they are tried."""

    async def live_view(self, camera: Camera) -> PictureSource | None:
        """A source that needs no lease because live view is running, or None."""


async def keep(attempt: Attempt) -> Attempt:
    """Deliver only to the caller of `take`."""
    return attempt


@dataclass(slots=True)
class _Shot:
    """One call of `take`: its arguments, and the time it has used.

    Moments are in seconds of the event loop's clock.
    """

    camera: Camera
    holder: Holder
    priority: Priority
    at: datetime
    deliver: Deliver
    deadline: float | None = None  # runs from the first lease, or the first try without one
    started: float = 0.0
    lease_wait_s: float = 0.0

    def begin(self) -> float:
        """The deadline of the whole attempt. The first call sets it."""
        if self.deadline is None:
            self.started = _now()
            self.deadline = self.started + self.camera.timeout_s
        return self.deadline

    def share(self, sources_left: int) -> float:
        """The deadline of one source: half of the time that is left if other sources follow."""
        return _now() + (self.begin() - _now()) / min(sources_left, 2)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, or infinity before the deadline is set."""
        return math.inf if self.deadline is None else self.deadline - _now()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the deadline was set, or 0 before that."""
        return 0.0 if self.deadline is None else _now() - self.started

    @property
    def lease_wait_limit_s(self) -> float:
        """The longest wait for a lease. A later source must also keep the deadline already set."""
        return min(self.camera.lease_wait_s, self.left_s)


class SnapshotService:
    """Takes pictures. `take` never raises because of a camera."""

    def __init__(
        self,
        manager: RtspManager,
        sources: SourcesOf,
        decoder: Decoder,
        *,
        health: PictureHealth | None = None,
        clock: WallClock = utc_now,
    ) -> None:
        """Without `health` pictures are measured, but not judged."""
        self._manager = manager
        self._sources = sources
        self._decoder = decoder
        self._health = health
        self._clock = clock

    async def take(
        self,
        camera: Camera,
        holder: Holder,
        priority: Priority = Priority.POLL,
        *,
        deliver: Deliver = keep,
    ) -> Attempt:
        """Try every source that may help, within the camera's timeout.

        `deliver` gets the outcome as soon as it is known. `take` returns only after the session is
        closed, too.
        """
        shot = _Shot(camera, holder, priority, self._clock(), deliver)
        failures: list[SourceFailure] = []
        sources = deque(await self._sources.of(camera))
        known = {(source.kind, source.device) for source in sources}
        while sources and shot.left_s >= MIN_SHARE_S:
            source = sources.popleft()
            if not may_help(source.kind, failures):
                continue
            try:
                return await self._take_from(source, shot, 1 + len(sources))
            except RtspBusy as busy:
                failures.append(SourceFailure.of_busy(busy, source.kind))
                live = await self._sources.live_view(camera)
                if live is not None and (live.kind, live.device) not in known:
                    sources.append(live)
                    known.add((live.kind, live.device))
            except CameraError as error:
                failures.append(SourceFailure(source.kind, error, shot.elapsed_s, camera.timeout_s))
                source.failed(error)
        return await deliver(failed_attempt(camera.id, shot.at, failures))

    async def _take_from(self, source: PictureSource, shot: _Shot, sources_left: int) -> Attempt:
        """Take a picture from one source. Raises CameraError, RtspBusy."""
        async with AsyncExitStack() as tasks:
            async with self._keyframe(source, shot, sources_left) as unit:
                developing = await tasks.enter_async_context(
                    child_task(self._develop(unit, source, shot), f"develop {shot.camera.id}")
                )
            return await developing

    @asynccontextmanager
    async def _keyframe(
        self, source: PictureSource, shot: _Shot, sources_left: int
    ) -> AsyncIterator[CodedKeyframe]:
        """Open a session and give its first complete keyframe. The block's end closes the session.

        Raises CameraError, RtspBusy.
        """
        if source.device is None:
            async with source.session(shot.share(sources_left)) as session:
                yield await session.keyframe()
            return
        with await self._acquire(shot, source.device) as lease:
            shot.lease_wait_s += lease.wait_s
            session = source.session(shot.share(sources_left))
            try:
                async with lease.cover(session):
                    async with lease.preemptible():
                        unit = await session.keyframe()
                    # Outside of `preemptible`: the session ends now anyway
                    yield unit
            except Preempted as preempted:
                raise RtspBusy(f"preempted: {preempted.why}", camera=shot.camera.id) from None
            except CameraError as error:
                meant = reinterpret_as_full(error, session.end, lease.other_sessions)
                if meant.result is Result.FULL:
                    lease.refused(certain=meant is error)
                raise meant from None

    async def _acquire(self, shot: _Shot, device: str) -> RtspLease:
        """Acquire a lease of a device for the attempt. Raises RtspBusy."""
        camera = shot.camera
        try:
            return await self._manager.acquire(
                camera.id,
                device,
                shot.holder,
                priority=shot.priority,
                lease_wait_s=shot.lease_wait_limit_s,
            )
        except LeaseStateError:
            raise RtspBusy("its device has just left the inventory", camera=camera.id) from None

    async def _develop(self, unit: CodedKeyframe, source: PictureSource, shot: _Shot) -> Attempt:
        """Decode the keyframe and deliver the picture. Raises CameraError."""
        camera = shot.camera
        try:
            still = await self._decoder.decode(
                unit,
                width=camera.width,
                deadline=shot.begin(),
                references=await self._references(camera),
            )
        except CameraError as error:
            source.undecodable(unit, error)
            raise
        source.decoded(unit)
        snapshot = _snapshot(shot, still, source.kind, unit)
        if self._health is not None:
            snapshot = replace(snapshot, health=self._health.judge(camera.id, still, unit))
        return await shot.deliver(Attempt(camera.id, shot.at, Result.OK, None, snapshot))

    async def _references(self, camera: Camera) -> References | None:
        return References() if self._health is None else await self._health.references(camera.id)


def _snapshot(shot: _Shot, still: Still, source: Source, unit: CodedKeyframe) -> Snapshot:
    return Snapshot(
        camera=shot.camera.id,
        name=shot.camera.name,
        still=still,
        source=source,
        engine=unit.engine or None,
        captured_at=unit.captured_at,
        capture_ms=shot.elapsed_s * 1000,
        lease_wait_ms=shot.lease_wait_s * 1000,
        camera_clock_offset_s=unit.camera_clock_offset_s,
        phases=Phases(
            shot.lease_wait_s,
            unit.open_s,
            unit.keyframe_s,
            still.decode_s,
            still.encode_s,
            None,
            still.cpu_s,
        ),
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
