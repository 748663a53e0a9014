"""Says what has changed among the hosts: who came, who went, whose inventory differs."""

from __future__ import annotations

from collections.abc import Callable

from camserver.events import Event
from camserver.events.fleet import (
    FleetHostChanged,
    FleetInventoriesDiffer,
    FleetRecordUnreadable,
)
from camserver.fleet.mirror import Mirror
from camserver.fleet.records import ENDED, HostState


class News:
    """What was said already about the other hosts."""

    def __init__(self, host: str, emit: Callable[[Event], None]) -> None:
        """`host` is this host."""
        self._host = host
        self._emit = emit
        self._states: dict[str, tuple[HostState, int]] = {}
        self._differing: tuple[str, ...] = ()
        self._faults: frozenset[str] = frozenset()

    def look(self, mirror: Mirror) -> None:
        """Say what is new since the last look. It costs the number of hosts."""
        for name in mirror.hosts:
            record = mirror.host(name)
            if record is None or name == self._host:
                continue
            state = record.state, record.epoch
            before = self._states.get(name)
            self._states[name] = state
            if state != before and (before is not None or record.state not in ENDED):
                self._emit(
                    FleetHostChanged(host=name, state=record.state.value, epoch=record.epoch)
                )
        self._say_differing(mirror)
        faults = frozenset(mirror.faults.values())
        for fault in sorted(faults - self._faults):
            self._emit(FleetRecordUnreadable(fault=fault))
        self._faults = faults

    def _say_differing(self, mirror: Mirror) -> None:
        mine = mirror.host(self._host)
        if mine is None:
            return
        differing = tuple(
            sorted(n for n, record in mirror.live() if record.inventory != mine.inventory)
        )
        if differing and differing != self._differing:
            self._emit(FleetInventoriesDiffer(hosts=", ".join(differing)))
        self._differing = differing
