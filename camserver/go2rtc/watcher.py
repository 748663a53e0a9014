"""Go2rtc: watches which streams go2rtc shows live.

A live stream of go2rtc has a session of the device, and camserver can take pictures from it.

This module owns what is known about go2rtc. It asks go2rtc's API every WATCH_S, and right before a
picture is taken through go2rtc. A live producer counts as a `live` holder of the camera's device,
although it made no request. Its slot becomes free when go2rtc reports that the stream is idle
(go2rtc sends TEARDOWN), or as an unclean end when go2rtc is gone. The module takes no pictures and
opens no sessions.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from camserver.config import Camera
from camserver.config.model import Go2rtcTable
from camserver.errors import LeaseStateError
from camserver.events import Event, Go2rtcFallback, Go2rtcNotAnswering, Go2rtcUp
from camserver.go2rtc.api import Go2rtcApi, Go2rtcDown, StreamView
from camserver.go2rtc.registry import StreamRegistry
from camserver.host.tasks import SingleFlight, finish
from camserver.leases import Holder
from camserver.model import SessionEnd

WATCH_S = 1.0
TROUBLE_S = 30.0
"""How long go2rtc's sessions count as open after go2rtc last accepted a connection.

While go2rtc accepts connections, its sessions count as open.
"""
SETTLE_S = 3.0
"""How long go2rtc may take to end a session that it opened for us.

After that, another viewer is assumed.
"""
DIAL_S = 6.0
"""How long go2rtc may still be connecting to the camera when it has shown no session yet.

Its API shows such a stream as idle. Its ConnDialTimeout is 5 s.
"""
SETTLE_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Restream:
    """The URL of a camera's stream in go2rtc, and whether go2rtc must open a session for it."""

    url: str
    username: str
    password: str = field(repr=False)
    needs_lease: bool


class Observed(Protocol):
    """A session of go2rtc that is counted."""

    def ended(self, end: SessionEnd) -> None:
        """Set how it ended. The last call before `release` counts."""

    def release(self) -> None:
        """Note that it is over."""

    def abandon(self) -> None:
        """Leave it to go2rtc, because this process ends."""


Observe = Callable[[str, str, Holder], Observed]
"""Counts a session: (camera, device, holder). Raises LeaseStateError for an unknown device."""


