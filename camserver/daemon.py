"""The daemon's composition: build, start order, signals, reload, stop order.

It decides in what order things happen. It has no policy of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

from camserver.api.metrics import Metrics, MetricsSnapshot
from camserver.api.read_routes import ReadRoutes
from camserver.api.responses import Services
from camserver.api.sse import EventStream
from camserver.api.thumbnails import Thumbnails
from camserver.api.unix_server import AlreadyServed, ApiServer, ApiUnavailable
from camserver.api.web_server import WebServer, WebUnavailable
from camserver.capture.build import build_capture
from camserver.config import Camera, Inventory
from camserver.events import (
    ApiNotServed,
    ApiSocketDiffers,
    DaemonFault,
    DaemonLocked,
    DaemonReady,
    DaemonStopped,
    DaemonStopping,
    EventBus,
    InventoryNeedsRestart,
    InventoryWarning,
    Listener,
    StoreCleaned,
    WallNotServed,
)
from camserver.go2rtc.registry import StreamRegistry
from camserver.go2rtc.watcher import Go2rtc
from camserver.host import notify
from camserver.host.lock import lock_for_daemon
from camserver.host.redact import Redactor
from camserver.leases import Budget, Holder, Priority, RtspManager
from camserver.leases.journal import LeaseJournal
from camserver.leases.journal import load as load_journal
from camserver.model import Attempt, Result
from camserver.polling.orchestrator import PollingOrchestrator
from camserver.reload import InventoryReloader
from camserver.snapshots.service import SnapshotService
from camserver.snapshots.sources import Sources
from camserver.storage import Janitor, SnapshotStore
from camserver.storage.archive import Archive
from camserver.storage.published import published_event

STATUS_S = 10.0
LOCK_S = 5.0
REMEMBER_S = 2.0


class Configurable(Protocol):
    """A part of the daemon that is configured by the inventory."""

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Apply the inventory. Return the changed keys that need a restart."""


