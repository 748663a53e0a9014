"""PictureHealth: judges the pictures of all cameras, tells of changes, and keeps what is known."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from camserver.config import HealthTable, Inventory
from camserver.events import Event, PictureNotJudged, PictureRecovered, PictureSuspect
from camserver.health import stored
from camserver.health.judge import Judge
from camserver.health.picture import Picture
from camserver.host.clock import Seconds, boot_time, rfc3339
from camserver.host.threads import DaemonThreads
from camserver.model import CodedKeyframe, Health, Look, References, Still, Suspicion

READ_S = 0.2
"""How long the first picture of a camera waits for what an earlier run knew of it."""
WRITE_S = 10.0
"""How long the writing of one file may take. What is not written is written later."""
READERS = 2
SAVE_S, SAVE_POLLS = 600.0, 6
"""What is known of a camera is written when this time and so many intervals have passed. It is
written at once when a suspicion begins or ends, or when learning ends.

A file for each picture would cost as much as publishing it.
"""


class _Watched(NamedTuple):
    """What the inventory says of one camera."""

    limits: HealthTable
    interval_s: float
    urls: tuple[str | None, ...]
    """Where the camera's pictures come from. They may hold passwords."""

    @property
    def address(self) -> str:
        """Stands for `urls`, without passwords."""
        urls = " ".join(filter(None, self.urls))
        return hashlib.sha256(urls.encode()).hexdigest()


