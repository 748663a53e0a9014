"""The inventory as the daemon uses it: merged, checked, frozen. A repr shows no passwords."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from camserver.config.fleet import FleetTable
from camserver.config.health import HealthTable
from camserver.config.model import (
    SOURCES,
    ApiTable,
    Go2rtcTable,
    HttpTable,
    LogTable,
    PollingTable,
)
from camserver.config.output import CameraRetention, OutputTable, RetentionTable
from camserver.config.sources import InventorySources
from camserver.config.urls import HTTP_PORTS, RTSP_PORTS

ANY_HOST = ("*",)


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera with all settings resolved.

    URLs contain no credentials. Times are in seconds, `width` is in pixels.
    """

    id: str
    name: str
    url: str | None
    sub_url: str | None
    snapshot_url: str | None
    username: str
    password: str = field(repr=False)
    device: str
    interval_s: float
    timeout_s: float
    lease_wait_s: float
    max_sessions: int
    cooldown_s: float
    unclean_cooldown_s: float
    transport: str
    engine: str
    width: int | None
    align: bool
    go2rtc: str | None
    tls_verify: bool
    # A change of it must not change the camera's schedule
    retention: CameraRetention | None = field(default=None, compare=False)
    lost_cooldown_s: float | None = None
    min_interval_s: float = 1.0
    max_http: int = 1
    http_cooldown_s: float = 0.0
    sources: tuple[str, ...] = SOURCES
    hosts: tuple[str, ...] = ANY_HOST
    health: HealthTable | None = field(default=None, compare=False)
    """How its pictures are judged. None: they are not."""

    @property
    def address(self) -> str:
        """host:port of the camera. It is also its device, unless the inventory names another."""
        parts = urlsplit(self.url or self.snapshot_url or "")
        return f"{parts.hostname}:{parts.port or (RTSP_PORTS | HTTP_PORTS)[parts.scheme]}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """All settings of one configuration.

    `sources` are the files from which it was read.
    """

    output: OutputTable
    retention: RetentionTable
    polling: PollingTable
    http: HttpTable
    api: ApiTable
    log: LogTable
    health: HealthTable
    go2rtc: Go2rtcTable
    fleet: FleetTable | None
    """None: this host is on its own."""
    cameras: tuple[Camera, ...]
    disabled: int
    sources: InventorySources
    warnings: tuple[str, ...]

    @property
    def secrets(self) -> tuple[str, ...]:
        """All passwords, for the redactor."""
        tables = (self.go2rtc, self.http, self.fleet)
        found = {c.password for c in self.cameras if c.password}
        found |= {table.password for table in tables if table is not None and table.password}
        return tuple(found)
