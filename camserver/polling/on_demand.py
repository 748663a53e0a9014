"""Pictures on demand: a picture that is young enough, or one capture that all who ask share.

It takes pictures only through the schedule, so a camera that is polled is not opened a second time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from camserver.config import Camera
from camserver.errors import NotPolledError
from camserver.host.clock import Seconds, WallClock, boot_time, utc_now
from camserver.leases import Holder
from camserver.model import Attempt, Result
from camserver.polling.orchestrator import PollingOrchestrator
from camserver.storage.outcomes import Outcomes

MAX_DEFAULT_WAIT_S = 600.0
ASK_AGAIN_S = 1.0
"""When to ask again if nothing says when the camera is polled next."""


@dataclass(frozen=True, slots=True)
class NotFresh:
    """Why there is no picture that is young enough, and in how many seconds to ask again."""

    reason: str
    retry_after_s: float
    result: Result | None = None
    """How the poll ended, if one did."""
    may_capture: bool = True
    """False: a picture could have been taken, but not for this request."""


class OnDemand:
    """Takes pictures out of schedule for those who ask."""

    def __init__(
        self,
        orchestrator: PollingOrchestrator,
        outcomes: Outcomes,
        *,
        boot: Seconds = boot_time,
        wall: WallClock = utc_now,
    ) -> None:
        self._orchestrator = orchestrator
        self._outcomes = outcomes
        self._boot = boot
        self._wall = wall

    async def snapshot(self, camera: Camera, asker: Holder) -> Attempt:
        """Take a picture now. Its keyframe is complete after the call, not before.

        A failing camera is tried at once, too, but not after a refused login: cameras lock
        accounts. Raises NotPolledError.
        """
        asked_at, wait_s = self._wall(), 2 * default_wait_s(camera)
        known, retry_s = self._outcomes.get(camera.id), self._orchestrator.retry_in_s(camera.id)
        newest = None if known is None else known.attempt
        if newest is not None and newest.result == Result.AUTH and retry_s > 0:
            again = f"it is tried again in {retry_s:.0f} s, because cameras lock accounts"
            return Attempt(camera.id, asked_at, Result.AUTH, f"{newest.error}; {again}")
        try:
            async with asyncio.timeout(wait_s):
                attempt = await self._orchestrator.poll_now(camera.id, asker)
                if attempt.snapshot is not None and attempt.snapshot.captured_at < asked_at:
                    # The poll that ran had its keyframe already
                    attempt = await self._orchestrator.poll_now(camera.id, asker)
                return attempt
        except TimeoutError:
            why = f"{camera.id}: no poll has ended within {wait_s:g} s: this host is overloaded"
            return Attempt(camera.id, asked_at, Result.OVERLOADED, why)

    def is_young(self, camera: str, max_age_s: float) -> bool:
        """Whether the newest picture is no older than `max_age_s` seconds.

        A picture of an earlier run is not young: its age is known by a clock only that may be
        wrong, as it often is after a start.
        """
        known = self._outcomes.get(camera)
        age_s = self._outcomes.age_s(camera)
        is_of_this_run = known is not None and known.captured_boot_s is not None
        return is_of_this_run and age_s is not None and age_s <= max_age_s

    async def refresh(
        self, camera: Camera, max_age_s: float, wait_s: float, asker: Callable[[], Holder]
    ) -> NotFresh | None:
        """Make sure that the newest picture is no older than `max_age_s` was at the call.

        It waits for one poll, for at most `wait_s` seconds. A failing camera is not tried before
        its next poll is due: cameras lock accounts. Returns why there is no such picture, or None.
        """
        asked_at = self._boot()
        try:
            async with asyncio.timeout(wait_s):
                while not self.is_young(camera.id, max_age_s + self._boot() - asked_at):
                    if self._orchestrator.retry_in_s(camera.id) > 0:
                        return self._failing(camera)
                    attempt = await self._orchestrator.poll_now(camera.id, asker())
                    if not attempt.ok:
                        return self._failed(camera, attempt.error or "", attempt.result)
        except TimeoutError:
            return NotFresh(f"{camera.id}: no new picture within {wait_s:g} s", ASK_AGAIN_S)
        except NotPolledError as error:
            return NotFresh(str(error), ASK_AGAIN_S)
        return None

    def _failing(self, camera: Camera) -> NotFresh:
        """Why the newest poll failed: the camera is not tried now."""
        outcome = self._outcomes.get(camera.id)
        newest = None if outcome is None else outcome.attempt
        if newest is None or newest.error is None:
            return self._failed(camera, f"{camera.id}: the newest poll failed", None)
        return self._failed(camera, newest.error, Result(newest.result))

    def _failed(self, camera: Camera, reason: str, result: Result | None) -> NotFresh:
        retry_s = self._orchestrator.retry_in_s(camera.id)
        return NotFresh(reason, retry_s or ASK_AGAIN_S, result)


def default_wait_s(camera: Camera) -> float:
    """How long one poll of a camera may take, with the time before it may start.

    It may wait for a session of the device, and then for its web server.
    """
    devices = 1 if camera.url is None or camera.snapshot_url is None else 2
    work_s = devices * camera.lease_wait_s + camera.timeout_s
    return min(MAX_DEFAULT_WAIT_S, math.ceil(camera.min_interval_s + work_s))
