"""`/metrics` for Prometheus.

Counts what events tell, shows frozen statistics; the only door to prometheus_client.

Statistics are taken on the event loop, which costs little; writing them down, which for thousands
of cameras costs a tenth of a second, happens in a thread. docs/metrics.md has the table; labels are
cameras, devices, phases, never more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from camserver import __version__
from camserver.events import Event, SnapshotPublished
from camserver.freshness import FreshnessLimits
from camserver.host.disk import Disk
from camserver.leases import DeviceStatistics
from camserver.polling.orchestrator import CameraPolling, PollingStatistics

PHASES = ("lease_wait", "open", "keyframe", "decode", "encode", "store")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """Everything that can be counted, at one moment of the wall clock and of the loop's."""

    wall_s: float
    now: float
    polling: PollingStatistics
    cameras: tuple[CameraPolling, ...]
    devices: tuple[DeviceStatistics, ...]
    directory: Path
    worker_restarts: dict[str, int]
    go2rtc_up: bool | None


@dataclass(slots=True)
class _Camera:
    captured_at: float = 0.0
    bytes_total: int = 0
    cpu_s_total: float = 0.0
    clock_offset_s: float | None = None


class Metrics:
    """A listener of events, and the handler of the route; `look` takes the statistics."""

    def __init__(self, look: Callable[[], MetricsSnapshot]) -> None:
        self._look = look
        self._disk = Disk()
        self._thread = ThreadPoolExecutor(1, "metrics")  # not one that publishing needs
        self._cameras: defaultdict[str, _Camera] = defaultdict(_Camera)
        self._phases = Histogram(
            "camserver_capture_phase_seconds",
            "Where the time of a published picture went.",
            ["phase"],
            buckets=BUCKETS,
            registry=None,
        )

    def remember(self, captured_at: dict[str, str]) -> None:
        """When the newest pictures were captured that an earlier run has left."""
        for camera, moment in captured_at.items():
            with contextlib.suppress(ValueError):
                at_s = datetime.fromisoformat(moment).timestamp()
                self._cameras[camera].captured_at = max(at_s, self._cameras[camera].captured_at)

    def __call__(self, event: Event) -> None:
        """Count a published picture."""
        if not isinstance(event, SnapshotPublished):
            return
        camera = self._cameras[event.camera]
        camera.captured_at = datetime.fromisoformat(event.captured_at).timestamp()
        camera.bytes_total += event.bytes
        camera.cpu_s_total += (event.cpu_ms or 0.0) / 1000
        camera.clock_offset_s = event.camera_clock_offset_s
        for phase in PHASES:
            if (ms := getattr(event, f"{phase}_ms")) is not None:
                self._phases.labels(phase).observe(ms / 1000)

    async def answer(self, _: web.Request) -> web.Response:
        """The route."""
        scene = self._look()
        known = {
            c.camera: self._cameras[c.camera] for c in scene.cameras if c.camera in self._cameras
        }
        disk = await self._disk.usage(scene.directory)
        body = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._render, scene, known, disk
        )
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _render(
        self, scene: MetricsSnapshot, known: dict[str, _Camera], disk: tuple[int, int] | None
    ) -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(
            _Once(
                (
                    *_cameras(scene, known),
                    *_devices(scene),
                    *_house(scene),
                    *_disk(disk),
                    *self._phases.collect(),
                )
            )
        )
        return generate_latest(registry)


