"""The daemon's composition: build, start order, signals, reload, stop order.

It decides in what order things happen. It has no policy of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from camserver.api.metrics import Metrics, MetricsSnapshot
from camserver.api.peer_server import PeerServer
from camserver.api.pictures import PictureRoutes
from camserver.api.read_routes import ReadRoutes
from camserver.api.responses import Services
from camserver.api.sse import EventStream
from camserver.api.thumbnails import Thumbnails
from camserver.api.unix_server import AlreadyServed, ApiServer, ApiUnavailable
from camserver.api.web_server import WebServer, WebUnavailable
from camserver.capture.build import build_capture
from camserver.config import Camera, Inventory
from camserver.event_log import EventLog
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
    WallNotServed,
)
from camserver.events.fleet import FleetNotServed
from camserver.go2rtc.registry import StreamRegistry
from camserver.go2rtc.watcher import Go2rtc, Observed
from camserver.health import PictureHealth
from camserver.host import memory, notify, threads
from camserver.host.redact import Redactor
from camserver.host.stop_limit import StopLimit
from camserver.leases import Holder, Priority, RtspManager, budgets_of
from camserver.leases.journal import LeaseJournal
from camserver.leases.journal import load as load_journal
from camserver.model import Attempt
from camserver.output import Output
from camserver.polling.on_demand import OnDemand
from camserver.polling.orchestrator import PollingOrchestrator
from camserver.reload import InventoryReloader
from camserver.snapshots.service import SnapshotService
from camserver.snapshots.sources import Sources
from camserver.summary import keep_status, keep_summary

if TYPE_CHECKING:
    from camserver.config.fleet import FleetTable
    from camserver.fleet.build import Fleet

T = TypeVar("T")


class Configurable(Protocol):
    """A part of the daemon that is configured by the inventory."""

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Apply the inventory. Return the changed keys that need a restart."""


