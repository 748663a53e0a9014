"""PollingOrchestrator: decides when each camera is polled, and how many polls run at once.

It owns the schedule. It knows nothing about RTSP or disks.

An idle camera costs one entry in a heap, and no task, thread or timer. A task exists only while a
poll runs.
- Due times are on a grid for each camera (phase or wall clock), so they do not drift or pile up.
  When a camera is due again while its poll runs, that due time is skipped and counted.
- Failing cameras back off and share a quarter of the slots, so they cannot starve working cameras
  (bulkhead). A camera without a first picture may be dead, too: those cameras share a half.
- `run` never raises because of a camera: each poll has one catch, each failure one event.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable

from camserver.config import Camera
from camserver.errors import NotPolledError
from camserver.events import CameraFresh, CameraRecovered, Event, PollFailed, PollSkipped
from camserver.host.clock import utc_now
from camserver.leases import Holder
from camserver.model import Attempt, Result
from camserver.polling.entry import SLOT_DIVISORS, YIELD_S, CameraPolling, Entry, PollingStatistics
from camserver.polling.lateness import Lateness
from camserver.polling.schedule import first_due, following_due, next_due, phase, retry_delay_s

Poll = Callable[[Camera, int, Holder | None], Awaitable[Attempt]]
"""Takes and stores one picture: of a camera, after so many failures in a row, for who asked for it
out of schedule.
"""

NOT_FAILING = frozenset((Result.BUSY, Result.OVERLOADED))
"""The results that say nothing against the camera."""
RECHECK_S = 30.0
"""How often the wall clock is checked for aligned cameras: it may be set while they wait."""

WALL_CLOCK_DRIFT_S = 0.05
"""How far the wall clock may drift from the loop's clock before aligned cameras are rescheduled."""


