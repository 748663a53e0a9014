"""Events of what pictures look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from camserver.events.base import Event, Level
from camserver.model import SUSPICION_LABELS, Suspicion


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSuspect(Event):
    """Pictures of a camera come, but do not show what they should. `since` is in RFC 3339."""

    EVENT: ClassVar[str] = "picture.suspect"
    LEVEL: ClassVar[Level] = "warning"
    reason: Suspicion
    since: str

    @property
    def text(self) -> str:
        """The sentence for a person."""
        return f"{self.camera}: the camera {SUSPICION_LABELS[self.reason]} since {self.since}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureNotJudged(Event):
    """A picture could not be judged (a bug). It is published all the same."""

    EVENT: ClassVar[str] = "picture.unjudged"
    LEVEL: ClassVar[Level] = "error"
    TEXT: ClassVar[str] = (
        "{camera}: its picture could not be judged: {error}; what was known of it is forgotten"
    )
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRecovered(Event):
    """A suspicion holds no more, after so many seconds."""

    EVENT: ClassVar[str] = "picture.recovered"
    TEXT: ClassVar[str] = "{camera}: recovered from {reason}, after {after_s:.0f} s"
    reason: Suspicion
    after_s: float
