"""The base class of all events, and the bus that sends them to listeners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. `camera` is the camera's id, or empty.

    `EVENT` is the dotted name. `TEXT` is the sentence for a person, a format string of the event's
    fields.
    """

    EVENT: ClassVar[str] = "event"
    LEVEL: ClassVar[Level] = "info"
    TEXT: ClassVar[str] = ""
    camera: str = ""

    @property
    def text(self) -> str:
        """The sentence for a person."""
        return self.TEXT.format_map(_data(self))


def as_data(event: Event) -> dict[str, Any]:
    """The keys of an event, as the journal and `/v1/events` show them. `event` is its name."""
    data = {"event": event.EVENT, "level": event.LEVEL} | _data(event)
    said = {key: value for key, value in data.items() if value not in (None, "")}
    return {
        key: round(value, 1) if isinstance(value, float) else value for key, value in said.items()
    }


def _data(event: Event) -> dict[str, Any]:
    return {field.name: getattr(event, field.name) for field in fields(event)}


Listener = Callable[[Event], None]


class EventBus:
    """Sends each event to every listener, in order.

    A listener must not block and must not raise.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def add(self, listener: Listener) -> None:
        """Add a listener for all later events."""
        self._listeners.append(listener)

    def __call__(self, event: Event) -> None:
        """Publish one event."""
        for listener in self._listeners:
            listener(event)
