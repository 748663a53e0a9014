"""Whether the store of the fleet can be used, and how fast it answers."""

from __future__ import annotations

from collections.abc import Callable

from camserver.events import Event
from camserver.events.fleet import FleetStoreAway, FleetStoreBack
from camserver.fleet.store import StoreError


class StoreHealth:
    """What the last calls of the store said."""

    def __init__(self, emit: Callable[[Event], None], clock: Callable[[], float]) -> None:
        self.reason = ""
        """Why the store cannot be used. Empty when it can."""
        self.latency_s = 0.0
        """How long the last swap took."""
        self._emit = emit
        self._clock = clock
        self._away_since: float | None = None

    def failed(self, error: StoreError) -> None:
        """Note that a call has failed."""
        self.reason = str(error)
        if self._away_since is None:
            self._away_since = self._clock()
            self._emit(FleetStoreAway(reason=self.reason))

    def answered(self) -> None:
        """Note that a call was done."""
        if self._away_since is not None:
            self._emit(FleetStoreBack(away_s=self._clock() - self._away_since))
        self.reason, self._away_since = "", None