class Go2rtc:
    """The state of go2rtc: its live streams, and the leases that count their sessions."""

    def __init__(
        self,
        observe: Observe,
        emit: Callable[[Event], None],
        registry: StreamRegistry | None = None,
    ) -> None:
        self._observe = observe
        self._emit = emit
        self._registry = registry or StreamRegistry(emit)
        self._table = Go2rtcTable()
        self._api: Go2rtcApi | None = None
        self._cameras: dict[str, Camera] = {}  # the cameras that have a stream in go2rtc
        self._streams: dict[str, StreamView] = {}
        self._observed: dict[str, list[Observed]] = {}  # camera id -> a lease for each session
        # Cameras whose stream is being opened under a lease of ours
        self._ours: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._down_since: float | None = None
        self._alive_at = 0.0
        self._expedited = False
        self._looking = SingleFlight[None, None]()

    @property
    def up(self) -> bool | None:
        """Whether go2rtc answers. None when the inventory has no go2rtc."""
        return None if self._api is None else self._down_since is None

    async def configure(self, table: Go2rtcTable, cameras: Iterable[Camera]) -> None:
        """Take over an inventory.

        Some sessions can't be observed any more (the camera was removed, or another go2rtc is
        used). They count only for their long cool-down, because the operator has removed them.
        """
        if self._api is not None and table != self._table:
            # Live streams count until the next look: a release now would free open sessions
            old_api, self._api = self._api, None
            await old_api.close()
            # Streams of another go2rtc may have the same names
            if table.api != self._table.api:
                self._registry.forget_all()
        self._table = table
        if table.api is not None and self._api is None:
            self._api = Go2rtcApi(table.api, table.rtsp or "", table.username, table.password)
        old, self._cameras = (
            self._cameras,
            {c.id: c for c in cameras if c.go2rtc is not None} if self._api is not None else {},
        )
        for camera_id in list(self._observed):
            if camera_id not in self._cameras or camera_id not in old:
                self._count(camera_id, 0, SessionEnd.UNCLEAN)
        self._reconcile()

    async def run(self) -> None:
        """Ask go2rtc every WATCH_S, and register cameras, until cancelled."""
        while True:
            if self._api is not None:
                await self.look()
            if (api := self._api) is not None:  # a reload may have removed it meanwhile
                await self._register(api)
            await asyncio.sleep(WATCH_S)

    def expedite_close(self) -> None:
        """Stop waiting for go2rtc, because the daemon stops.

        A session that go2rtc has not ended yet counts as an unclean end in the next process.
        """
        self._expedited = True

    async def close(self) -> None:
        """Stop watching, and abandon the leases.

        Sessions of go2rtc outlive this process. The next process counts them again.
        """
        await self._looking.cancel()
        for lease in (lease for leases in self._observed.values() for lease in leases):
            lease.abandon()
        self._observed.clear()
        if self._api is not None:
            await self._api.close()

    # ---- called when a picture is taken

    async def restream(self, camera: Camera) -> Restream | None:
        """The stream in go2rtc for a picture of `camera`. None: use the camera itself.

        It asks go2rtc first.
        """
        if self._api is None or camera.id not in self._cameras or self._table.mode == "never":
            return None
        await self.look()
        view = self._streams.get(camera.go2rtc or "", StreamView())
        if not view.live and (self._table.mode == "when-live" or self._down_since is not None):
            return None
        return Restream(
            f"{(self._table.rtsp or '').rstrip('/')}/{camera.go2rtc}",
            self._table.username or "",
            self._table.password or "",
            needs_lease=not view.live and not view.leased,
        )

    def opening(self, camera: Camera) -> None:
        """A session that go2rtc opens from now on is covered by a lease of ours."""
        self._ours[camera.id] += 1

    async def settled(self, camera: Camera, *, was_open: bool) -> SessionEnd:
        """Wait until go2rtc has ended the session that it opened for us, or until it has a viewer.

        `was_open`: go2rtc had a session, or reported that it got none. Then an idle stream means
        that no session is open. Otherwise go2rtc may still be connecting to the camera. The wait
        must not be interrupted by a cancellation, so it runs in `finish`.
        """
        return await finish(self._settle(camera, was_open=was_open))

    def failed(self, camera: Camera, why: str) -> None:
        """Report that go2rtc gave no picture: one event until it gives a picture again."""
        if camera.id not in self._failing:
            self._failing.add(camera.id)
            self._emit(Go2rtcFallback(camera=camera.id, reason=why))

    def worked(self, camera: Camera) -> None:
        """Note that go2rtc gave a picture."""
        self._failing.discard(camera.id)

    # ---- looking

    async def look(self) -> None:
        """Ask go2rtc which streams are live. Concurrent callers share one request.

        It never raises because of go2rtc.
        """
        await self._looking.do(None, self._look, "look at go2rtc")

    async def _look(self) -> None:
        api = self._api
        if api is None:
            return
        try:
            streams = await api.streams()
        except Go2rtcDown as down:
            if api is self._api:  # else a reload has closed it meanwhile
                self._is_down(down)
            return
        if api is not self._api:
            return
        if self._down_since is not None:
            self._down_since = None
            self._emit(Go2rtcUp())
        self._streams = streams
        self._reconcile()

    def _is_down(self, down: Go2rtcDown) -> None:
        now = asyncio.get_running_loop().time()
        if self._down_since is None:
            self._down_since = now
            self._emit(Go2rtcNotAnswering(reason=str(down)))
        if down.alive:
            self._alive_at = now
        if down.gone or now - max(self._alive_at, self._down_since) > TROUBLE_S:
            self._streams = {}
            for camera_id in list(self._observed):
                self._count(camera_id, 0, SessionEnd.UNCLEAN)

    def _live(self, camera: Camera) -> bool:
        return self._streams.get(camera.go2rtc or "", StreamView()).live

    def _reconcile(self) -> None:
        """Hold one lease for each session that go2rtc has, except those under a lease of ours."""
        for camera in self._cameras.values():
            if not self._ours[camera.id]:
                self._count(
                    camera.id,
                    self._streams.get(camera.go2rtc or "", StreamView()).sessions,
                    SessionEnd.CLEAN,
                )

    def _count(self, camera_id: str, sessions: int, end: SessionEnd) -> None:
        leases = self._observed.setdefault(camera_id, [])
        while len(leases) > sessions:
            lease = leases.pop()
            lease.ended(end)
            lease.release()
        try:
            while len(leases) < sessions:
                camera = self._cameras[camera_id]
                leases.append(
                    self._observe(
                        camera_id, camera.device, Holder("live", f"go2rtc {camera.go2rtc}")
                    )
                )
        except LeaseStateError:  # the device was just removed from the inventory
            return
        if not leases:
            del self._observed[camera_id]

    async def _settle(self, camera: Camera, *, was_open: bool) -> SessionEnd:
        now = asyncio.get_running_loop().time
        deadline = now() + (SETTLE_S if was_open else DIAL_S)
        try:
            while now() < deadline:
                await self.look()
                if self._down_since is not None or self._expedited:
                    return SessionEnd.UNCLEAN
                live = self._live(camera)
                if was_open and not live:
                    return SessionEnd.CLEAN
                was_open |= live
                await asyncio.sleep(SETTLE_STEP_S)
            # NONE: the session continues for another viewer, and `observe` counts it
            return SessionEnd.NONE if was_open else SessionEnd.UNCLEAN
        finally:
            self._ours[camera.id] -= 1
            self._reconcile()

    async def _register(self, api: Go2rtcApi) -> None:
        """Register missing cameras in go2rtc, and remove our streams of removed cameras."""
        if self._down_since is not None:
            return
        cameras = self._cameras.values() if self._table.register_cameras else ()
        try:
            await self._registry.update(api, self._streams, cameras)
        except Go2rtcDown as down:
            if api is self._api:
                self._is_down(down)
