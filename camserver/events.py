"""Domain events: what happened, as frozen values.

Logs, the demo's table and later metrics are listeners.

Event names are stable dotted words; operators and programs may rely on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events.

    `EVENT` is the dotted name, `text` the sentence for a person, `camera` the id or empty.
    """

    EVENT: ClassVar[str] = "event"
    LEVEL: ClassVar[Level] = "info"
    camera: str = ""

    @property
    def text(self) -> str:
        """The sentence for a person."""
        return self.EVENT


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseAcquired(Event):
    """A session of a device may be opened now."""

    EVENT: ClassVar[str] = "lease.acquired"
    device: str
    holder: str
    generation: int
    wait_ms: float
    external: bool = False
    claimed: int = 0
    """The generation that an earlier process had given for the same session, if there was one."""
    observed: bool = False
    """The session is open already: another program has not asked."""

    @property
    def text(self) -> str:
        """The sentence for a person, in the words of the seed's log."""
        return f"RTSP access acquired camera_id={self.camera}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseReleased(Event):
    """The session's transport is closed; `end` is none, clean or unclean."""

    EVENT: ClassVar[str] = "lease.released"
    device: str
    holder: str
    generation: int
    held_ms: float
    end: str
    external: bool = False

    @property
    def text(self) -> str:
        """The sentence for a person, in the words of the seed's log."""
        return f"RTSP access released camera_id={self.camera}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CapLearned(Event):
    """A device said "full" although the inventory gives it more sessions than were open."""

    EVENT: ClassVar[str] = "lease.cap"
    LEVEL: ClassVar[Level] = "warning"
    device: str
    cap: int
    for_s: float

    @property
    def text(self) -> str:
        """The sentence for a person."""
        return (
            f"{self.device} was full with {self.cap} session(s) open: no more than that for"
            f" {self.for_s / 60:g} minutes (is max_sessions too high?)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPublished(Event):
    """latest.jpg of a camera is a new picture."""

    EVENT: ClassVar[str] = "snapshot.published"
    source: str
    engine: str
    width: int
    height: int
    bytes: int
    codec: str
    captured_at: str
    capture_ms: float
    lease_wait_ms: float
    open_ms: float | None = None
    keyframe_ms: float | None = None
    decode_ms: float | None = None
    encode_ms: float | None = None
    store_ms: float | None = None
    cpu_ms: float | None = None
    camera_clock_offset_s: float | None = None

    @property
    def text(self) -> str:
        """The sentence for a person."""
        return (
            f"{self.camera}: {self.width}x{self.height}, {self.bytes // 1024} KB from {self.source}"
            f" in {self.capture_ms:.0f} ms"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PollFailed(Event):
    """A poll gave no picture; the last good one stays."""

    EVENT: ClassVar[str] = "poll.failed"
    LEVEL: ClassVar[Level] = "warning"
    result: str
    error: str
    consecutive_failures: int
    retry_in_s: float

    @property
    def text(self) -> str:
        """The sentence for a person."""
        return self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class PollSkipped(Event):
    """The camera was due while its last poll was still running."""

    EVENT: ClassVar[str] = "poll.skipped"
    skipped: int

    @property
    def text(self) -> str:
        """The sentence for a person."""
        return f"{self.camera}: still busy with the last poll, {self.skipped} due time(s) skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something about the daemon or its stores rather than about one poll.

    `name` is the dotted event name.
    """

    name: str
    message: str
    level: Level = "info"
    data: dict[str, object] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The sentence for a person."""
        return self.message


def as_data(event: Event) -> dict[str, Any]:
    """An event's name under `event`, then its keys: what the journal and `/v1/events` both show."""
    if isinstance(event, Notice):
        data = {"event": event.name, "level": event.level, "camera": event.camera, **event.data}
    else:
        data = {"event": event.EVENT, "level": event.LEVEL} | {
            f.name: getattr(event, f.name) for f in fields(event)
        }
    said = {key: value for key, value in data.items() if value not in (None, "")}
    return {
        key: round(value, 1) if isinstance(value, float) else value for key, value in said.items()
    }


Listener = Callable[[Event], None]


class EventBus:
    """Hands each event to every listener, in order.

    A listener must not block and must not raise.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def add(self, listener: Listener) -> None:
        """One listener more, from now on."""
        self._listeners.append(listener)

    def __call__(self, event: Event) -> None:
        """Publish one event."""
        for listener in self._listeners:
            listener(event)
