"""Events of leases, polls and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from camserver.events.base import Event, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseAcquired(Event):
    """A session of a device may be opened now."""

    EVENT: ClassVar[str] = "lease.acquired"
    TEXT: ClassVar[str] = "RTSP access acquired camera_id={camera}"
    device: str
    holder: str
    generation: int
    wait_ms: float
    external: bool = False
    claimed: int = 0
    """The generation that an earlier process gave for the same session, or 0."""
    observed: bool = False
    """The session is open already: another program opened it without a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseReleased(Event):
    """The session's transport is closed. `end` is none, clean or unclean."""

    EVENT: ClassVar[str] = "lease.released"
    TEXT: ClassVar[str] = "RTSP access released camera_id={camera}"
    device: str
    holder: str
    generation: int
    held_ms: float
    end: str
    external: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWithdrawn(Event):
    """A holder was asked to end its session: live view waits, or this host has lost the right."""

    EVENT: ClassVar[str] = "lease.withdrawn"
    TEXT: ClassVar[str] = "{camera}: {holder} is asked to end its session: {why}"
    device: str
    holder: str
    generation: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CapLearned(Event):
    """A device was full although fewer sessions were open than the inventory gives it."""

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
    """A camera has a new latest.jpg."""

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
    health: str | None = None
    """ok, learning or what is suspected. None: the picture was not judged."""
    health_since: str | None = None
    health_label: str | None = None
    """What is suspected, in words: "has been black". They go before a time."""

    @property
    def text(self) -> str:
        """The sentence for a person."""
        return (
            f"{self.camera}: {self.width}x{self.height}, {self.bytes // 1024} KB from {self.source}"
            f" in {self.capture_ms:.0f} ms"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraRecovered(Event):
    """A camera gives pictures again, or its first one after failures."""

    EVENT: ClassVar[str] = "camera.recovered"
    TEXT: ClassVar[str] = "{camera}: pictures again, after {failures} failures"
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFresh(Event):
    """The first picture of a camera since the start."""

    EVENT: ClassVar[str] = "camera.fresh"
    TEXT: ClassVar[str] = "{camera}: the first picture since the start"


@dataclass(frozen=True, slots=True, kw_only=True)
class PollFailed(Event):
    """A poll gave no picture. The last good picture stays."""

    EVENT: ClassVar[str] = "poll.failed"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{error}"
    result: str
    error: str
    label: str = ""
    """The error in few words."""
    consecutive_failures: int
    retry_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PollSkipped(Event):
    """A camera was due while its last poll was still running."""

    EVENT: ClassVar[str] = "poll.skipped"
    TEXT: ClassVar[str] = "{camera}: still busy with the last poll, {skipped} due time(s) skipped"
    skipped: int