class Daemon:
    """One running camserver: `run` returns after a stop request, when everything is closed."""

    def __init__(
        self,
        path: Path,
        inventory: Inventory,
        redactor: Redactor,
        *listeners: Listener,
        set_log_level: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`listeners` write the log. `set_log_level` sets its level (the name of a level)."""
        self._redactor = redactor
        redactor.replace_secrets(inventory.secrets)
        stream = EventStream(redactor.line_of_now)
        self._log = EventLog(EventBus(*listeners), set_log_level)
        self._emit = EventBus(self._log, stream)
        self._reloader = InventoryReloader(path, inventory, self._apply, self._emit)
        self._journal = LeaseJournal(inventory.api.socket.with_suffix(".leases"), self._emit)
        self.manager = RtspManager(self._emit, self._journal, in_fleet=inventory.fleet is not None)
        self._streams = StreamRegistry(self._emit, inventory.api.socket.with_suffix(".streams"))
        self._go2rtc = Go2rtc(self._observe, self._emit, self._streams)
        polling, output = inventory.polling, inventory.output
        self._capture = build_capture(
            output.quality,
            sessions=polling.sessions,
            decoders=polling.decoders,
            emit=self._emit,
        )
        self._output = Output(inventory, self._emit)
        self._health = PictureHealth(inventory, self._emit, self._output.writable)
        sources = Sources(self._capture.rtsp, self._capture.http, self._go2rtc)
        self._service = SnapshotService(
            self.manager, sources, self._capture.decoder, health=self._health
        )
        self.orchestrator = PollingOrchestrator(
            self._poll, sessions=polling.sessions, open_rate=polling.open_rate, emit=self._emit
        )
        self._fleet = None if inventory.fleet is None else self._fleet_of(inventory.fleet)
        # The wall has its own decoder worker: a wall that opens must not delay a poll.
        self._thumbnails = self._capture.another_decoder()
        self._metrics = Metrics(self._metrics_snapshot)
        self._emit.add(self._metrics)
        services = self._services()
        thumbnails = Thumbnails(self._thumbnails)
        pictures = PictureRoutes(services, self._output.archive.listing, thumbnails)
        self._reading = ReadRoutes(services, stream, self._metrics, pictures)
        self._api = ApiServer(services, self._reading)
        self._web = WebServer(inventory, services, self._reading, self._emit)
        self._peers = self._peer_server(services)
        self._configurables: tuple[Configurable, ...] = (
            self._capture,
            self._log,
            self._output,
            self._health,
            self._api,
            self._web,
            *(() if self._fleet is None else (self._fleet,)),
        )
        self._stop = asyncio.Event()
        self._status = 0
        self._stop_limit = StopLimit(self._log.say_stop_forced)

    def _fleet_of(self, table: FleetTable) -> Fleet:
        # A host on its own needs none of it
        from camserver.fleet.build import Fleet  # noqa: PLC0415

        return Fleet(table, self._inventory, self.manager, self.orchestrator, self._emit)

    def _observe(self, camera: str, device: str, holder: Holder) -> Observed:
        return (self._fleet or self.manager).observe(camera, device, holder)

    def _services(self) -> Services:
        return Services(
            cameras=lambda: self._reloader.inventory.cameras,
            folder=lambda camera: self._output.directory.path / camera,
            outcomes=self._output.outcomes,
            manager=self.manager,
            polling=self.orchestrator.cameras,
            on_demand=OnDemand(self.orchestrator, self._output.outcomes),
            reload=self._reloader.reload,
            confirm_clock=self._output.archive.retention.confirm,
            relearn=self._health.relearn,
            fleet=self._fleet,
        )

    def _peer_server(self, services: Services) -> PeerServer | None:
        fleet = self._fleet
        listener = None if fleet is None else fleet.listener()
        if fleet is None or listener is None:
            return None
        return PeerServer(*listener, services, self._reading, fleet.member.promise, fleet.lend)

    @property
    def _inventory(self) -> Inventory:
        return self._reloader.inventory

    async def run(self) -> int:
        """Start, poll until SIGTERM, SIGINT or `stop()`, stop in order. Returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.request)
        if not await self._output.directory.take() or not await self._open_api():
            return os.EX_TEMPFAIL
        await self._output.remember(self._inventory)
        memory.settle()
        async with asyncio.TaskGroup() as group:
            jobs: list[asyncio.Task[None]] = []
            if not self._stop.is_set():
                jobs += [
                    group.create_task(self._job(name, work), name=name)
                    for name, work in self._jobs().items()
                ]
                await asyncio.sleep(0)  # the jobs begin: READY is said when polling runs
                self._say_ready()
                warm = self._job("first decoder", self._capture.decoders.warm())
                jobs.append(group.create_task(warm, name="first decoder"))
                await self._stop.wait()
            await self._stop_all(jobs)
        return self._status

    def _jobs(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "watchdog": notify.watchdog(),
            "memory": memory.keep_giving_back(),
            "polling": self.orchestrator.run(),
            **self._output.jobs(),
            "health": self._health.run(),
            "go2rtc": self._go2rtc.run(),
            "output directory": self._keep_directory(),
            "reload": self._reloader.run(),
            "inventory watch": self._reloader.watch(),
            "status": keep_status(self.orchestrator),
            "summary": keep_summary(
                self._log, self._output, self.orchestrator, self.manager, self._emit
            ),
            **({} if self._fleet is None else self._fleet.jobs(self._reading.events)),
        }

    def _say_ready(self) -> None:
        output = str(self._inventory.output.directory)
        self._emit(DaemonReady(cameras=len(self._inventory.cameras), output=output))
        notify.notify("READY=1")

    def stop(self) -> None:
        """Request an orderly stop, which takes at most stop_timeout."""
        self._stop_limit.start(self._inventory.polling.stop_timeout)
        self._stop.set()

    # ---- one poll

    async def _poll(self, camera: Camera, failures: int, asker: Holder | None) -> Attempt:
        """Take one picture: for the schedule, or for a client that waits for it."""
        return await self._service.take(
            camera,
            asker or Holder("poller", camera.id),
            Priority.POLL if asker is None else Priority.EVENT,
            deliver=partial(self._deliver, failures),
        )

    async def _deliver(self, failures: int, attempt: Attempt) -> Attempt:
        if attempt.error is not None:
            attempt = replace(
                attempt,
                error=self._redactor.line(attempt.error),
                label=self._redactor.line(attempt.label),
            )
        return await self._output.deliver(attempt, failures)

    # ---- start and stop

    async def _keep_directory(self) -> None:
        """Keep the output directory locked. Stop the daemon when another one has locked it."""
        await self._output.directory.keep()
        self._status = os.EX_TEMPFAIL
        self.stop()

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
        if self._peers is not None:
            try:
                await self._peers.start()
            except OSError as error:
                self._emit(FleetNotServed(reason=error.strerror or str(error)))
        await self._go2rtc.look()  # its sessions must be counted before a lease is granted
        await self._api.serve()
        return True

    def _metrics_snapshot(self) -> MetricsSnapshot:
        """Return the statistics that the metrics show, as they are now."""
        pools = (self._capture.decoders, self._capture.sessions, self._thumbnails.pool)
        return MetricsSnapshot(
            asyncio.get_running_loop().time(),
            self.orchestrator.statistics(),
            self.orchestrator.cameras(),
            self.manager.statistics(),
            self._output.directory.path,
            self._output.directory.is_usable,
            self._journal.is_written,
            self._of_this_host(self._output.outcomes.ages_s()),
            self._of_this_host(self._output.outcomes.captured_at()),
            self._output.archive.statistics(),
            {
                name: sum(p.restarts for p in pools if p.name == name)
                for name in ("decoder", "session")
            },
            self._go2rtc.up,
            None if self._fleet is None else self._fleet.statistics(),
            self._of_this_host(self._health.suspicions()),
        )

    def _of_this_host(self, values: dict[str, T]) -> dict[str, T]:
        """The values of the cameras that this host polls. Another one has newer pictures."""
        if self._fleet is None:
            return values
        polled = {camera.id for camera in self._fleet.polled}
        return {camera: value for camera, value in values.items() if camera in polled}

    async def _job(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a job. An exception is logged and stops the daemon; systemd starts it again."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - it is logged, and the daemon stops in order
            self._emit(DaemonFault(task=name, error=repr(error)))
            self._status = 1
            self.stop()

    def _on_stop_signal(self, number: int) -> None:
        if self._stop.is_set():  # the second signal: exit at once; workers die with their parent
            os._exit(1)
        self._emit(DaemonStopping(signal=signal.Signals(number).name))
        self.stop()

    async def _stop_all(self, jobs: list[asyncio.Task[None]]) -> None:
        """Stop everything in order, within stop_timeout, whatever cameras and disks do."""
        limit, limit_s = self._stop_limit, self._inventory.polling.stop_timeout
        notify.notify("STOPPING=1")
        # 1. No new polls and requests. Running ones may finish; then their sessions are closed.
        limit.waits_for = "polls and requests"
        self._go2rtc.expedite_close()
        if self._fleet is not None:
            limit.waits_for = "the fleet: devices are handed over"
            await self._fleet.leave(limit_s * 0.5)
        await asyncio.gather(
            self.orchestrator.stop(limit_s * 0.4),
            self._api.stop(),
            self._web.stop(),
            *(() if self._peers is None else (self._peers.stop(),)),
        )
        limit.waits_for = "go2rtc"
        await self._go2rtc.close()
        limit.waits_for = "workers"
        await self._capture.rtsp.libav.close()  # 2. no worker has a session any more
        self._reading.close()
        await self._thumbnails.pool.close()
        await self._capture.close()  # 3. nothing is left to decode
        limit.waits_for = "jobs"
        for job in jobs:  # 4. watcher, retention, status, watchdog
            job.cancel()
        if jobs:
            await asyncio.wait(jobs)
        if self._fleet is not None:
            await self._fleet.close()
        limit.waits_for = "the disk: pictures are being written"
        await self._output.close(limit_s * 0.2)
        self._journal.close()
        self._output.directory.release()  # 5. another camserver may write here now
        limit.waits_for = "threads"
        await asyncio.get_running_loop().shutdown_default_executor()
        self._emit(DaemonStopped())
        limit.cancel()

    # ---- inventory

    async def _configure(self) -> None:
        cameras = self._inventory.cameras
        budgets, devices = budgets_of(cameras), {c.id: c.device for c in cameras}
        await asyncio.sleep(0)  # as in _apply
        self.manager.configure(budgets, devices)
        await self._go2rtc.configure(self._inventory.go2rtc, cameras)
        await asyncio.sleep(0)  # as in _apply
        polled = cameras if self._fleet is None else self._fleet.polled
        self.orchestrator.configure(polled, open_rate=self._inventory.polling.open_rate)
        for warning in self._inventory.warnings:
            self._emit(InventoryWarning(warning=warning))

    async def _apply(self, old: Inventory, new: Inventory) -> None:
        """Configure all parts by a new inventory."""
        replace_secrets = partial(self._redactor.replace_secrets, (*old.secrets, *new.secrets))
        await threads.call_within(None, replace_secrets, "secrets")
        if self._fleet is None and new.fleet is not None:
            self._emit(InventoryNeedsRestart(key="fleet"))
        for part in self._configurables:
            await asyncio.sleep(0)  # each part looks at all cameras: sessions go on between them
            for key in part.configure(new):
                self._emit(InventoryNeedsRestart(key=key))
        await self._configure()
        if {c.id for c in new.cameras} - {c.id for c in old.cameras}:
            await self._output.remember(new)