class _Once(Collector):
    """Families that are there already."""

    def __init__(self, families: tuple[Metric, ...]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families

    def describe(self) -> list[Metric]:
        return []


def _cameras(scene: MetricsSnapshot, known: dict[str, _Camera]) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "camserver_freshness_seconds", "Age of the newest published picture.", labels=["camera"]
    )
    latest = GaugeMetricFamily(
        "camserver_latest_timestamp_seconds",
        "When the newest published picture was captured.",
        labels=["camera"],
    )
    total = CounterMetricFamily(
        "camserver_snapshot_bytes", "Bytes of published pictures.", labels=["camera"]
    )
    cpu = CounterMetricFamily(
        "camserver_decoder_cpu_seconds", "CPU that decoding and encoding took.", labels=["camera"]
    )
    offset = GaugeMetricFamily(
        "camserver_camera_clock_offset_seconds",
        "The camera's clock minus ours, if it told.",
        labels=["camera"],
    )
    for camera, facts in known.items():
        if not facts.captured_at:
            continue
        age.add_metric([camera], max(0.0, scene.wall_s - facts.captured_at))
        latest.add_metric([camera], facts.captured_at)
        total.add_metric([camera], facts.bytes_total)
        cpu.add_metric([camera], facts.cpu_s_total)
        if facts.clock_offset_s is not None:
            offset.add_metric([camera], facts.clock_offset_s)
    polls = CounterMetricFamily(
        "camserver_polls", "Polls by how they ended.", labels=["camera", "result"]
    )
    failures = GaugeMetricFamily(
        "camserver_consecutive_failures",
        "Polls that failed since the last picture.",
        labels=["camera"],
    )
    skipped = CounterMetricFamily(
        "camserver_polls_skipped",
        "Due times at which the last poll was still running.",
        labels=["camera"],
    )
    interval = GaugeMetricFamily(
        "camserver_interval_seconds",
        "Time between pictures that the inventory asks for.",
        labels=["camera"],
    )
    late = GaugeMetricFamily(
        "camserver_late_after_seconds", "Age from which on a picture is late.", labels=["camera"]
    )
    stale = GaugeMetricFamily(
        "camserver_stale_after_seconds", "Age from which on a picture is stale.", labels=["camera"]
    )
    for c in scene.cameras:
        interval.add_metric([c.camera], c.interval_s)
        limits = FreshnessLimits.of(c.interval_s)
        late.add_metric([c.camera], limits.late_after_s)
        stale.add_metric([c.camera], limits.stale_after_s)
        failures.add_metric([c.camera], c.failures)
        skipped.add_metric([c.camera], c.skipped)
        for result, count in c.results.items():
            polls.add_metric([c.camera, result.value], count)
    yield from (age, latest, interval, late, stale, total, cpu, offset, polls, failures, skipped)


def _devices(scene: MetricsSnapshot) -> Iterator[Metric]:
    def gauge(name: str, text: str, value: Callable[[DeviceStatistics], float]) -> Metric:
        family = GaugeMetricFamily(f"camserver_{name}", text, labels=["device"])
        for device in scene.devices:
            family.add_metric([device.device], value(device))
        return family

    def counter(name: str, text: str, value: Callable[[DeviceStatistics], float]) -> Metric:
        family = CounterMetricFamily(f"camserver_{name}", text, labels=["device"])
        for device in scene.devices:
            family.add_metric([device.device], value(device))
        return family

    yield gauge(
        "sessions_budget",
        "Sessions the device gives: max_sessions, or what it was found to give.",
        lambda d: min(d.max_sessions, d.learned.cap) if d.learned else d.max_sessions,
    )
    yield gauge("sessions_held", "Leases held now, by whoever.", lambda d: len(d.held))
    yield gauge(
        "sessions_cooling", "Closed sessions that the device may still count.", lambda d: d.cooling
    )
    yield gauge("lease_waiters", "Who waits for a session now.", lambda d: d.waiting)
    yield counter("leases_granted", "Leases given.", lambda d: d.granted)
    yield counter("sessions_opened", "Sessions opened under a lease.", lambda d: d.opened)
    yield counter(
        "session_seconds",
        "Seconds that sessions were held.",
        lambda d: d.held_s_total + sum(scene.now - since for _, since in d.held),
    )
    yield counter(
        "lease_busy",
        "Requests that got no session: none came free in time, or the device said full.",
        lambda d: d.busy,
    )
    yield counter(
        "lease_wait_seconds", "Seconds that granted requests waited.", lambda d: d.wait_s_total
    )


def _house(scene: MetricsSnapshot) -> Iterator[Metric]:
    late = SummaryMetricFamily(
        "camserver_poll_lateness_seconds", "How long after their due time polls were started."
    )
    late.add_metric([], count_value=scene.polling.polls, sum_value=scene.polling.lateness_s_total)
    yield late
    yield GaugeMetricFamily("camserver_cameras", "Enabled cameras.", scene.polling.cameras)
    yield GaugeMetricFamily("camserver_polls_running", "Polls under way.", scene.polling.running)
    restarts = CounterMetricFamily(
        "camserver_worker_restarts", "Workers that died or were killed.", labels=["pool"]
    )
    for pool, count in scene.worker_restarts.items():
        restarts.add_metric([pool], count)
    yield restarts
    if scene.go2rtc_up is not None:
        yield GaugeMetricFamily(
            "camserver_go2rtc_up", "Whether go2rtc's API answers.", int(scene.go2rtc_up)
        )
    build: Any = InfoMetricFamily("camserver_build", "What this is.")
    build.add_metric([], {"version": __version__})
    yield build


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
