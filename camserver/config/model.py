"""The tables of the inventory file as pydantic models. They are also the source of its JSON Schema.

This module defines keys, types, defaults, and the checks within one table. Checks that need several
tables are in load.py.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from camserver.config.fleet import PASSWORDS, FleetTable
from camserver.config.health import HealthKey, HealthTable
from camserver.config.output import CameraRetention, OutputTable, RetentionTable
from camserver.config.table import Table
from camserver.config.units import Duration
from camserver.config.urls import HttpUrl, RtspUrl

SourceName = Literal["rtsp", "rtsp-sub", "http"]
SOURCES: tuple[SourceName, ...] = ("rtsp", "rtsp-sub", "http")
"""The sources of a picture, in the order in which they are tried if a camera names no other."""
CAMERA_ID = r"^[a-z0-9][a-z0-9_-]{0,63}$"


class PollingTable(Table):
    """How much happens at once."""

    decoders: int | None = Field(
        None, ge=1, le=256, description="Decoder processes; default: as many as cores."
    )
    sessions: int = Field(
        256,
        ge=1,
        le=4096,
        description=(
            "Cameras polled at the same time; those not yet seen get a half, failing ones a"
            " quarter."
        ),
    )
    open_rate: float = Field(
        20.0, ge=0.01, le=10_000, description="Sessions opened in a second, at most."
    )
    stop_timeout: Duration = Field(
        1.5,
        ge=1,
        le=12,
        description=(
            "The daemon's stop takes no longer than this; systemd's patience (TimeoutStopSec=) is"
            " 15 s."
        ),
    )


class HttpTable(Table):
    """The wall page and metrics, read-only."""

    listen: str = Field(
        "127.0.0.1:3000", description='host:port of the wall page and metrics; "" turns it off.'
    )
    username: str = Field("camserver", description="Of the login, where there is a password.")
    password: str | None = Field(
        None, repr=False, description="Asked for (basic authentication; use a TLS proxy outside)."
    )
    password_file: Path | None = Field(None, description="A file whose first line is the password.")
    password_credential: str | None = Field(
        None, description="Name of a systemd credential (LoadCredential=)."
    )
    hosts: list[str] = Field(
        [], description="Names under which browsers reach the page without a password."
    )
    public: bool = Field(False, description="Listen beyond this machine without a password.")
    actions: bool = Field(False, description='The page may ask for a picture now ("snapshot now").')

    @property
    def address(self) -> tuple[str, int] | None:
        """(host, port). None when HTTP is turned off."""
        host, _, port = self.listen.rpartition(":")
        return (host.strip("[]"), int(port)) if self.listen else None

    @model_validator(mode="after")
    def _check(self) -> HttpTable:
        host, _, port = self.listen.rpartition(":")
        if self.listen and not (host and port.isascii() and port.isdigit() and int(port) < 65536):
            raise ValueError('listen: expected host:port, e.g. "127.0.0.1:3000", or ""')
        given = [k for k in PASSWORDS if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.listen and not given and not self.public and not _is_loopback(host.strip("[]")):
            raise ValueError(
                f"listen: {self.listen} can be reached from other machines: give a password, or"
                " public = true"
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ApiTable(Table):
    """The API for other processes."""

    socket: Path = Field(
        Path("/run/camserver/camserver.sock"), description="Unix socket of the API."
    )


class LogTable(Table):
    """What is written to the journal, or to the console."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lines below this level are not written."
    )