class PictureHealth:
    """Judges pictures. All methods are for the event loop."""

    def __init__(
        self,
        inventory: Inventory,
        emit: Callable[[Event], None],
        directory: Callable[[], Path | None],
        *,
        wall: Seconds = time.time,
        boot: Seconds = boot_time,
    ) -> None:
        """`directory` is where the cameras' folders are. None: nothing may be written there."""
        self._emit = emit
        self._directory = directory
        self._wall = wall
        self._boot = boot
        self._watched: dict[str, _Watched] = {}
        self._judges: dict[str, Judge] = {}
        self._saved: dict[str, float] = {}
        self._unsaved: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        """The cameras in `_unsaved`."""
        self._threads = DaemonThreads(READERS, "read picture health")
        self._writer = DaemonThreads(1, "write picture health")
        self._reading: dict[str, asyncio.Future[Judge | None]] = {}
        self.configure(inventory)

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Apply the inventory. What is known of a camera at another address is forgotten."""
        before = self._watched
        self._watched = {
            camera.id: _Watched(
                camera.health,
                camera.interval_s,
                (camera.url, camera.sub_url, camera.snapshot_url),
            )
            for camera in inventory.cameras
            if camera.health is not None
        }
        for camera in {*self._judges, *self._reading}:
            known, new = before.get(camera), self._watched.get(camera)
            if new is None or known is None or new.urls != known.urls:
                self._forget(camera)
        return ()

    def _forget(self, camera: str) -> None:
        judge = self._judges.pop(camera, None)
        if judge is not None and judge.health is not None:
            now = datetime.fromtimestamp(self._wall(), UTC)
            self._tell(camera, judge.health, Health(now), now)
        self._saved.pop(camera, None)
        self._reading.pop(camera, None)

    async def references(self, camera: str) -> References | None:
        """What the next picture of a camera is compared with. None: it is not judged."""
        watched = self._watched.get(camera)
        if watched is None:
            return None
        judge = self._judges.get(camera)
        if judge is None:
            judge = await self._read(camera, watched)
        return None if judge is None else judge.references

    def judge(self, camera: str, still: Still, unit: CodedKeyframe) -> Health | None:
        """Judge a picture that was compared with `references`. None: it is not judged."""
        watched, judge = self._watched.get(camera), self._judges.get(camera)
        look = still.look
        if watched is None or judge is None or look is None:
            return None
        if len(look.likeness) != len(judge.scenes.all):
            return judge.health  # two pictures at once: the other one was judged meanwhile
        try:
            return self._judge(
                camera, watched, judge, _picture(look, still, unit, watched, self._boot())
            )
        except Exception as error:  # noqa: BLE001 - a picture is never withheld for a bug here
            self._emit(PictureNotJudged(camera=camera, error=repr(error)))
            self._forget(camera)
            self._judges[camera] = Judge()
            return None

    def _judge(self, camera: str, watched: _Watched, judge: Judge, picture: Picture) -> Health:
        before, now = judge.health, picture.now
        health = judge.judge(picture, watched.limits)
        has_changed = self._tell(camera, before, health, picture.at)
        has_learned = before is not None and before.is_learning and not health.is_learning
        save_s = max(SAVE_S, SAVE_POLLS * watched.interval_s)
        is_due = not 0 <= now - self._saved.setdefault(camera, now) < save_s
        if has_changed or has_learned or is_due:
            self._saved[camera] = now
            self._save_later(camera)
        return health

    def relearn(self, camera: str) -> Health | None:
        """Forget what is known of a camera: what its pictures show from now on is usual.

        Returns what was found last. None: its pictures are not judged.
        """
        if camera not in self._watched:
            return None
        judge = self._judges.get(camera)
        self._forget(camera)
        self._judges[camera] = Judge()
        self._save_later(camera)
        now = datetime.fromtimestamp(self._wall(), UTC)
        return (judge and judge.health) or Health(now, is_learning=True)

    def suspicions(self) -> dict[str, tuple[Suspicion, ...]]:
        """What is suspected of each camera that is suspect."""
        return {
            camera: tuple(suspicion for suspicion, _ in judge.health.suspicions)
            for camera, judge in self._judges.items()
            if judge.health is not None and judge.health.suspicions
        }

    async def run(self) -> None:
        """Write what is known, one camera after the other. It is lost when the disk fails."""
        while True:
            camera = await self._unsaved.get()
            self._waiting.discard(camera)
            directory, judge = self._directory(), self._judges.get(camera)
            watched = self._watched.get(camera)
            if directory is None or judge is None or watched is None:
                continue
            path = directory / camera / stored.NAME
            # No disk, no thread, or what is known can't be written
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                data = stored.content(judge, watched.address, self._wall(), self._boot())
                write = self._writer.submit(stored.write, path, data)
                await asyncio.wait({asyncio.wrap_future(write)}, timeout=WRITE_S)

    def _save_later(self, camera: str) -> None:
        if camera not in self._waiting:
            self._waiting.add(camera)
            self._unsaved.put_nowait(camera)

    async def _read(self, camera: str, watched: _Watched) -> Judge | None:
        """What an earlier run knew of a camera, or a new judge. None: the disk does not answer."""
        directory = self._directory()
        if directory is None:
            return None
        reading = self._reading.get(camera)
        if reading is None:
            path = directory / camera / stored.NAME
            work = partial(stored.read, path, watched.address, self._wall(), self._boot())
            try:
                reading = asyncio.wrap_future(self._threads.submit(work))
            except RuntimeError:  # the machine has no thread left
                return None
            self._reading[camera] = reading
            await asyncio.wait({reading}, timeout=READ_S)
        if self._watched.get(camera) != watched:  # a reload meanwhile
            return None
        if not reading.done():  # later pictures do not wait for a disk that does not answer
            return None
        self._reading.pop(camera, None)
        known = None if reading.exception() is not None else reading.result()
        return self._judges.setdefault(camera, known or Judge())

    def _tell(self, camera: str, before: Health | None, health: Health, at: datetime) -> bool:
        """Tell what is suspected now, and what is not any more. Returns whether there is any."""
        known = dict(() if before is None else before.suspicions)
        found = dict(health.suspicions)
        for suspicion, since in found.items():
            if suspicion not in known:
                self._emit(PictureSuspect(camera=camera, reason=suspicion, since=rfc3339(since)))
        for suspicion, since in known.items():
            if suspicion not in found:
                lasted_s = max(0.0, (at - since).total_seconds())
                self._emit(PictureRecovered(camera=camera, reason=suspicion, after_s=lasted_s))
        return found.keys() != known.keys()


def _picture(
    look: Look, still: Still, unit: CodedKeyframe, watched: _Watched, now: float
) -> Picture:
    return Picture(
        look,
        still.width,
        still.height,
        len(unit.data),
        unit.captured_at,
        now,
        watched.interval_s,
        unit.camera_clock_offset_s,
    )