class PollingOrchestrator:
    """Runs `poll` for every camera when it is due.

    At most `sessions` polls run at once, and at most `open_rate` polls start per second.
    """

    def __init__(
        self,
        poll: Poll,
        *,
        sessions: int,
        open_rate: float,
        emit: Callable[[Event], None],
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._poll = poll
        self._sessions = sessions
        self._slots = {
            poll_group: max(1, sessions // share) for poll_group, share in SLOT_DIVISORS.items()
        }
        self._open_rate = open_rate
        self._emit = emit
        self._wall = wall
        # Wall clock minus loop's clock when the aligned cameras were last rescheduled
        self._wall_offset_s = 0.0
        self._chance = chance
        self._entries: dict[str, Entry] = {}
        self._numbers = 0
        self._heap: list[tuple[float, int, int, Entry]] = []
        self._sequence = 0
        self._ready: dict[str, deque[Entry]] = {poll_group: deque() for poll_group in SLOT_DIVISORS}
        # Task -> the poll group of its camera at the start of the poll
        self._running: dict[asyncio.Task[None], str] = {}
        self._next_open = 0.0
        self._wake = asyncio.Event()
        self._stopping = False
        self._skipped = 0
        self._lateness = {poll_group: Lateness() for poll_group in SLOT_DIVISORS}

    def configure(self, cameras: Iterable[Camera], open_rate: float | None = None) -> None:
        """Replace the list of cameras. `open_rate` None leaves the rate unchanged.

        Unchanged cameras keep their schedule. Changed and new cameras begin as `first_due` says.
        """
        if open_rate is not None:
            self._open_rate = open_rate
        wanted = {c.id: c for c in cameras}
        for camera_id in set(self._entries) - set(wanted):
            self._remove(camera_id)
        known = {name: entry.camera for name, entry in self._entries.items()}
        begin = [camera for camera in wanted.values() if known.get(camera.id) != camera]
        # Neighbours in the inventory are often channels of one device: they begin far apart
        for number, place in enumerate(sorted(range(len(begin)), key=phase)):
            interval_s = begin[place].interval_s
            due_in_s, keeps = first_due(number, len(begin), interval_s, self._open_rate)
            self._begin(begin[place], due_in_s, keeps_rhythm=keeps)
        self._wake.set()

    def add(self, camera: Camera, due_in_s: float, *, keeps_rhythm: bool) -> None:
        """Poll one camera more, first in `due_in_s` seconds.

        Then it is polled in the phase of that poll, or in one that is spread among the others.
        """
        self._begin(camera, max(0.0, due_in_s), keeps_rhythm=keeps_rhythm)
        self._wake.set()

    async def hand_over(self, camera_id: str) -> float | None:
        """Poll a camera no more, and wait for the end of its running poll.

        Returns in how many seconds it is due. None: it was not polled here.
        """
        entry = self._remove(camera_id)
        if entry is None:
            return None
        if entry.task is not None:
            await asyncio.wait({entry.task})
        return 0.0 if entry.busy else entry.due - _now()

    def _remove(self, camera_id: str) -> Entry | None:
        entry = self._entries.pop(camera_id, None)
        if entry is not None:
            entry.removed = True
            entry.version += 1
            if entry.task is None:
                entry.gave_up()
        return entry

    def _begin(self, camera: Camera, due_in_s: float, *, keeps_rhythm: bool) -> None:
        """Poll a camera that is new or was changed, first in `due_in_s` seconds."""
        entry = self._entries.get(camera.id)
        if entry is None:
            entry = self._entries[camera.id] = Entry(camera, self._numbers)
            self._numbers += 1
        due, interval_s = min(_now() + due_in_s, entry.due), camera.interval_s
        entry.phase_s = due % interval_s if keeps_rhythm else phase(entry.number) * interval_s
        entry.camera, entry.failures, entry.again = camera, 0, entry.task is not None
        if entry.task is None and not entry.queued:  # a queued one starts soon, with the change
            self._schedule(entry, self._aligned_due(entry) if camera.align else due)

    async def run(self) -> None:
        """Poll until `stop` is called or this is cancelled.

        A cancelled `run` leaves no poll running.
        """
        try:
            while not self._stopping:
                self._wake.clear()
                self._collect_due()
                self._start_ready()
                await self._sleep()
        finally:
            if not self._stopping:  # cancelled; otherwise `stop` ends the polls, with its grace
                await self._settle(0.0)

    async def stop(self, grace_s: float) -> None:
        """Start no more polls.

        Wait up to `grace_s` seconds until running polls end. Then cancel them and wait again.
        """
        self._stopping = True
        self._wake.set()
        for entry in self._entries.values():
            if entry.task is None:
                entry.gave_up()
        await self._settle(grace_s)

    def statistics(self) -> PollingStatistics:
        """Frozen statistics for logs, status and metrics."""
        return PollingStatistics.of(
            self._entries.values(),
            _now(),
            running=len(self._running),
            skipped=self._skipped,
            lateness=self._lateness,
        )

    def cameras(self) -> tuple[CameraPolling, ...]:
        """Frozen statistics of every camera."""
        now = _now()
        return tuple(entry.statistics(now) for entry in self._entries.values())

    # ---- polls on demand

    async def poll_now(self, camera_id: str, asker: Holder) -> Attempt:
        """Wait for the end of the running poll, or of one that starts now, out of schedule.

        All who ask meanwhile share it. It starts `min_interval` after the start of the poll before
        it, or later. It counts as a poll: the camera is due an interval later, or at its next
        aligned time. A cancelled call does not cancel the poll.

        Raises NotPolledError, also when the camera leaves before the poll starts.
        """
        entry = self._entries.get(camera_id)
        if entry is None or self._stopping:
            raise NotPolledError(f"{camera_id} is not polled here")
        if entry.task is None:
            entry.asker = entry.asker or asker
            self._advance(entry)
        entry.waiting += 1
        try:
            return await asyncio.shield(entry.next_outcome())
        finally:
            entry.waiting -= 1
            if not entry.waiting and entry.task is None:
                entry.asker = None  # all have left: the next poll is for the schedule

    def retry_in_s(self, camera_id: str) -> float:
        """In how many seconds a failing camera is tried again. 0: it is not waiting for that."""
        entry = self._entries.get(camera_id)
        if entry is None or not entry.failures or entry.task is not None or entry.queued:
            return 0.0
        return max(0.0, entry.due - _now())

    def _advance(self, entry: Entry) -> None:
        due = entry.due_on_demand(_now())
        if due is None or entry.queued:
            return
        if not entry.camera.align:
            entry.phase_s = due % entry.camera.interval_s
        self._schedule(entry, due)
        self._wake.set()

    # ---- schedule

    def _schedule(self, entry: Entry, due: float) -> None:
        entry.version += 1
        entry.due = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, entry.version, entry))

    def _aligned_due(self, entry: Entry) -> float:
        wall = self._wall()
        return _now() + next_due(wall, entry.camera.interval_s, 0.0) - wall

    def _regular_due(self, entry: Entry) -> float:
        if entry.camera.align:
            return self._aligned_due(entry)
        return following_due(_now(), entry.camera.interval_s, entry.phase_s)

    def _collect_due(self) -> None:
        now = _now()
        while self._heap and self._heap[0][0] <= now:
            _, _, version, entry = heapq.heappop(self._heap)
            if version != entry.version:
                continue
            if entry.task is not None and entry.camera.align and entry.is_asked:
                entry.missed_mark = True  # by a poll that somebody asked for: it comes after it
            elif entry.task is not None:
                entry.skipped += 1
                self._skipped += 1
                self._emit(PollSkipped(camera=entry.camera.id, skipped=entry.skipped))
                self._schedule(entry, self._regular_due(entry))
            else:
                entry.version += 1
                entry.queued = True
                self._ready[entry.poll_group].append(entry)

    def _start_ready(self) -> None:
        now = _now()
        while now >= self._next_open and (entry := self._next_ready()) is not None:
            entry.queued = False
            if entry.removed:
                continue
            self._next_open = max(self._next_open, now) + 1 / self._open_rate
            self._lateness[entry.poll_group].add(now - entry.due)
            self._schedule(entry, self._regular_due(entry))
            entry.started, asker, entry.asker = now, entry.asker, None
            entry.is_asked = asker is not None
            entry.task = asyncio.create_task(
                self._run_one(entry, asker), name=f"poll {entry.camera.id}"
            )
            self._running[entry.task] = entry.poll_group

    def _next_ready(self) -> Entry | None:
        if len(self._running) >= self._sessions:
            return None
        running = Counter(self._running.values())
        ranked = [
            (ready[0].due + YIELD_S[poll_group], poll_group)
            for poll_group, ready in self._ready.items()
            if ready and running[poll_group] < self._slots[poll_group]
        ]
        return self._ready[min(ranked)[1]].popleft() if ranked else None

    async def _sleep(self) -> None:
        """Wait until a camera is due, the open rate allows a start, or something changed."""
        now = _now()
        until = now + RECHECK_S
        if self._heap:
            until = min(until, self._heap[0][0])
        if any(self._ready.values()) and self._next_open > now:
            until = min(until, self._next_open)
        timer = asyncio.get_running_loop().call_at(until, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
        self._follow_wall_clock()

    def _follow_wall_clock(self) -> None:
        """Reschedule aligned cameras if the wall clock was set meanwhile.

        Only then this looks at all cameras.
        """
        now = _now()
        offset_s = self._wall() - now
        if abs(offset_s - self._wall_offset_s) <= WALL_CLOCK_DRIFT_S:
            return
        self._wall_offset_s = offset_s
        for entry in self._entries.values():
            if entry.waits_for_its_mark(now):
                self._schedule(entry, self._aligned_due(entry))

    # ---- one poll

    async def _run_one(self, entry: Entry, asker: Holder | None) -> None:
        camera = entry.camera
        try:
            attempt = await self._poll(camera, entry.failures, asker)
        except asyncio.CancelledError:
            entry.gave_up()
            raise
        # A bug of camserver must cost only one poll of one camera, and must be visible
        except Exception as error:  # noqa: BLE001
            attempt = Attempt(
                camera.id, utc_now(), Result.ERROR, f"{camera.id}: internal fault: {error!r}"
            )
        finally:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - this code runs in a task
            del self._running[task]
            entry.task = None
            self._wake.set()
        entry.results[attempt.result] += 1
        self._reschedule(entry, attempt)
        entry.ended(attempt)

    def _reschedule(self, entry: Entry, attempt: Attempt) -> None:
        entry.busy = attempt.result is Result.BUSY
        if attempt.ok and attempt.snapshot is not None:
            if entry.failures:
                self._emit(CameraRecovered(camera=entry.camera.id, failures=entry.failures))
            elif entry.fresh_at is None:
                self._emit(CameraFresh(camera=entry.camera.id))
            entry.failures = 0
            entry.fresh_at = _now()
        else:
            entry.failures += attempt.result not in NOT_FAILING
            delay_s = retry_delay_s(
                entry.failures,
                attempt.result,
                entry.camera.interval_s,
                self._chance(),
                worked=entry.fresh_at is not None,
            )
            due = _now() + delay_s
            # A retry must never delay the next aligned poll, but a wrong password may
            if entry.camera.align and attempt.result is not Result.AUTH:
                due = min(due, self._aligned_due(entry))
            if not entry.removed:
                self._schedule(entry, due)
            self._emit(
                PollFailed(
                    camera=entry.camera.id,
                    result=attempt.result,
                    error=attempt.error or "",
                    label=attempt.label,
                    consecutive_failures=entry.failures,
                    retry_in_s=due - _now(),
                )
            )
        if not entry.removed and (entry.again or (entry.missed_mark and not entry.failures)):
            self._schedule(entry, _now())
        entry.failures = 0 if entry.again else entry.failures
        entry.again = entry.missed_mark = False

    async def _settle(self, grace_s: float) -> None:
        if self._running and grace_s > 0:
            await asyncio.wait(set(self._running), timeout=grace_s)
        tasks = set(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _now() -> float:
    return asyncio.get_running_loop().time()
