"""SnapshotService: one picture of one camera, from the sources in their order, under a lease.

Knows no schedule, no disk.

Sources: go2rtc, when it shows the camera live (no session of ours); the main stream, the
sub-stream, the snapshot URL. The lease covers the session and nothing else: it is left when the
engine has proven the transport closed (or the worker that held it is dead and reaped). Decoding and
delivering begin when the picture is whole and go on beside the session's end: a camera far away
answers TEARDOWN late, and the picture need not wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from camserver.capture.decoder import Decoder
from camserver.capture.engines import Engines
from camserver.capture.http import HttpSource
from camserver.config import Camera
from camserver.errors import CameraError, LeaseStateError, RtspBusy
from camserver.go2rtc.watcher import Go2rtc, Restream
from camserver.host.clock import WallClock, utc_now
from camserver.host.tasks import finish
from camserver.leases import Holder, Priority, RtspLease, RtspManager
from camserver.model import (
    AccessUnit,
    Attempt,
    Phases,
    Result,
    SessionEnd,
    Snapshot,
    Source,
    Still,
)
from camserver.rtsp.refusals import reinterpret_as_full

MIN_SHARE_S = 0.5
"""A source is not begun with less time than this."""

Deliver = Callable[[Attempt], Awaitable[Attempt]]
"""Takes the outcome where it belongs, and may make it a worse one (a full disk)."""


async def keep(attempt: Attempt) -> Attempt:
    """Deliver to nobody but the caller."""
    return attempt


@dataclass(slots=True)
class _AttemptState:
    """What one attempt has used so far; moments by the event loop's clock."""

    camera: Camera
    at: datetime
    deliver: Deliver
    deadline: float | None = None  # runs from the first lease (or the first try without one)
    started: float = 0.0
    lease_wait_s: float = 0.0

    def begin(self) -> float:
        """The deadline of the whole shot; the first call sets it."""
        if self.deadline is None:
            self.started = _now()
            self.deadline = self.started + self.camera.timeout_s
        return self.deadline


@dataclass(frozen=True, slots=True)
class _SourceAttempt:
    """One source, and how many there are from it on."""

    source: Source
    url: str
    restream: Restream | None
    sources_left: int

    def viewer(self, camera: Camera) -> Camera:
        """The camera as the engine has to see it: go2rtc has a login of its own."""
        if self.restream is None:
            return camera
        return replace(
            camera,
            username=self.restream.username,
            password=self.restream.password,
            transport="tcp",
            engine="native",
        )

    def share(self, deadline: float) -> float:
        """When to give up: a later source needs time, too."""
        return _now() + (deadline - _now()) / min(self.sources_left, 2)


