"""Events of streams: which engine reads them, and what go2rtc shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from camserver.events.base import Event, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class LibavChosen(Event):
    """Only libav can read a stream. libav is used for it for a day."""

    EVENT: ClassVar[str] = "engine.libav"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = (
        "{camera}: libav reads this stream, camserver's own client does not ({reason}); "
        "libav is used for a day, or until a reload"
    )
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Go2rtcUp(Event):
    """go2rtc's API answers again."""

    EVENT: ClassVar[str] = "go2rtc.up"
    TEXT: ClassVar[str] = "go2rtc answers again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Go2rtcNotAnswering(Event):
    """go2rtc's API does not answer."""

    EVENT: ClassVar[str] = "go2rtc.down"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{reason}; cameras are asked themselves"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Go2rtcFallback(Event):
    """No picture came from go2rtc although it shows the camera. The event is sent once."""

    EVENT: ClassVar[str] = "go2rtc.fallback"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{camera}: no picture from go2rtc ({reason}); the camera itself is asked"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRegistered(Event):
    """camserver created a stream in go2rtc."""

    EVENT: ClassVar[str] = "go2rtc.registered"
    TEXT: ClassVar[str] = "go2rtc: stream {stream} registered"
    stream: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRemoved(Event):
    """camserver removed one of its streams from go2rtc."""

    EVENT: ClassVar[str] = "go2rtc.removed"
    TEXT: ClassVar[str] = "go2rtc: stream {stream} removed"
    stream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamForgotten(Event):
    """A stream is not camserver's any more: it was changed there, or another go2rtc is used."""

    EVENT: ClassVar[str] = "go2rtc.forgotten"
    TEXT: ClassVar[str] = "go2rtc: stream {stream} forgotten"
    stream: str
