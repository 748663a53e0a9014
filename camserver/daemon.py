"""The daemon's composition: build, start order, signals, reload, stop order.

Owns the order of things, no policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import IO, Any

from watchfiles import awatch

from camserver.api.metrics import Metrics, MetricsSnapshot
from camserver.api.read_routes import Reading
from camserver.api.responses import Services
from camserver.api.sse import EventStream
from camserver.api.thumbnails import Thumbnails
from camserver.api.unix_server import AlreadyServed, ApiServer, ApiUnavailable
from camserver.api.web_server import WebServer, WebUnavailable
from camserver.capture.decoder import Decoder
from camserver.capture.engines import Engines
from camserver.capture.http import HttpSource
from camserver.capture.libav import LibavEngine
from camserver.capture.native import NativeEngine
from camserver.config import Camera, Inventory, load_inventory
from camserver.errors import InventoryError
from camserver.events import EventBus, Listener, Notice, SnapshotPublished
from camserver.go2rtc.watcher import Go2rtc
from camserver.host import notify
from camserver.host.clock import rfc3339
from camserver.host.lock import lock_for_daemon
from camserver.host.redact import Redactor
from camserver.leases import Budget, Holder, Priority, RtspManager
from camserver.leases.journal import LeaseJournal
from camserver.leases.journal import load as load_state
from camserver.model import Attempt, Result, SessionEnd, Snapshot
from camserver.polling.orchestrator import PollingOrchestrator
from camserver.snapshots.service import SnapshotService
from camserver.storage import Janitor, SnapshotStore
from camserver.storage.archive import Archive
from camserver.workers.pool import WorkerPool

EX_TEMPFAIL = 75
STATUS_S = 10.0
LOCK_S = 5.0
LIBAV_SESSIONS = 16
"""Session workers at once; each is a process. Cameras that speak with our own client need none."""
REMEMBER_S = 2.0
RESTART_ONLY = (
    "api.socket",
    "output.directory",
    "polling.decoders",
    "polling.sessions",
    "http.listen",
    "http.username",
    "http.password",
    "http.actions",
)
"""Keys that a reload reads but only a restart applies."""


class Daemon:
    """One running camserver: `run` returns when it was told to stop and everything is closed."""

    def __init__(
        self, path: Path, inventory: Inventory, redactor: Redactor, *listeners: Listener
    ) -> None:
        self._path = path
        self._inventory = inventory
        self._redactor = redactor
        redactor.replace_secrets(inventory.secrets)
        self._state = LeaseJournal(inventory.api.socket.with_suffix(".leases"), self._cooldown_s)
        events = EventStream(redactor.scrub)
        self._emit = EventBus(*listeners, events)
        polling, output = inventory.polling, inventory.output
        self._decoders = WorkerPool(
            "decoder",
            polling.decoders or os.cpu_count() or 1,
            on_unsealed=lambda why: self._note(
                "decoder.unsealed",
                f"decoders are not sealed off from network and files: {why}",
                "warning",
            ),
        )
        self._sessions = WorkerPool("session", min(polling.sessions, LIBAV_SESSIONS))
        self._decoder = Decoder(self._decoders, output.quality)
        self.manager = RtspManager(self._emit)
        self._store = SnapshotStore(output)
        self._janitor = Janitor(output, inventory.retention, self._emit)
        self._go2rtc = Go2rtc(self.manager, self._emit)
        self._engines = Engines(NativeEngine(), LibavEngine(self._sessions), self._emit)
        self._service = SnapshotService(
            self.manager, self._engines, HttpSource(), self._decoder, self._go2rtc
        )
        self.orchestrator = PollingOrchestrator(
            self._poll, sessions=polling.sessions, open_rate=polling.open_rate, emit=self._emit
        )
        services = Services(
            cameras=lambda: self._inventory.cameras,
            folder=lambda camera: self._store.output.directory / camera,
            manager=self.manager,
            polling=self.orchestrator.cameras,
            snapshot=self._snapshot,
            reload=self._reload_once,
        )
        # Of their own: a wall that opens must not delay a poll
        self._thumbnails = WorkerPool("decoder", 1)
        self._archive = Archive(output)
        self._metrics = Metrics(self._scene)
        self._emit.add(self._metrics)
        self._reading = Reading(
            services,
            events,
            self._metrics,
            self._archive,
            Thumbnails(Decoder(self._thumbnails, output.quality)),
        )
        self._api = ApiServer(services, self._reading)
        self._web = WebServer(
            inventory.http,
            services,
            self._reading,
            timezone=output.timezone,
            go2rtc=_player(inventory),
        )
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

        self._reloading = asyncio.Lock()
        self._folders_changed = asyncio.Event()
        self._status = 0
        self._lock: IO[str] | None = None

    async def run(self) -> int:
        """Start, poll until SIGTERM, SIGINT or `stop()`, stop in order. Returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        if not await self._take_lock() or not await self._open_api():
            return EX_TEMPFAIL
        removed = await self._store.clean()
        if removed:
            self._note(
                "store.cleaned",
                f"{removed} temporary files of an earlier run removed",
                files=removed,
            )
        await self._remember({camera.id for camera in self._inventory.cameras})
        jobs = [
            self._start(name, work)
            for name, work in (
                ("watchdog", notify.watchdog()),
                ("polling", self.orchestrator.run()),
                ("retention", self._janitor.run()),
                ("go2rtc", self._go2rtc.run()),
                ("lock", self._keep_locking()),
                ("reload", self._reload_loop()),
                ("inventory watch", self._watch_files()),
                ("status", self._status_loop()),
            )
        ]
        self._note(
            "daemon.ready",
            f"{len(self._inventory.cameras)} cameras, pictures go to"
            f" {self._inventory.output.directory}",
        )
        notify.notify("READY=1")
        await self._decoders.warm()
        await self._stop.wait()
        await self._stop_all(jobs)
        return self._status

    async def _remember(self, cameras: set[str]) -> None:
        """How fresh the pictures are that these cameras have already."""
        self._metrics.remember(await asyncio.to_thread(self._store.newest, sorted(cameras)))

    def stop(self) -> None:
        """Ask for the orderly stop."""
        self._stop.set()

    # ---- one poll

    async def _poll(self, camera: Camera, failures: int) -> Attempt:
        return await self._service.take(
            camera, Holder("poller", camera.id), deliver=partial(self._deliver, failures)
        )

    async def _deliver(self, failures: int, attempt: Attempt) -> Attempt:
        if attempt.error is not None:
            attempt = Attempt(
                attempt.camera, attempt.at, attempt.result, self._redactor.scrub(attempt.error)
            )
        started = asyncio.get_running_loop().time()
        attempt = await self._store.record(attempt, failures)
        if attempt.snapshot is not None:
            self._emit(_published(attempt.snapshot, asyncio.get_running_loop().time() - started))
        elif attempt.result is Result.STORAGE:
            self._janitor.kick()
        return attempt

    async def _snapshot(self, camera: Camera, holder: Holder) -> Attempt:
        """One picture now, for somebody who asks."""
        failures = self.orchestrator.failures(camera.id)
        return await self._service.take(
            camera, holder, Priority.EVENT, deliver=partial(self._deliver, failures)
        )

    # ---- start and stop

    async def _take_lock(self) -> bool:
        """One daemon for one output directory.

        One that cannot be written is no reason not to start: `_keep_locking`.
        """
        directory = self._inventory.output.directory
        with contextlib.suppress(OSError):
            self._lock = await lock_for_daemon(directory)
            if self._lock is None:
                self._note(
                    "daemon.locked", f"another camserver already writes to {directory}", "error"
                )
                return False
        return True

    async def _keep_locking(self) -> None:
        """Until the output directory can be written and is ours.

        Ends the daemon when it is another's by then.
        """
        while self._lock is None:
            await asyncio.sleep(LOCK_S)
            if not await self._take_lock():
                self._status = EX_TEMPFAIL
                self._stop.set()
                return

    async def _open_api(self) -> bool:
        """Let others in, after remembering who already has sessions.

        False when another daemon serves the socket.

        It also keeps the journal of leases then; and two daemons would open more sessions than
        cameras give.
        """

        def unclean_s(device: str) -> float:
            return self._cooldown_s(device, SessionEnd.UNCLEAN)

        path, inherited = self._inventory.api.socket, notify.inherited_socket("api")
        if inherited is not None and inherited.getsockname() != str(path):
            self._note(
                "api.socket",
                f"camserver.socket listens on {inherited.getsockname()}, not on {path} of the"
                " inventory",
                "warning",
            )
        try:
            await self._api.listen(path, inherited)
        except AlreadyServed as error:
            self._note("daemon.locked", f"{error}: another camserver is running", "error")
            return False
        except ApiUnavailable as error:
            self._note("api.unavailable", f"{error}: polling goes on without the API", "warning")
        await self._configure()
        state = load_state(self._state.path).on({c.id: c.device for c in self._inventory.cameras})
        self.manager.restore(state, unclean_s)
        self._state.take_over(state, unclean_s)
        self._go2rtc.restore(state.streams)
        self._emit.add(self._state)
        try:
            await self._web.start()
        except WebUnavailable as error:
            self._note("http.unavailable", f"{error}: there is no wall page", "warning")
        await self._go2rtc.look()  # before anybody gets a lease
        await self._api.serve()
        return True

    def _scene(self) -> MetricsSnapshot:
        """What metrics show, at this moment."""
        pools = (self._decoders, self._sessions, self._thumbnails)
        return MetricsSnapshot(
            time.time(),
            asyncio.get_running_loop().time(),
            self.orchestrator.statistics(),
            self.orchestrator.cameras(),
            self.manager.statistics(),
            self._store.output.directory,
            {
                name: sum(p.restarts for p in pools if p.name == name)
                for name in ("decoder", "session")
            },
            self._go2rtc.up,
        )

    def _cooldown_s(self, device: str, end: str) -> float:
        camera = next((c for c in self._inventory.cameras if c.device == device), None)
        if camera is None:
            return 0.0
        return budget_of(camera).cooldown_after(SessionEnd(end))

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._on_job_done)
        return task

    def _on_job_done(self, task: asyncio.Task[None]) -> None:
        """A job that ends by an error of ours ends the daemon, visibly; systemd starts it again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._note("daemon.fault", f"{task.get_name()} failed: {error!r}", "error")
            self._status = 1
            self._stop.set()

    def _on_stop_signal(self, number: int) -> None:
        if self._stop.is_set():  # the second signal: at once; workers die with their parent
            os._exit(1)
        self._note("daemon.stopping", f"{signal.Signals(number).name}: stopping")
        self._stop.set()

    async def _stop_all(self, jobs: list[asyncio.Task[None]]) -> None:
        """The stop order; bounded by stop_timeout whatever cameras and disks do."""
        limit_s = self._inventory.polling.stop_timeout
        notify.notify("STOPPING=1")
        # A hung disk holds a thread that nothing can cancel
        last_resort = threading.Timer(limit_s, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()
        # 1. no new polls and requests; running ones may end, then their sessions are closed
        self._go2rtc.expedite_close()
        await asyncio.gather(
            self.orchestrator.stop(limit_s * 0.4), self._api.stop(), self._web.stop()
        )
        await self._go2rtc.close()
        await self._sessions.close()  # 2. no worker holds a session any more
        self._reading.close()
        await self._thumbnails.close()
        await self._decoders.close()  # 3. nothing is left to decode
        for job in jobs:  # 4. watcher, retention, status, watchdog
            job.cancel()
        await asyncio.wait(jobs)
        self._state.close()
        if self._lock is not None:  # 5. another camserver may write here now
            self._lock.close()
        # 6. no thread reads or writes any more
        await asyncio.to_thread(self._reading.threads.shutdown)
        await asyncio.get_running_loop().shutdown_default_executor()
        self._note("daemon.stopped", "stopped; no session is left open")
        last_resort.cancel()

    # ---- inventory

    async def _configure(self) -> None:
        cameras = self._inventory.cameras
        self.manager.configure(
            {c.device: budget_of(c) for c in cameras}, {c.id: c.device for c in cameras}
        )
        await self._go2rtc.configure(self._inventory.go2rtc, cameras)
        self.orchestrator.configure(cameras)
        for warning in self._inventory.warnings:
            self._note("inventory.warning", warning, "warning")

    async def _reload_loop(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            await self._reload_once()

    async def _reload_once(self) -> tuple[str, ...]:
        """Take the inventory over, or none of it; returns its faults."""
        async with self._reloading:
            notify.reloading()
            try:
                inventory = await asyncio.to_thread(load_inventory, self._path)
            except InventoryError as error:
                for fault in error.faults:
                    self._note(
                        "inventory.refused", f"{fault}; the running inventory stays", "error"
                    )
                return error.faults
            finally:
                notify.notify("READY=1")
            await self._take_over(inventory)
            return ()

    async def _take_over(self, inventory: Inventory) -> None:
        old, self._inventory = self._inventory, inventory
        self._redactor.replace_secrets((*old.secrets, *inventory.secrets))
        for key in RESTART_ONLY:
            table, _, name = key.partition(".")
            if getattr(getattr(old, table), name) != getattr(getattr(inventory, table), name):
                self._note(
                    "inventory.restart",
                    f"{key} was changed: it takes effect after a restart",
                    "warning",
                )
        output = inventory.output.model_copy(update={"directory": self._store.output.directory})
        self._store.output = self._janitor.output = self._archive.output = output
        self._decoder.quality = output.quality
        if inventory.directories != old.directories:
            self._folders_changed.set()
        self._janitor.policy = inventory.retention
        self._web.configure(
            inventory.http.hosts, go2rtc=_player(inventory), timezone=output.timezone
        )
        self.orchestrator.open_rate = inventory.polling.open_rate
        self._engines.reloaded()
        await self._configure()
        if new := {c.id for c in inventory.cameras} - {c.id for c in old.cameras}:
            # A disk that hangs must not hold up the reload
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REMEMBER_S):
                    await self._remember(new)
        self._note(
            "inventory.loaded", f"{len(inventory.cameras)} cameras", cameras=len(inventory.cameras)
        )

    async def _watch_files(self) -> None:
        """Reload when the inventory or an included file changes.

        Editors replace files, so folders are watched.
        """
        while True:
            self._folders_changed.clear()
            folders = [d for d in self._inventory.directories if d.is_dir()]
            ours = {f.absolute() for f in self._inventory.files} | {
                f.resolve() for f in self._inventory.files
            }
            try:
                async for changes in awatch(
                    *folders, recursive=False, debounce=400, stop_event=self._folders_changed
                ):
                    if any(p.endswith(".toml") or Path(p) in ours for _, p in changes):
                        self._reload.set()
            except (OSError, RuntimeError) as error:
                # Watchfiles says it has no inotify left in a RuntimeError
                self._note(
                    "inventory.watch",
                    f"changes are not watched ({error}); use systemctl reload",
                    "warning",
                )
                return
            self._reload.set()  # other folders now: what changed in them meanwhile was not seen

    # ---- words

    async def _status_loop(self) -> None:
        while True:
            s = self.orchestrator.statistics()
            notify.notify(
                f"STATUS={s.cameras} cameras: {s.fresh} fresh, {s.failing} failing, {s.running}"
                " being polled"
            )
            await asyncio.sleep(STATUS_S)

    def _note(self, name: str, message: str, level: Any = "info", **data: object) -> None:
        self._emit(Notice(name=name, message=message, level=level, data=data))


def _player(inventory: Inventory) -> str | None:
    """Where browsers reach go2rtc."""
    return inventory.go2rtc.page or inventory.go2rtc.api


def budget_of(camera: Camera) -> Budget:
    """What the inventory says of its device."""
    return Budget(camera.max_sessions, camera.cooldown_s, camera.unclean_cooldown_s)


def _published(snapshot: Snapshot, store_s: float) -> SnapshotPublished:
    """What the log, metrics and listeners are told of a picture."""

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else seconds * 1000

    still, phases = snapshot.still, snapshot.phases
    return SnapshotPublished(
        camera=snapshot.camera,
        source=snapshot.source,
        engine=snapshot.engine or "",
        width=still.width,
        height=still.height,
        bytes=len(still.jpeg),
        codec=still.codec,
        captured_at=rfc3339(snapshot.captured_at),
        capture_ms=snapshot.capture_ms,
        lease_wait_ms=snapshot.lease_wait_ms,
        open_ms=ms(phases.open),
        keyframe_ms=ms(phases.keyframe),
        decode_ms=ms(phases.decode),
        encode_ms=ms(phases.encode),
        store_ms=ms(store_s),
        cpu_ms=ms(phases.cpu),
        camera_clock_offset_s=snapshot.camera_clock_offset_s,
    )
