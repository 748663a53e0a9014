"""`/metrics` for Prometheus: counters fed by events, and a snapshot of the statistics.

No other module imports prometheus_client.

The statistics are collected on the event loop, which is cheap. They are rendered in a thread: for
thousands of cameras this takes a tenth of a second. docs/metrics.md lists the metrics. The only
labels are cameras, devices, phases, poll results, suspicions and worker pools.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from camserver import __version__
from camserver.api.fleet_metrics import fleet_metrics
from camserver.archive.build import ArchiveStatistics
from camserver.events import Event, SnapshotPublished
from camserver.freshness import FreshnessLimits
from camserver.host.disk import Disk
from camserver.leases import DeviceStatistics
from camserver.model import Suspicion
from camserver.polling.entry import CameraPolling, PollingStatistics
from camserver.polling.lateness import BOUNDS_S

PHASES = ("lease_wait", "open", "keyframe", "decode", "encode", "store")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """All statistics at one moment, `now` on the event loop's clock."""

    now: float
    polling: PollingStatistics
    cameras: tuple[CameraPolling, ...]
    devices: tuple[DeviceStatistics, ...]
    directory: Path
    output_is_usable: bool
    journal_is_written: bool
    ages_s: dict[str, float]
    captured_at: dict[str, float]
    """Age, and seconds since 1970, of the newest picture of each camera that has one."""
    archive: ArchiveStatistics
    worker_restarts: dict[str, int]
    go2rtc_up: bool | None
    fleet: dict[str, float] | None
    """The values of the fleet's metrics. None: this host is on its own."""
    suspicions: dict[str, tuple[Suspicion, ...]]
    """What is suspected of the pictures of each camera that is suspect."""


@dataclass(slots=True)
class _Camera:
    bytes_total: int = 0
    cpu_s_total: float = 0.0
    clock_offset_s: float | None = None


class Metrics:
    """A listener of events, and the handler of the route; `look` returns the statistics."""

    def __init__(self, look: Callable[[], MetricsSnapshot]) -> None:
        self._collect = look
        self._disk = Disk()
        # Its own thread: rendering must not take one that publishing needs.
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._cameras: defaultdict[str, _Camera] = defaultdict(_Camera)
        self._phases = Histogram(
            "camserver_capture_phase_seconds",
            "Where the time of a published picture went.",
            ["phase"],
            buckets=BUCKETS,
            registry=None,
        )

    def __call__(self, event: Event) -> None:
        """Count a published picture."""
        if not isinstance(event, SnapshotPublished):
            return
        camera = self._cameras[event.camera]
        camera.bytes_total += event.bytes
        camera.cpu_s_total += (event.cpu_ms or 0.0) / 1000
        camera.clock_offset_s = event.camera_clock_offset_s
        for phase in PHASES:
            if (ms := getattr(event, f"{phase}_ms")) is not None:
                self._phases.labels(phase).observe(ms / 1000)

    async def answer(self, _: web.Request) -> web.Response:
        """Answer a request for /metrics."""
        snapshot = self._collect()
        known = {
            c.camera: self._cameras.get(c.camera, _Camera())
            for c in snapshot.cameras
            if c.camera in snapshot.captured_at
        }
        disk = None
        if snapshot.output_is_usable:
            disk = await self._disk.usage(snapshot.directory)
        body = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._render, snapshot, known, disk
        )
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _render(
        self, snapshot: MetricsSnapshot, known: dict[str, _Camera], disk: tuple[int, int] | None
    ) -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(
            _Once(
                (
                    *_pictures(snapshot, known),
                    *_cameras(snapshot),
                    _suspicions(snapshot),
                    *_devices(snapshot),
                    *_daemon(snapshot),
                    *_disk(disk),
                    *_archive(snapshot.archive),
                    *(() if snapshot.fleet is None else fleet_metrics(snapshot.fleet)),
                    *self._phases.collect(),
                )
            )
        )
        return generate_latest(registry)