class Daemon:
    """One running camserver: `run` returns after a stop request, when everything is closed."""

    def __init__(
        self, path: Path, inventory: Inventory, redactor: Redactor, *listeners: Listener
    ) -> None:
        self._redactor = redactor
        redactor.replace_secrets(inventory.secrets)
        stream = EventStream(redactor.scrub)
        self._emit = EventBus(*listeners, stream)
        self._reloader = InventoryReloader(path, inventory, self._apply, self._emit)
        self._journal = LeaseJournal(inventory.api.socket.with_suffix(".leases"))
        self.manager = RtspManager(self._emit, self._journal)
        self._streams = StreamRegistry(self._emit, inventory.api.socket.with_suffix(".streams"))
        self._go2rtc = Go2rtc(self.manager, self._emit, self._streams)
        polling, output = inventory.polling, inventory.output
        self._capture = build_capture(
            output.quality,
            sessions=polling.sessions,
            decoders=polling.decoders,
            emit=self._emit,
        )
        self._service = SnapshotService(
            self.manager,
            Sources(self._capture.rtsp, self._capture.http, self._go2rtc),
            self._capture.decoder,
        )
        self._store = SnapshotStore(output)
        self._janitor = Janitor(output, inventory.retention, self._emit)
        self._archive = Archive(output)
        self.orchestrator = PollingOrchestrator(
            self._poll, sessions=polling.sessions, open_rate=polling.open_rate, emit=self._emit
        )
        # The wall has its own decoder worker: a wall that opens must not delay a poll.
        self._thumbnails = build_capture(output.quality)
        self._metrics = Metrics(self._metrics_snapshot)
        self._emit.add(self._metrics)
        services = Services(
            cameras=lambda: self._reloader.inventory.cameras,
            folder=lambda camera: self._store.output.directory / camera,
            manager=self.manager,
            polling=self.orchestrator.cameras,
            snapshot=self._snapshot,
            reload=self._reloader.reload,
        )
        thumbnails = Thumbnails(self._thumbnails.decoder)
        self._reading = ReadRoutes(services, stream, self._metrics, self._archive, thumbnails)
        self._api = ApiServer(services, self._reading)
        self._web = WebServer(inventory, services, self._reading)
        self._configurables: tuple[Configurable, ...] = (
            self._capture,
            self._store,
            self._janitor,
            self._archive,
            self._api,
            self._web,
        )
        self._stop = asyncio.Event()
        self._status = 0
        self._lock: IO[str] | None = None

    @property
    def _inventory(self) -> Inventory:
        return self._reloader.inventory

    async def run(self) -> int:
        """Start, poll until SIGTERM, SIGINT or `stop()`, stop in order. Returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.request)
        if not await self._take_lock() or not await self._open_api():
            return os.EX_TEMPFAIL
        removed = await self._store.clean()
        if removed:
            self._emit(StoreCleaned(files=removed))
        await self._remember({camera.id for camera in self._inventory.cameras})
        async with asyncio.TaskGroup() as group:
            jobs = [
                group.create_task(self._job(name, work), name=name)
                for name, work in (
                    ("watchdog", notify.watchdog()),
                    ("polling", self.orchestrator.run()),
                    ("retention", self._janitor.run()),
                    ("go2rtc", self._go2rtc.run()),
                    ("lock", self._keep_locking()),
                    ("reload", self._reloader.run()),
                    ("inventory watch", self._reloader.watch()),
                    ("status", self._status_loop()),
                )
            ]
            self._emit(
                DaemonReady(
                    cameras=len(self._inventory.cameras),
                    output=str(self._inventory.output.directory),
                )
            )
            notify.notify("READY=1")
            with contextlib.suppress(OSError):  # polls tell when no process can be started
                await self._capture.decoders.warm()
            await self._stop.wait()
            await self._stop_all(jobs)
        return self._status

    async def _remember(self, cameras: set[str]) -> None:
        """Tell the metrics how old the pictures are that these cameras already have."""
        self._metrics.remember(await asyncio.to_thread(self._store.newest, sorted(cameras)))

    def stop(self) -> None:
        """Request an orderly stop."""
        self._stop.set()

    # ---- one poll

    async def _poll(self, camera: Camera, failures: int) -> Attempt:
        return await self._service.take(
            camera, Holder("poller", camera.id), deliver=partial(self._deliver, failures)
        )

    async def _deliver(self, failures: int, attempt: Attempt) -> Attempt:
        if attempt.error is not None:
            attempt = replace(
                attempt,
                error=self._redactor.scrub(attempt.error),
                label=self._redactor.scrub(attempt.label),
            )
        started = asyncio.get_running_loop().time()
        attempt = await self._store.record(attempt, failures)
        if attempt.snapshot is not None:
            store_s = asyncio.get_running_loop().time() - started
            self._emit(published_event(attempt.snapshot, store_s))
        elif attempt.result is Result.STORAGE:
            self._janitor.kick()
        return attempt

    async def _snapshot(self, camera: Camera, holder: Holder) -> Attempt:
        """Take one picture now, because a client has requested it."""
        failures = self.orchestrator.failures(camera.id)
        return await self._service.take(
            camera, holder, Priority.EVENT, deliver=partial(self._deliver, failures)
        )

    # ---- start and stop

    async def _take_lock(self) -> bool:
        """Lock the output directory: only one daemon may write to it. False when another has it.

        A directory that cannot be written does not prevent the start; `_keep_locking` tries again.
        """
        directory = self._inventory.output.directory
        with contextlib.suppress(OSError):
            self._lock = await lock_for_daemon(directory)
            if self._lock is None:
                self._emit(DaemonLocked(reason=f"another camserver already writes to {directory}"))
                return False
        return True

    async def _keep_locking(self) -> None:
        """Try to lock the output directory until it can be written and is locked.

        Stops the daemon when another daemon has locked it by then.
        """
        while self._lock is None:
            await asyncio.sleep(LOCK_S)
            if not await self._take_lock():
                self._status = os.EX_TEMPFAIL
                self._stop.set()
                return

    async def _open_api(self) -> bool:
        """Restore the leases that the journal lists, then serve the API and the wall.

        Returns False when another daemon serves the socket. That daemon also owns the journal, and
        two daemons would open more sessions than cameras give.
        """
        path, inherited = self._inventory.api.socket, notify.inherited_socket("api")
        if inherited is not None and inherited.getsockname() != str(path):
            self._emit(ApiSocketDiffers(inherited=inherited.getsockname(), wanted=str(path)))
        try:
            await self._api.listen(path, inherited)
        except AlreadyServed as error:
            self._emit(DaemonLocked(reason=f"{error}: another camserver is running"))
            return False
        except ApiUnavailable as error:
            self._emit(ApiNotServed(reason=str(error)))
        self._streams.load()
        await self._configure()
        devices = {camera.id: camera.device for camera in self._inventory.cameras}
        self.manager.restore(load_journal(self._journal.path).on(devices))
        try:
            await self._web.start()
        except WebUnavailable as error:
            self._emit(WallNotServed(reason=str(error)))
        await self._go2rtc.look()  # its sessions must be counted before a lease is granted
        await self._api.serve()
        return True

    def _metrics_snapshot(self) -> MetricsSnapshot:
        """Return the statistics that the metrics show, as they are now."""
        pools = (self._capture.decoders, self._capture.sessions, self._thumbnails.decoders)
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

    async def _job(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a job. An exception is logged and stops the daemon; systemd starts it again."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - it is logged, and the daemon stops in order
            self._emit(DaemonFault(task=name, error=repr(error)))
            self._status = 1
            self._stop.set()

    def _on_stop_signal(self, number: int) -> None:
        if self._stop.is_set():  # the second signal: exit at once; workers die with their parent
            os._exit(1)
        self._emit(DaemonStopping(signal=signal.Signals(number).name))
        self._stop.set()

    async def _stop_all(self, jobs: list[asyncio.Task[None]]) -> None:
        """Stop everything in order, within stop_timeout, whatever cameras and disks do."""
        limit_s = self._inventory.polling.stop_timeout
        notify.notify("STOPPING=1")
        # A hung disk blocks a thread that cannot be cancelled. Then this timer ends the process.
        last_resort = threading.Timer(limit_s, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()
        # 1. No new polls and requests. Running ones may finish; then their sessions are closed.
        self._go2rtc.expedite_close()
        await asyncio.gather(
            self.orchestrator.stop(limit_s * 0.4), self._api.stop(), self._web.stop()
        )
        await self._go2rtc.close()
        await self._capture.sessions.close()  # 2. no worker has a session any more
        self._reading.close()
        await self._thumbnails.close()
        await self._capture.decoders.close()  # 3. nothing is left to decode
        for job in jobs:  # 4. watcher, retention, status, watchdog
            job.cancel()
        await asyncio.wait(jobs)
        self._journal.close()
        if self._lock is not None:  # 5. another camserver may write here now
            self._lock.close()
        # 6. After this no thread reads or writes any more.
        await asyncio.to_thread(self._reading.threads.shutdown)
        await asyncio.get_running_loop().shutdown_default_executor()
        self._emit(DaemonStopped())
        last_resort.cancel()

    # ---- inventory

    async def _configure(self) -> None:
        cameras = self._inventory.cameras
        self.manager.configure(
            {c.device: budget_of(c) for c in cameras}, {c.id: c.device for c in cameras}
        )
        await self._go2rtc.configure(self._inventory.go2rtc, cameras)
        self.orchestrator.configure(cameras, open_rate=self._inventory.polling.open_rate)
        for warning in self._inventory.warnings:
            self._emit(InventoryWarning(warning=warning))

    async def _apply(self, old: Inventory, new: Inventory) -> None:
        """Configure all parts by a new inventory."""
        self._redactor.replace_secrets((*old.secrets, *new.secrets))
        for part in self._configurables:
            for key in part.configure(new):
                self._emit(InventoryNeedsRestart(key=key))
        await self._configure()
        if added := {c.id for c in new.cameras} - {c.id for c in old.cameras}:
            # A disk that hangs must not delay the reload for long.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REMEMBER_S):
                    await self._remember(added)

    # ---- status

    async def _status_loop(self) -> None:
        while True:
            s = self.orchestrator.statistics()
            notify.notify(
                f"STATUS={s.cameras} cameras: {s.fresh} fresh, {s.failing} failing, {s.running}"
                " being polled"
            )
            await asyncio.sleep(STATUS_S)


def budget_of(camera: Camera) -> Budget:
    """Return the session budget of the camera's device, from the inventory."""
    return Budget(camera.max_sessions, camera.cooldown_s, camera.unclean_cooldown_s)