class SnapshotService:
    """Takes pictures; `take` never raises for a camera's sake."""

    def __init__(
        self,
        manager: RtspManager,
        engines: Engines,
        http: HttpSource,
        decoder: Decoder,
        go2rtc: Go2rtc | None = None,
        clock: WallClock = utc_now,
    ) -> None:
        self._manager = manager
        self._go2rtc = go2rtc
        self._engines = engines
        self._http = http
        self._decoder = decoder
        self._clock = clock

    async def take(
        self,
        camera: Camera,
        holder: Holder,
        priority: Priority = Priority.POLL,
        *,
        deliver: Deliver = keep,
    ) -> Attempt:
        """One attempt at a picture, with every source that may help, within the camera's timeout.

        `deliver` gets the outcome as soon as it is known; this comes back when the session is
        closed, too.
        """
        shot = _AttemptState(camera, self._clock(), deliver)
        restream = None if self._go2rtc is None else await self._go2rtc.restream(camera)
        sources = _sources(camera, restream)
        errors: list[tuple[Source, Result, str]] = []
        # A wrong password is tried once a poll, whatever it is taken for
        login_refused = False
        for position, (source, url) in enumerate(sources):
            if login_refused or (errors and not _may_help(source, errors)):
                continue
            if shot.deadline is not None and shot.deadline - _now() < MIN_SHARE_S:
                break
            way = _SourceAttempt(
                source, url, restream if source is Source.GO2RTC else None, len(sources) - position
            )
            try:
                attempt = await self._from(way, shot, holder, priority)
            except RtspBusy as error:
                # Our own word, whatever the way
                errors.append((Source.RTSP, Result.BUSY, str(error)))
                if (
                    restream is None
                    and (restream := await self._live_meanwhile(camera)) is not None
                ):
                    sources.append((Source.GO2RTC, restream.url))
            except CameraError as error:
                login_refused |= error.login_refused and way.restream is None
                elapsed_s = _now() - shot.started if shot.deadline is not None else 0.0
                errors.append(
                    (
                        source,
                        error.result,
                        f"{camera.id}: {source}: {error} "
                        f"(after {elapsed_s:.1f} s, limit {camera.timeout_s:g} s)",
                    )
                )
                if way.restream is not None and self._go2rtc is not None:
                    self._go2rtc.failed(camera, str(error))
            else:
                if way.restream is not None and self._go2rtc is not None:
                    self._go2rtc.worked(camera)
                return attempt
        # What the camera itself said counts more than what go2rtc said.
        errors.sort(key=lambda error: error[0] is Source.GO2RTC)
        words = "; ".join(
            [errors[0][2], *(text.removeprefix(f"{camera.id}: ") for _, _, text in errors[1:])]
        )
        return await deliver(Attempt(camera.id, shot.at, errors[0][1], words))

    async def _live_meanwhile(self, camera: Camera) -> Restream | None:
        """Where the picture is when live view has the session and go2rtc shows it by now."""
        restream = None if self._go2rtc is None else await self._go2rtc.restream(camera)
        return None if restream is None or restream.needs_lease else restream

    async def _from(
        self, way: _SourceAttempt, shot: _AttemptState, holder: Holder, priority: Priority
    ) -> Attempt:
        if way.source is Source.HTTP:
            jpeg = await self._http.fetch(shot.camera, way.url, shot.begin())
            return await self._develop(AccessUnit("mjpeg", jpeg, b"", self._clock(), ""), way, shot)
        developing: asyncio.Task[Attempt] | None = None

        def seen(unit: AccessUnit) -> None:
            nonlocal developing
            developing = asyncio.create_task(
                self._develop(unit, way, shot), name=f"develop {shot.camera.id}"
            )

        try:
            if way.restream is not None:
                # It sends nothing without a DESCRIBE
                self._engines.forget(way.viewer(shot.camera), way.url)
            if way.restream is not None and not way.restream.needs_lease:
                await self._engines.fetch(
                    way.viewer(shot.camera), way.url, way.share(shot.begin()), _nobody, seen
                )
            else:
                await self._session(way, shot, holder, priority, seen)
        except BaseException:
            if developing is not None:
                developing.cancel()
                await finish(_ended(developing))
            raise
        # An engine that comes back without an error has shown a picture
        assert developing is not None  # noqa: S101
        return await developing

    async def _develop(self, unit: AccessUnit, way: _SourceAttempt, shot: _AttemptState) -> Attempt:
        """Decode and deliver. Raises CameraError."""
        camera, deadline = shot.camera, shot.begin()
        try:
            still = await self._decoder.decode(unit, width=camera.width, deadline=deadline)
        except CameraError as error:
            if way.source is not Source.HTTP:
                self._engines.undecodable(way.viewer(camera), way.url, unit, error)
            raise
        if way.source is not Source.HTTP:
            self._engines.decoded(way.viewer(camera), way.url, unit)
        return await shot.deliver(
            Attempt(
                camera.id, shot.at, Result.OK, None, self._snapshot(shot, still, way.source, unit)
            )
        )

    async def _session(
        self,
        way: _SourceAttempt,
        shot: _AttemptState,
        holder: Holder,
        priority: Priority,
        seen: Callable[[AccessUnit], None],
    ) -> None:
        """One session under a lease, from acquiring to proven closed.

        Raises CameraError, RtspBusy.
        """
        camera = shot.camera
        lease_wait_s = camera.lease_wait_s
        if shot.deadline is not None:  # a later source waits within the deadline that already runs
            lease_wait_s = min(lease_wait_s, shot.deadline - _now())
        try:
            lease = await self._manager.acquire(
                camera.id, camera.device, holder, priority=priority, lease_wait_s=lease_wait_s
            )
        except LeaseStateError:
            raise RtspBusy(f"{camera.id}: its device has just left the inventory") from None
        with lease:
            shot.lease_wait_s += lease.wait_s
            shown = False

            def show(unit: AccessUnit) -> None:
                nonlocal shown
                shown = True  # the session is ending anyway: nothing is won by giving way
                seen(unit)

            try:
                async with asyncio.timeout(None) as patience:

                    def preempt() -> None:
                        if not shown:
                            with contextlib.suppress(RuntimeError):  # it is just ending anyway
                                patience.reschedule(_now())

                    lease.on_preempt(preempt)
                    await self._open(way, camera, way.share(shot.begin()), lease, show)
            except TimeoutError:
                raise CameraError(Result.BUSY, "gave way to live view", SessionEnd.CLEAN) from None
            except CameraError as error:
                meant = reinterpret_as_full(error, lease.other_sessions)
                if meant.result is Result.FULL:
                    lease.refused(certain=meant is error)
                raise meant from None

    async def _open(
        self,
        way: _SourceAttempt,
        camera: Camera,
        deadline: float,
        lease: RtspLease,
        show: Callable[[AccessUnit], None],
    ) -> None:
        """The session itself.

        Ours, or one that go2rtc opens for us, which is over when go2rtc says so.
        """
        if way.restream is None or self._go2rtc is None:
            await self._engines.fetch(camera, way.url, deadline, lease.ended, show)
            return
        told = False  # that it has a session, or that it got none

        def show_open(unit: AccessUnit) -> None:
            nonlocal told
            told = True
            show(unit)

        self._go2rtc.opening(camera)
        try:
            await self._engines.fetch(way.viewer(camera), way.url, deadline, _nobody, show_open)
        except CameraError as error:
            told |= error.result is not Result.TIMEOUT
            raise
        finally:
            lease.ended(await self._go2rtc.settled(camera, was_open=told))

    @staticmethod
    def _snapshot(shot: _AttemptState, still: Still, source: Source, unit: AccessUnit) -> Snapshot:
        return Snapshot(
            camera=shot.camera.id,
            name=shot.camera.name,
            still=still,
            source=source,
            engine=unit.engine or None,
            captured_at=unit.captured_at,
            capture_ms=(_now() - shot.started) * 1000,
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


def _sources(camera: Camera, restream: Restream | None) -> list[tuple[Source, str]]:
    pairs = (
        (Source.GO2RTC, None if restream is None else restream.url),
        (Source.RTSP, camera.url),
        (Source.RTSP_SUB, camera.sub_url),
        (Source.HTTP, camera.snapshot_url),
    )
    return [(source, url) for source, url in pairs if url is not None]


def _may_help(source: Source, errors: list[tuple[Source, Result, str]]) -> bool:
    """Whether another source can do better after these failures.

    A wrong password is wrong everywhere, and logins lock. A camera that is full, busy or dead over
    RTSP may still answer its snapshot URL, but not another RTSP stream. What go2rtc says is not the
    camera's word.
    """
    results = {result for of, result, _ in errors if of is not Source.GO2RTC}
    if Result.AUTH in results:
        return False
    return source in (Source.HTTP, Source.GO2RTC) or not results & {
        Result.BUSY,
        Result.FULL,
        Result.UNREACHABLE,
    }


def _nobody(_: SessionEnd) -> None:
    """The end of a session with go2rtc is no camera's."""


async def _ended(task: asyncio.Task[Attempt]) -> None:
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # fetched; what stopped the session is told instead


def _now() -> float:
    return asyncio.get_running_loop().time()
