"""Sessions that go2rtc on this host has opened without a lease: the owners of devices count them.

Nothing but go2rtc can end such a session. It is counted while go2rtc has it and this host is in the
fleet. Then it cools down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from camserver.config import Camera
from camserver.errors import LeaseStateError, RtspBusy
from camserver.fleet.borrowing import Borrowing
from camserver.leases import Holder, RtspLease, RtspManager
from camserver.model import SessionEnd

TRY_S = 60.0
"""How long one request to count a session lasts. Then there is another one."""
AGAIN_S = 1.0


class ObservedSession:
    """One session of go2rtc. The watcher of go2rtc uses it as the lease of an observed session."""

    def __init__(self, device: str, provisional: RtspLease) -> None:
        """`provisional` counts it in this process until the owner of the device does."""
        self.device = device
        self.end = SessionEnd.UNCLEAN
        self.is_abandoned = False
        self.reporting: asyncio.Task[None] | None = None
        self._provisional: RtspLease | None = provisional

    def ended(self, end: SessionEnd) -> None:
        """Set how it ended. The last call before `release` counts."""
        self.end = end

    def release(self) -> None:
        """Note that it is over."""
        self.count_elsewhere(self.end)
        if self.reporting is not None:
            self.reporting.cancel()

    def abandon(self) -> None:
        """Leave it to go2rtc, because this process ends."""
        self.is_abandoned = True
        self.release()

    def count_elsewhere(self, end: SessionEnd = SessionEnd.NONE) -> None:
        """Count it in this process no longer."""
        lease, self._provisional = self._provisional, None
        if lease is not None:
            lease.ended(end)
            lease.release()


class Observing:
    """The sessions of go2rtc on this host."""

    def __init__(
        self, manager: RtspManager, borrowing: Borrowing, camera: Callable[[str, str], Camera]
    ) -> None:
        """`camera` gives a camera of a device; it raises LookupError."""
        self._manager = manager
        self._borrowing = borrowing
        self._camera = camera
        self._sessions: set[ObservedSession] = set()

    def observe(self, camera: str, device: str, holder: Holder) -> ObservedSession:
        """Count a session of go2rtc, whichever host owns the device.

        Raises LeaseStateError for a device that is not in the inventory.
        """
        try:
            known = self._camera(device, camera)
        except LookupError:
            raise LeaseStateError(f"device {device} is not in the inventory") from None
        session = ObservedSession(device, self._manager.observe(camera, device, holder))
        reporting = session.reporting = asyncio.create_task(
            self._report(session, known, holder), name=f"session of go2rtc, {device}"
        )
        self._sessions.add(session)
        reporting.add_done_callback(lambda _: self._sessions.discard(session))
        return session

    def hand_over(self, device: str) -> None:
        """Count sessions of a device in this process no longer: another host will own it."""
        for session in self._sessions:
            if session.device == device:
                session.count_elsewhere()

    async def _report(self, session: ObservedSession, camera: Camera, holder: Holder) -> None:
        """Let the owner of the device count a session, until this is cancelled: it is over."""
        while True:
            try:
                await self._report_once(session, camera, holder)
            except RtspBusy:
                await asyncio.sleep(AGAIN_S)

    async def _report_once(self, session: ObservedSession, camera: Camera, holder: Holder) -> None:
        """Let the owner count it while this host may have sessions. Raises RtspBusy."""
        with await self._borrowing.observe(camera, holder, TRY_S) as lease:
            session.count_elsewhere()
            try:
                await lease.preempted()
            finally:
                lease.ended(session.end)
                if session.is_abandoned:
                    lease.abandon()
