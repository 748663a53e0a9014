"""Go2rtc beside us.

A stream that it shows live has a session of the device, and pictures can be taken from there.

Owns what is known of go2rtc: looks at its API every WATCH_S, and right before a picture is taken
through it. A live producer is counted as a `live` holder of the camera's device, without having
asked; its slot is given on when go2rtc says that the stream is idle (it sends TEARDOWN), or, as
unclean, when go2rtc is gone. Takes no pictures, opens no sessions.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from camserver.config import Camera
from camserver.config.model import Go2rtcTable
from camserver.errors import LeaseStateError
from camserver.events import Event, Go2rtcFallback, Go2rtcNotAnswering, Go2rtcUp
from camserver.go2rtc.api import Go2rtcApi, Go2rtcDown, StreamView
from camserver.go2rtc.registry import StreamRegistry
from camserver.host.tasks import SingleFlight, finish
from camserver.leases import Holder, RtspLease, RtspManager
from camserver.model import SessionEnd

WATCH_S = 1.0
TROUBLE_S = 30.0
"""So long after the last connection to go2rtc's host its sessions are believed to be open.

While it accepts any, they are.
"""
SETTLE_S = 3.0
"""How long go2rtc may take to end a session that was opened for us.

Then somebody else is believed to watch.
"""
DIAL_S = 6.0
"""How long go2rtc may still be on its way to the camera (its ConnDialTimeout is 5 s) when it has
shown nothing yet: its API calls such a stream idle.
"""
SETTLE_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Restream:
    """Where go2rtc gives a camera's picture, and whether it has to open a session for it first."""

    url: str
    username: str
    password: str = field(repr=False)
    needs_lease: bool


class Go2rtc:
    """What go2rtc shows, who holds its sessions, which pictures need none of ours."""

    def __init__(
        self,
        manager: RtspManager,
        emit: Callable[[Event], None],
        registry: StreamRegistry | None = None,
    ) -> None:
        self._manager = manager
        self._emit = emit
        self._registry = registry or StreamRegistry(emit)
        self._table = Go2rtcTable()
        self._api: Go2rtcApi | None = None
        self._cameras: dict[str, Camera] = {}  # those that have a stream there
        self._streams: dict[str, StreamView] = {}
        self._observed: dict[str, list[RtspLease]] = {}  # camera id -> a lease for each session
        # Cameras whose stream is being opened under a lease of ours
        self._ours: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._down_since: float | None = None
        self._alive_at = 0.0
        self._expedited = False
        self._looking = SingleFlight[None, None]()

    @property
    def up(self) -> bool | None:
        """Whether it answers; None when there is none in the inventory."""
        return None if self._api is None else self._down_since is None

    async def configure(self, table: Go2rtcTable, cameras: Iterable[Camera]) -> None:
        """Take an inventory over.

        What can't be seen any more (the camera has left, go2rtc is another one) is counted for its
        long cool-down only: the operator has said that it is not to be looked at.
        """
        if self._api is not None and table != self._table:
            await self._api.close()
            # What was live is believed until the next look: a release now would free open sessions
            self._api = None
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
        """Look every WATCH_S until cancelled."""
        while True:
            if self._api is not None:
                await self.look()
            if (api := self._api) is not None:  # a reload may have taken it away meanwhile
                await self._register(api)
            await asyncio.sleep(WATCH_S)

    def expedite_close(self) -> None:
        """The daemon stops.

        What go2rtc has not ended by now is left to the next process, as an unclean end.
        """
        self._expedited = True

    async def close(self) -> None:
        """Forget everything.

        Sessions of go2rtc outlive us, and the next process counts them again.
        """
        await self._looking.cancel()
        for lease in (lease for leases in self._observed.values() for lease in leases):
            lease.abandon()
        self._observed.clear()
        if self._api is not None:
            await self._api.close()

    # ---- for whoever takes a picture

    async def restream(self, camera: Camera) -> Restream | None:
        """Where to take `camera`'s picture from; None: from the camera itself.

        Looks before it answers.
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
        """Wait until go2rtc has ended the session it opened for us.

        Or until somebody else's watching is counted.

        `was_open`: it had a session, or has told that it got none, so that none now means none;
        else it may still be on its way to the camera. Must not be cancelled in between; `finish`
        sees to it.
        """
        return await finish(self._settle(camera, was_open=was_open))

    def failed(self, camera: Camera, why: str) -> None:
        """No picture came from go2rtc; it is said once, until one comes again."""
        if camera.id not in self._failing:
            self._failing.add(camera.id)
            self._emit(Go2rtcFallback(camera=camera.id, reason=why))

    def worked(self, camera: Camera) -> None:
        """A picture came from go2rtc."""
        self._failing.discard(camera.id)

    # ---- looking

    async def look(self) -> None:
        """Ask go2rtc what is live; callers at the same time share one question.

        Never raises for go2rtc's sake.
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
        """Count as many sessions of each camera as go2rtc has."""
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
                    self._manager.observe(
                        camera_id, camera.device, Holder("live", f"go2rtc {camera.go2rtc}")
                    )
                )
        except LeaseStateError:  # its device has just left the inventory
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
            # None: it goes on, as somebody else's
            return SessionEnd.NONE if was_open else SessionEnd.UNCLEAN
        finally:
            self._ours[camera.id] -= 1
            self._reconcile()

    async def _register(self, api: Go2rtcApi) -> None:
        """Give go2rtc the cameras it lacks, and remove those of ours that left."""
        if self._down_since is not None:
            return
        cameras = self._cameras.values() if self._table.register_cameras else ()
        try:
            await self._registry.update(api, self._streams, cameras)
        except Go2rtcDown as down:
            if api is self._api:
                self._is_down(down)
