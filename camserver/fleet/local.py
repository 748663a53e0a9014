"""What this host does with the devices that it owns: it gives leases, and polls their cameras.

It also passes on what happens to the leases of programs: of those on this host, and of those that
have a session of a device of this host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from camserver.config import Camera
from camserver.errors import LeaseStateError
from camserver.fleet.borrowing import Borrowing
from camserver.fleet.host import FleetHost
from camserver.fleet.lending import Lending, lost_cooldown_s
from camserver.fleet.observing import Observing
from camserver.fleet.orders import Remains
from camserver.fleet.ownership import Take
from camserver.leases import RtspManager, http_device
from camserver.leases.right import Inherited, Preemption
from camserver.polling.orchestrator import PollingOrchestrator

LEAVES = "this host leaves the fleet"
POLL_ENDS_S = 0.4
"""How long a running poll may go on when its device is handed over. Then it is preempted."""


class LocalDevices:
    """The devices of the inventory, and those among them that this host owns."""

    def __init__(
        self,
        manager: RtspManager,
        orchestrator: PollingOrchestrator,
        lending: Lending,
        borrowing: Borrowing,
    ) -> None:
        self.observing = Observing(manager, borrowing, self.camera)
        self.version = 0
        """Grows with each change of the inventory."""
        self._manager = manager
        self._orchestrator = orchestrator
        self._lending = lending
        self._borrowing = borrowing
        self._host: FleetHost | None = None
        self._cameras: dict[str, list[Camera]] = {}
        self._owned: set[str] = set()

    def configure(self, cameras: Iterable[Camera]) -> None:
        """Take over the cameras of an inventory."""
        self._cameras = {}
        for camera in cameras:
            self._cameras.setdefault(camera.device, []).append(camera)
        self._lending.configure(self._cameras)
        self.version += 1

    @property
    def reach(self) -> Mapping[str, tuple[str, ...]]:
        """The hosts that reach each device, as patterns."""
        return {device: cameras[0].hosts for device, cameras in self._cameras.items()}

    def camera(self, device: str, camera: str) -> Camera:
        """A camera of a device. Raises LookupError."""
        for each in self._cameras.get(device, ()):
            if each.id == camera:
                return each
        raise LookupError(camera)

    @property
    def polled(self) -> tuple[Camera, ...]:
        """The cameras that this host polls."""
        return tuple(camera for device in self._owned for camera in self._cameras.get(device, ()))

    def begin(self, host: FleetHost, wake: Callable[[], None]) -> None:
        """Begin an epoch. `wake` lets its driver look for what is to be done."""
        self._host = host
        self._lending.begin(host.externals)
        self._borrowing.begin(host, wake)

    def extend(self, for_s: float) -> None:
        """Let this host have sessions for `for_s` seconds from now."""
        self._manager.extend(_now() + for_s)

    def look(self) -> None:
        """Find out what has become of the leases of programs."""
        if self._host is None:
            return
        self._borrowing.tell()
        externals = self._host.externals
        news, externals.news = externals.news, set()
        self._lending.look(news)
        self._borrowing.look(news)

    def take_over(self, take: Take, elapsed_s: float) -> None:
        """Begin with a device. `elapsed_s`: how long ago its last owner's record was seen."""
        cameras = self._cameras.get(take.device)
        if not cameras:  # it has just left the inventory, and is handed over soon
            return
        inherited = _inherited(take, cameras[0], _now() - elapsed_s)
        try:
            self._lending.take_over(take.device)
            self._manager.own(take.device, inherited)
        except LeaseStateError:
            return
        self._cool_web_server(take, cameras)
        self._owned.add(take.device)
        cool_s = max(inherited.cooling_until, default=0.0) - _now() if take.lost else 0.0
        due_s = {} if take.last is None else take.last.due_s
        for camera in cameras:
            if take.lost:
                self._orchestrator.add(camera, cool_s, keeps_rhythm=False)
            elif camera.id in due_s:
                self._orchestrator.add(camera, due_s[camera.id] - elapsed_s, keeps_rhythm=True)
            else:
                self._orchestrator.add(camera, 0.0, keeps_rhythm=False)

    def _cool_web_server(self, take: Take, cameras: Iterable[Camera]) -> None:
        """Let a device's web server rest: what it still does for its last owner is not known."""
        for camera in cameras:
            if camera.snapshot_url is not None:
                cool_s = lost_cooldown_s(camera) if take.lost else camera.http_cooldown_s
                for _ in range(camera.max_http if cool_s else 0):
                    self._manager.cool(http_device(take.device), _now() + cool_s)
                return

    async def hand_over(self, device: str) -> Remains:
        """End with a device. Returns when all its sessions have ended."""
        self._owned.discard(device)
        polls = {
            camera.id: asyncio.create_task(
                self._orchestrator.hand_over(camera.id), name=f"hand over {camera.id}"
            )
            for camera in self._cameras.get(device, ())
        }
        if polls:
            await asyncio.wait(polls.values(), timeout=POLL_ENDS_S)
        self._lending.hand_over(device)
        self.observing.hand_over(device)
        remaining = await self._manager.disown(device)
        if polls:  # what is left of a poll has no session, but a disk may hang
            await asyncio.wait(polls.values(), timeout=POLL_ENDS_S)
        due_s = {camera: poll.result() if poll.done() else 0.0 for camera, poll in polls.items()}
        return Remains(
            cooling_s=remaining.cooling_s,
            learned_cap=remaining.cap,
            learned_s=remaining.cap_s,
            due_s={camera: due for camera, due in due_s.items() if due is not None},
        )

    async def end_all(self) -> None:
        """End every session. `extend` lets them begin again.

        Returns when those of this process have ended. Programs are told, and have kernel timers.
        """
        self._borrowing.withdraw_all(Preemption.NO_RIGHT)
        await self._manager.end_all()

    def leave(self, within_s: float) -> None:
        """Let the programs of this host end their sessions, because the host leaves."""
        self._borrowing.withdraw_all(LEAVES, within_s)

    async def forget_all(self) -> None:
        """Own nothing any more. Returns when all sessions have ended, also those of programs."""
        await self._manager.end_all(disown=True)
        self._lending.forget_all()
        for device in list(self._owned):
            await self.hand_over(device)
        await self._borrowing.all_ended()


def _inherited(take: Take, camera: Camera, seen_at: float) -> Inherited:
    """What a device still counts. `seen_at`: the moment from which its record's times count."""
    if take.lost:
        return Inherited((seen_at + lost_cooldown_s(camera),) * camera.max_sessions)
    last = take.last
    if last is None:
        return Inherited()
    return Inherited(
        tuple(seen_at + cooling_s for cooling_s in last.cooling_s),
        last.learned_cap,
        seen_at + last.learned_s,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
