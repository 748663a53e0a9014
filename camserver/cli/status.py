"""`camserver status`: one line for each camera, worst first, for a person to read.

The data comes from the daemon, or from the files alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from camserver.config import Inventory
from camserver.freshness import Freshness, FreshnessLimits
from camserver.host.files import read_regular
from camserver.model import Result

COLOURS = {
    Freshness.FRESH: "green",
    Freshness.LATE: "yellow",
    Freshness.STALE: "red",
    Freshness.NEVER: "red",
}
NOTHING = "-"
COLUMNS = (
    "CAMERA",
    "AGE",
    "LAST RESULT",
    "SOURCE",
    "SIZE",
    "KB",
    "CAPTURE",
    "WAIT",
    "BUSY",
    "FAILED",
    "NEXT",
)
NARROW = ("CAMERA", "AGE", "LAST RESULT", "FAILED", "NEXT")
LEFT = ("CAMERA", "LAST RESULT", "SOURCE", "SIZE")
WIDE = 120
RECENT_S = 20 * 3600
"""Of an older moment the date is shown, too."""


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """One line of the table.

    `_s` are seconds, `_ms` milliseconds. None means not known, yet or without a daemon.
    """

    camera: str
    name: str
    freshness: Freshness
    age_s: float | None
    result: str | None
    label: str
    source: str | None
    resolution: str | None
    bytes: int | None
    capture_ms: float | None
    lease_wait_ms: float | None
    busy: int | None
    failures: int
    due_in_s: float | None
    health: str | None
    """ok, learning, or what is wrong with its pictures. None: they are not judged."""
    host: str | None
    """The host of the fleet that polls it; None without a fleet."""
    is_elsewhere: bool
    """Whether another host polls it, and does not answer. Then what is known here may be old."""

    @property
    def rank(self) -> tuple[bool, int, int, bool, float]:
        """The sort key that puts the worst camera first."""
        is_fine = self.is_elsewhere and bool(self.host)
        is_well = not self.is_suspect
        return is_fine, self.freshness.rank, -self.failures, is_well, -(self.age_s or 0.0)

    @property
    def is_suspect(self) -> bool:
        """Whether its pictures do not show what they should."""
        return self.health not in (None, "ok", "learning")

    @property
    def needs_attention(self) -> bool:
        """Whether its picture is stale, or the disk does not take it."""
        return self.is_stale or self.result == Result.STORAGE

    @property
    def is_stale(self) -> bool:
        """Whether its picture is too old, and no other host has a newer one."""
        is_old = self.freshness in (Freshness.STALE, Freshness.NEVER)
        return is_old and not (self.is_elsewhere and self.host)


def from_files(inventory: Inventory, now: datetime | None = None) -> list[CameraStatus]:
    """Return the status of all cameras from their latest.json, when no daemon polls."""
    found = []
    for camera in inventory.cameras:
        try:
            latest = json.loads(
                read_regular(inventory.output.directory / camera.id / "latest.json")
            )
        except (OSError, ValueError):
            latest = None
        facts = {
            "id": camera.id,
            "name": camera.name,
            "interval_s": camera.interval_s,
            "device": camera.device,
            "latest": latest if isinstance(latest, dict) else None,
            "age_s": None,
            "polling": None,
        }
        found.append(describe(facts, now or datetime.now(UTC)))
    return sorted(found, key=lambda status: status.rank)


def from_daemon(cameras: list[dict[str, Any]], now: datetime | None = None) -> list[CameraStatus]:
    """Return the status of all cameras from the daemon's answer to /v1/cameras."""
    found = [describe(camera, now or datetime.now(UTC)) for camera in cameras]
    return sorted(found, key=lambda status: status.rank)