class Go2rtcTable(Table):
    """A go2rtc beside camserver."""

    api: HttpUrl | None = Field(None, description="Its API.", examples=["http://127.0.0.1:1984"])
    rtsp: RtspUrl | None = Field(
        None,
        description="Its RTSP server; default: port 8554 of the API's host.",
        examples=["rtsp://127.0.0.1:8554"],
    )
    page: HttpUrl | None = Field(
        None, description="Where browsers reach its player, for the wall page; default: the API."
    )
    username: str | None = Field(None, description="Of both, if they ask for a login.")
    password: str | None = Field(None, repr=False)
    password_file: Path | None = Field(None, description="A file whose first line is the password.")
    password_credential: str | None = Field(
        None, description="Name of a systemd credential (LoadCredential=)."
    )
    mode: Literal["when-live", "always", "never"] = Field(
        "when-live",
        description=(
            "When pictures are taken from go2rtc: while it has a session of the camera anyway,"
            " always, or never."
        ),
    )
    # The name `register` is taken: BaseModel.register comes from ABCMeta
    register_cameras: bool = Field(
        False,
        alias="register",
        description=(
            "Make a stream in go2rtc for each camera with `go2rtc` that has none there, and remove"
            " it with the camera."
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> Go2rtcTable:
        if self.api is None and self.model_fields_set:
            raise ValueError("api is missing: without it go2rtc can't be asked")
        for url in (self.api, self.rtsp, self.page):
            if url is not None and "@" in urlsplit(url).netloc:
                raise ValueError("give the login as username and password, not in a URL")
        if len(given := [k for k in PASSWORDS if getattr(self, k) is not None]) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        return self


class CameraKeys(Table):
    """The keys of a camera that also [defaults] and [profiles.NAME] may give."""

    url: RtspUrl | None = Field(
        None,
        description="rtsp:// or rtsps:// URL of the main stream.",
        examples=["rtsp://10.0.0.5/stream1"],
    )
    sub_url: RtspUrl | None = Field(
        None, description="URL of a smaller stream, tried when the main one gives no picture."
    )
    snapshot_url: HttpUrl | None = Field(
        None, description="http(s):// URL that answers a JPEG, tried last."
    )
    username: str | None = None
    password: str | None = Field(
        None, repr=False, description="Any characters; camserver does the percent-encoding."
    )
    password_file: Path | None = Field(None, description="A file whose first line is the password.")
    password_credential: str | None = Field(
        None, description="Name of a systemd credential (LoadCredential=)."
    )
    profile: str | None = Field(
        None, description="A built-in brand profile or one of [profiles.NAME]."
    )
    device: str | None = Field(
        None,
        max_length=200,
        description="The box that limits sessions; default: host and port of the URL.",
    )
    interval: Duration = Field(10.0, ge=0.1, description="Time between pictures.")
    min_interval: Duration = Field(
        1.0,
        ge=0.1,
        le=3600,
        description=(
            "Least time between the starts of two pictures, when programs and people ask for newer"
            " ones than the interval gives."
        ),
    )
    timeout: Duration = Field(
        10.0, ge=0.5, le=300, description="One deadline for a whole picture, after the lease."
    )
    lease_wait: Duration = Field(
        5.0, ge=0, le=300, description="How long to wait for a session of the device."
    )
    max_sessions: int = Field(1, ge=1, le=64, description="Sessions the device gives at once.")
    max_http: int = Field(
        1, ge=1, le=64, description="Requests for snapshot URLs that the device takes at once."
    )
    http_cooldown: Duration = Field(
        0.0, le=600, description="Time between the end of such a request and the next one."
    )
    sources: list[SourceName] = Field(
        list(SOURCES),
        min_length=1,
        description=(
            "What is tried for a picture, in this order: url, sub_url, snapshot_url. A snapshot URL"
            " costs no session and no decoding; `doctor` says whether it is as fresh."
        ),
    )
    cooldown: Duration = Field(
        0.25, le=600, description="Time a device still counts a session after a clean end."
    )
    unclean_cooldown: Duration = Field(
        4.0,
        le=600,
        description=(
            "The same after an end without TEARDOWN; shorter than lease_wait, or live view finds a"
            " hung camera busy."
        ),
    )
    lost_cooldown: Duration | None = Field(
        None,
        le=3600,
        description=(
            "In a fleet: the same after the host that had the session was lost, perhaps without"
            " power; default: unclean_cooldown."
        ),
    )
    hosts: list[str] = Field(
        ["*"],
        min_length=1,
        description="In a fleet: the hosts that reach the camera, as patterns of names or labels.",
        examples=[["site-a-*"]],
    )
    transport: Literal["tcp", "udp"] = Field("tcp", description="How RTP comes.")
    engine: Literal["auto", "native", "libav"] = Field(
        "auto",
        description=(
            "Who speaks RTSP: camserver itself (native), libav in a worker process, or native where"
            " it can (auto)."
        ),
    )
    width: int | None = Field(
        None, ge=16, le=16384, description="Scale pictures down to this width in pixels."
    )
    align: bool = Field(
        False,
        description="Take pictures at multiples of the interval by the clock, for timelapses.",
    )
    go2rtc: bool | str = Field(
        False, description="Name of the camera's stream in go2rtc; true means the camera's id."
    )
    tls_verify: bool = Field(
        False,
        description="Check certificates of rtsps:// and https:// (most cameras sign their own).",
    )
    retention: CameraRetention | None = Field(
        None, description="What is deleted of this camera, where it differs from [retention]."
    )
    health: HealthKey | None = Field(
        None,
        description=(
            "How its pictures are judged, where that differs from [health]; false: not at all."
        ),
    )
    enabled: bool = True


class CameraTable(CameraKeys):
    """One [[camera]]."""

    id: str = Field(pattern=CAMERA_ID, description="Name of the camera's folder.")
    name: str | None = Field(None, max_length=200, description="Name for people; default: the id.")

    @model_validator(mode="after")
    def _check(self) -> CameraTable:
        problems = []
        if self.url is None and self.snapshot_url is None:
            problems.append("needs a url (or at least a snapshot_url)")
        if self.sub_url is not None and self.url is None:
            problems.append("sub_url without url: put it in url")
        if len(given := [k for k in PASSWORDS if getattr(self, k) is not None]) > 1:
            problems.append(f"{' and '.join(given)} exclude each other")
        if self.cooldown > self.unclean_cooldown:
            problems.append(
                f"cooldown {self.cooldown:g} s is longer than unclean_cooldown"
                f" {self.unclean_cooldown:g} s"
            )
        urls = {"rtsp": self.url, "rtsp-sub": self.sub_url, "http": self.snapshot_url}
        if len(set(self.sources)) < len(self.sources):
            problems.append("sources: names one twice")
        elif any(urls.values()) and not any(urls[source] for source in self.sources):
            problems.append(f"sources: the camera has no URL for {', '.join(self.sources)}")
        if (self.device or "").endswith(" (http)"):
            problems.append('device: must not end with " (http)"')
        for key in ("name", "device"):
            text = getattr(self, key)
            if text is not None and not text.isprintable():
                problems.append(f"{key}: has characters that cannot be shown")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class InventoryTable(Table):
    """The whole file."""

    include: list[str] = Field(
        [], description="Globs of files with more [[camera]] entries, relative to this file."
    )
    output: OutputTable = OutputTable()
    retention: RetentionTable = RetentionTable()
    polling: PollingTable = PollingTable()
    http: HttpTable = HttpTable()
    api: ApiTable = ApiTable()
    log: LogTable = LogTable()
    health: HealthTable = HealthTable()
    go2rtc: Go2rtcTable = Go2rtcTable()
    fleet: FleetTable | None = None
    defaults: CameraKeys = CameraKeys()
    profiles: dict[str, CameraKeys] = Field({})
    camera: list[CameraTable] = Field([])


SECTIONS: dict[str, type[Table]] = {
    "output": OutputTable,
    "retention": RetentionTable,
    "polling": PollingTable,
    "http": HttpTable,
    "api": ApiTable,
    "log": LogTable,
    "health": HealthTable,
    "go2rtc": Go2rtcTable,
}


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the inventory file, for editors."""
    document = InventoryTable.model_json_schema()
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = "camserver inventory"
    return document
