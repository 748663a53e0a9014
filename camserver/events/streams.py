"""Events of streams: which engine reads them, and what go2rtc shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from camserver.events.base import Event, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class LibavChosen(Event):
    """Only libav reads a stream; it is used for a day."""

    EVENT: ClassVar[str] = "engine.libav"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = (
        "{camera}: libav reads this stream, camserver's own client does not ({reason}); "
        "libav is used for a day, or until a reload"
    )
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Go2rtcUp(Event):
    """Its API answers again."""

    EVENT: ClassVar[str] = "go2rtc.up"
    TEXT: ClassVar[str] = "go2rtc answers again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Go2rtcNotAnswering(Event):
    """Its API does not answer."""

    EVENT: ClassVar[str] = "go2rtc.down"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{reason}; cameras are asked themselves"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Go2rtcFallback(Event):
    """No picture came from go2rtc although it shows the camera. Told once."""

    EVENT: ClassVar[str] = "go2rtc.fallback"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{camera}: no picture from go2rtc ({reason}); the camera itself is asked"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRegistered(Event):
    """A stream was made in go2rtc."""

    EVENT: ClassVar[str] = "go2rtc.registered"
    TEXT: ClassVar[str] = "go2rtc: stream {stream} registered"
    stream: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRemoved(Event):
    """A stream of ours was taken away there."""

    EVENT: ClassVar[str] = "go2rtc.removed"
    TEXT: ClassVar[str] = "go2rtc: stream {stream} removed"
    stream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamForgotten(Event):
    """A stream is not ours any more: somebody has changed it, or it is another go2rtc."""

    EVENT: ClassVar[str] = "go2rtc.forgotten"
    TEXT: ClassVar[str] = "go2rtc: stream {stream} forgotten"
    stream: str