def describe(camera: dict[str, Any], now: datetime) -> CameraStatus:
    """Return the status of one camera; `camera` has the keys of /v1/cameras."""
    latest, polling = camera["latest"] or {}, camera["polling"]
    age_s = camera.get("age_s")  # the daemon's: nobody can set the clock that it is taken from
    if age_s is None:
        age_s = _age_s(latest.get("captured_at"), now)
    is_elsewhere = not camera.get("from_owner", True)
    width, height = latest.get("width"), latest.get("height")
    results = (polling or {}).get("results", {})
    return CameraStatus(
        camera["id"],
        camera["name"],
        FreshnessLimits.of(camera["interval_s"]).judge(age_s),
        age_s,
        (latest.get("attempt") or {}).get("result"),
        _elsewhere(camera) if is_elsewhere else label(latest, now),
        latest.get("source"),
        f"{width}x{height}" if width else None,
        latest.get("bytes"),
        latest.get("capture_ms"),
        latest.get("lease_wait_ms"),
        None if polling is None else results.get("busy", 0) + results.get("full", 0),
        latest.get("consecutive_failures", 0),
        (polling or {}).get("due_in_s"),
        _health(latest).get("state"),
        camera.get("host"),
        is_elsewhere,
    )


def _elsewhere(camera: dict[str, Any]) -> str:
    return f"no news from host {camera['host']}" if camera["host"] else "no host has it"


def _age_s(captured_at: Any, now: datetime) -> float | None:
    """Return the age of the picture; None when there is none, or its time is no valid time.

    Other programs may have written the file.
    """
    try:
        return max(0.0, (now - datetime.fromisoformat(captured_at)).total_seconds())
    except (TypeError, ValueError):  # TypeError: also a time without a time zone
        return None


def label(latest: dict[str, Any], now: datetime) -> str:
    """Return the label of the last attempt, as the daemon wrote it.

    Of a picture that came, but is suspect, it says why, and since when in local time.
    """
    attempt = latest.get("attempt") or {}
    result = attempt.get("result")
    if result is None:
        return "not polled yet"
    if result == Result.OK and (suspicion := _health(latest).get("label")):
        return f"ok, but {suspicion} since {_moment(_health(latest).get('since'), now)}"
    return str(attempt.get("label") or attempt.get("error") or result)


def _health(latest: dict[str, Any]) -> dict[str, Any]:
    health = latest.get("health")
    return health if isinstance(health, dict) else {}


def _moment(since: Any, now: datetime) -> str:
    """A moment as the time of day here, with the date if it is older."""
    try:
        moment = datetime.fromisoformat(since).astimezone()
        is_old = (now - moment).total_seconds() > RECENT_S
    except (TypeError, ValueError, OverflowError):  # another program may have written it
        return "an unknown time"
    return moment.strftime("%d %b, %H:%M" if is_old else "%H:%M")


def show(statuses: list[CameraStatus], console: Console) -> None:
    """Print a table; a narrow terminal gets only the most important columns."""
    columns = COLUMNS if console.width >= WIDE else NARROW
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column,
            justify="left" if column in LEFT else "right",
            no_wrap=column != "LAST RESULT",
            overflow="fold",
        )
    for s in statuses:
        kilobytes = NOTHING if s.bytes is None else str(s.bytes // 1024)
        cells: dict[str, str | Text] = dict(
            zip(
                COLUMNS,
                (
                    s.camera,
                    Text(span(s.age_s), "" if s.is_elsewhere else COLOURS[s.freshness]),
                    Text(s.label, _colour(s)),
                    s.source or NOTHING,
                    s.resolution or NOTHING,
                    kilobytes,
                    _ms(s.capture_ms),
                    _ms(s.lease_wait_ms),
                    NOTHING if s.busy is None else str(s.busy),
                    str(s.failures),
                    NOTHING if s.due_in_s is None else f"{max(0.0, s.due_in_s):.0f} s",
                ),
                strict=True,
            )
        )
        table.add_row(*(cells[column] for column in columns))
    console.print(table)


def _colour(status: CameraStatus) -> str:
    if status.is_elsewhere or status.result != Result.OK:
        return "" if status.is_elsewhere else "red"
    return "yellow" if status.is_suspect else ""


def as_json(statuses: list[CameraStatus], *, daemon: bool) -> str:
    """Return the statuses as JSON, for programs."""
    return json.dumps(
        {"daemon": daemon, "cameras": [asdict(status) for status in statuses]}, indent=1
    )


def span(seconds: float | None) -> str:
    """Return an age as a short text: "12 s", "3 min", "never" for None."""
    if seconds is None:
        return "never"
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _ms(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f} ms"
