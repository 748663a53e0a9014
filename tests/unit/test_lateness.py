"""How late polls start in a large fleet, a tenth of which is dead."""

from __future__ import annotations

from itertools import cycle

from support import camera
from virtual_fleet import Fleet, dead, quick


def test_a_large_fleet_has_room_for_retries() -> None:
    """1,000 cameras at 60 s and 20 polls a second: the healthy ones do not wait for the dead."""
    chances = cycle(number / 10 for number in range(10))
    fleet = Fleet(
        lambda c: dead(c) if c.id.startswith("dead") else quick(c),
        sessions=256,
        open_rate=20.0,
        chance=lambda: next(chances),
    )
    names = (f"dead{number}" if number % 10 == 0 else f"live{number}" for number in range(1000))
    fleet.run([camera(name, interval_s=60.0) for name in names], 600)
    lateness = fleet.statistics.lateness
    assert lateness["healthy"].polls > 8000
    assert lateness["healthy"].most_s < 0.1
    assert lateness["new"].most_s < 1.0
    assert lateness["failing"].most_s < 12.0
