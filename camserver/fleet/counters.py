"""What happened to this host in its fleet since the start, counted from events."""

from __future__ import annotations

from dataclasses import dataclass

from camserver.events import Event
from camserver.events.fleet import FleetDevicesTaken, FleetFenced, FleetNotValid


@dataclass(slots=True)
class FleetCounters:
    """A listener of events."""

    takeovers: int = 0
    fenced: int = 0
    lapsed: int = 0

    def __call__(self, event: Event) -> None:
        """Count an event."""
        match event:
            case FleetDevicesTaken():
                self.takeovers += event.lost
            case FleetFenced():
                self.fenced += 1
            case FleetNotValid():
                self.lapsed += 1
