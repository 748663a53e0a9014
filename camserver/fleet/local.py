"""What this host does with the devices that it owns: it gives leases, and polls their cameras."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from camserver.config import Camera
from camserver.errors import LeaseStateError
from camserver.fleet.orders import Remains
from camserver.fleet.ownership import Take
from camserver.leases import RtspManager
from camserver.leases.right import Inherited
from camserver.polling.orchestrator import PollingOrchestrator

POLL_ENDS_S = 0.4
"""How long a running poll may go on when its device is handed over. Then it is preempted."""


class LocalDevices:
    """The devices of the inventory, and those among them that this host owns."""

    def __init__(self, manager: RtspManager, orchestrator: PollingOrchestrator) -> None:
        self.version = 0
        """Grows with each change of the inventory."""
        self._manager = manager
        self._orchestrator = orchestrator
        self._cameras: dict[str, list[Camera]] = {}
        self._owned: set[str] = set()

    def configure(self, cameras: Iterable[Camera]) -> None:
        """Take over the cameras of an inventory."""
        self._cameras = {}
        for camera in cameras:
            self._cameras.setdefault(camera.device, []).append(camera)
        self.version += 1

    @property
    def reach(self) -> Mapping[str, tuple[str, ...]]:
        """The hosts that reach each device, as patterns."""
        return {device: cameras[0].hosts for device, cameras in self._cameras.items()}

    @property
    def polled(self) -> tuple[Camera, ...]:
        """The cameras that this host polls."""
        return tuple(camera for device in self._owned for camera in self._cameras.get(device, ()))

    def extend(self, for_s: float) -> None:
        """Let this host have sessions for `for_s` seconds from now."""
        self._manager.extend(_now() + for_s)

    def take_over(self, take: Take, elapsed_s: float) -> None:
        """Begin with a device. `elapsed_s`: how long ago its last owner's record was seen."""
        cameras = self._cameras.get(take.device)
        if not cameras:  # it has just left the inventory, and is handed over soon
            return
        inherited = _inherited(take, cameras[0], _now() - elapsed_s)
        try:
            self._manager.own(take.device, inherited)
        except LeaseStateError:
            return
        self._owned.add(take.device)
        cool_s = max(inherited.cooling_until, default=0.0) - _now() if take.lost else 0.0
        due_s = {} if take.last is None else take.last.due_s
        for camera in cameras:
            if take.lost:
                self._orchestrator.add(camera, cool_s)
            elif camera.id in due_s:
                self._orchestrator.add(camera, due_s[camera.id] - elapsed_s)
            else:
                self._orchestrator.add(camera)

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
        """End every session. Returns when all have ended. `extend` lets them begin again."""
        await self._manager.end_all()

    async def forget_all(self) -> None:
        """Own nothing any more. Returns when all sessions have ended."""
        await self._manager.end_all(disown=True)
        for device in list(self._owned):
            await self.hand_over(device)


def _inherited(take: Take, camera: Camera, seen_at: float) -> Inherited:
    """What a device still counts. `seen_at`: the moment from which its record's times count."""
    if take.lost:
        lost_s = camera.lost_cooldown_s
        until = seen_at + (camera.unclean_cooldown_s if lost_s is None else lost_s)
        return Inherited((until,) * camera.max_sessions)
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