class _Once(Collector):
    """A collector of metric families that were made before."""

    def __init__(self, families: tuple[Metric, ...]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families

    def describe(self) -> list[Metric]:
        return []


Values = Iterable[tuple[str, float]]
"""Pairs of a label and the metric's value for it."""


def _gauge(name: str, text: str, label: str, values: Values) -> Metric:
    family = GaugeMetricFamily(f"camserver_{name}", text, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family


def _counter(name: str, text: str, label: str, values: Values) -> Metric:
    family = CounterMetricFamily(f"camserver_{name}", text, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family


def _pictures(snapshot: MetricsSnapshot, known: dict[str, _Camera]) -> Iterator[Metric]:
    """Yield the metrics of cameras that have a picture."""

    def of(value: Callable[[_Camera], float]) -> Values:
        return ((camera, value(facts)) for camera, facts in known.items())

    yield _gauge(
        "freshness_seconds",
        "Age of the newest published picture.",
        "camera",
        ((camera, snapshot.ages_s[camera]) for camera in known),
    )
    yield _gauge(
        "latest_timestamp_seconds",
        "When the newest published picture was captured.",
        "camera",
        ((camera, snapshot.captured_at[camera]) for camera in known),
    )
    yield _counter(
        "snapshot_bytes",
        "Bytes of published pictures.",
        "camera",
        of(lambda facts: facts.bytes_total),
    )
    yield _counter(
        "decoder_cpu_seconds",
        "CPU that decoding and encoding took.",
        "camera",
        of(lambda facts: facts.cpu_s_total),
    )
    yield _gauge(
        "camera_clock_offset_seconds",
        "The camera's clock minus ours, if it told.",
        "camera",
        (
            (camera, facts.clock_offset_s)
            for camera, facts in known.items()
            if facts.clock_offset_s is not None
        ),
    )


def _cameras(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    """Yield the metrics of every camera's schedule."""

    def of(value: Callable[[CameraPolling], float]) -> Values:
        return ((camera.camera, value(camera)) for camera in snapshot.cameras)

    yield _gauge(
        "interval_seconds",
        "Time between pictures that the inventory asks for.",
        "camera",
        of(lambda c: c.interval_s),
    )
    yield _gauge(
        "late_after_seconds",
        "Age from which on a picture is late.",
        "camera",
        of(lambda c: FreshnessLimits.of(c.interval_s).late_after_s),
    )
    yield _gauge(
        "stale_after_seconds",
        "Age from which on a picture is stale.",
        "camera",
        of(lambda c: FreshnessLimits.of(c.interval_s).stale_after_s),
    )
    yield _gauge(
        "consecutive_failures",
        "Polls that failed since the last picture.",
        "camera",
        of(lambda c: c.failures),
    )
    yield _counter(
        "polls_skipped",
        "Due times at which the last poll was still running.",
        "camera",
        of(lambda c: c.skipped),
    )
    polls = CounterMetricFamily(
        "camserver_polls", "Polls by how they ended.", labels=["camera", "result"]
    )
    for camera in snapshot.cameras:
        for result, count in camera.results.items():
            polls.add_metric([camera.camera, result.value], count)
    yield polls


def _suspicions(snapshot: MetricsSnapshot) -> Metric:
    family = GaugeMetricFamily(
        "camserver_picture_suspect",
        "1 while the pictures of a camera do not show what they should, for this reason.",
        labels=["camera", "reason"],
    )
    for camera, suspicions in snapshot.suspicions.items():
        for suspicion in suspicions:
            family.add_metric([camera, suspicion.value], 1)
    return family


def _devices(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    def of(value: Callable[[DeviceStatistics], float]) -> Values:
        return ((device.device, value(device)) for device in snapshot.devices)

    yield _gauge(
        "sessions_budget",
        "Sessions the device gives: max_sessions, or what it was found to give.",
        "device",
        of(lambda d: min(d.max_sessions, d.learned.cap) if d.learned else d.max_sessions),
    )
    yield _gauge(
        "sessions_held", "Leases held now, by whoever.", "device", of(lambda d: len(d.held))
    )
    yield _gauge(
        "sessions_cooling",
        "Closed sessions that the device may still count.",
        "device",
        of(lambda d: d.cooling),
    )
    yield _gauge("lease_waiters", "Who waits for a session now.", "device", of(lambda d: d.waiting))
    yield _counter("leases_granted", "Leases given.", "device", of(lambda d: d.granted))
    yield _counter(
        "sessions_opened", "Sessions opened under a lease.", "device", of(lambda d: d.opened)
    )
    yield _counter(
        "session_seconds",
        "Seconds that sessions were held.",
        "device",
        of(lambda d: d.held_s_total + sum(snapshot.now - since for _, since in d.held)),
    )
    yield _counter(
        "lease_busy",
        "Requests that got no session: none came free in time, or the device said full.",
        "device",
        of(lambda d: d.busy),
    )
    yield _counter(
        "lease_wait_seconds",
        "Seconds that granted requests waited.",
        "device",
        of(lambda d: d.wait_s_total),
    )


def _daemon(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    late = HistogramMetricFamily(
        "camserver_poll_lateness_seconds",
        "How long after their due time polls were started, of cameras in each state.",
        labels=["state"],
    )
    for state, polls in snapshot.polling.lateness.items():
        within = zip((*map(str, BOUNDS_S), "+Inf"), polls.within, strict=True)
        late.add_metric([state], list(within), polls.total_s)
    yield late
    yield GaugeMetricFamily("camserver_cameras", "Enabled cameras.", snapshot.polling.cameras)
    yield GaugeMetricFamily("camserver_polls_running", "Polls under way.", snapshot.polling.running)
    restarts = CounterMetricFamily(
        "camserver_worker_restarts", "Workers that died or were killed.", labels=["pool"]
    )
    for pool, count in snapshot.worker_restarts.items():
        restarts.add_metric([pool], count)
    yield restarts
    if snapshot.go2rtc_up is not None:
        yield GaugeMetricFamily(
            "camserver_go2rtc_up", "Whether go2rtc's API answers.", int(snapshot.go2rtc_up)
        )
    yield GaugeMetricFamily(
        "camserver_lease_journal_up",
        "Whether the lease journal can be written, so that leases survive a crash.",
        int(snapshot.journal_is_written),
    )
    build: Any = InfoMetricFamily("camserver_build", "What this is.")
    build.add_metric([], {"version": __version__})
    yield build


def _archive(archive: ArchiveStatistics) -> Iterator[Metric]:
    for name, text, value in (
        ("archive_pictures", "Pictures in the archive.", archive.pictures),
        ("archive_bytes", "Bytes of the archive's pictures.", archive.bytes),
        ("archive_index_up", "Whether the archive's index can be used.", archive.index_is_up),
        (
            "archive_index_complete",
            "Whether all pictures are in the archive's index.",
            archive.index_is_complete,
        ),
        (
            "retention_held",
            "Whether nothing is deleted by age, because the clock may be wrong.",
            archive.held,
        ),
    ):
        yield GaugeMetricFamily(f"camserver_{name}", text, int(value))


def _disk(usage: tuple[int, int] | None) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "camserver_disk_up", "Whether the output directory can be reached.", int(usage is not None)
    )
    if usage is not None:
        yield GaugeMetricFamily(
            "camserver_disk_free_bytes", "Free space where pictures go.", usage[0]
        )
        yield GaugeMetricFamily(
            "camserver_disk_size_bytes", "Size of the disk where pictures go.", usage[1]
        )
