"""The cameras of the chaos, and what goes wrong with them."""

from __future__ import annotations

from camserver.simulator.camera import SimulatedCamera

MARGIN_S = 0.5
"""Cool-downs in the inventory are so much longer than the cameras' own.

Both loops are late on a busy machine.
"""
FAULTS = (
    "silent",
    "no-keyframe",
    "cut",
    "stall:DESCRIBE",
    "stall:TEARDOWN",
    "status:503",
    "deaf",
    "damage",
)
ONE_SESSION = ("one", "cool", "watched")


def fleet() -> list[SimulatedCamera]:
    """Budgets of one and two sessions, with and without cool-down; `watched` is also go2rtc's."""
    return [
        SimulatedCamera("one", "One", gop=3),
        SimulatedCamera("cool", "Cool", gop=3, cooldown_s=0.3, unclean_cooldown_s=1.5),
        SimulatedCamera("two", "Two", gop=3, max_sessions=2, unclean_cooldown_s=1.0),
        SimulatedCamera("watched", "Watched", gop=3, unclean_cooldown_s=1.0),
    ]
