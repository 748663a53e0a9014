"""The cameras of the chaos run, and their faults."""

from __future__ import annotations

from camserver.simulator.camera import SimulatedCamera

MARGIN_S = 0.5
"""How much longer the cool-downs in the inventory are than those of the cameras, in seconds.

On a busy machine both event loops are late.
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
    """Cameras with one and two sessions, with and without cool-down. go2rtc also has `watched`."""
    return [
        SimulatedCamera("one", "One", gop=3),
        SimulatedCamera("cool", "Cool", gop=3, cooldown_s=0.3, unclean_cooldown_s=1.5),
        SimulatedCamera("two", "Two", gop=3, max_sessions=2, unclean_cooldown_s=1.0),
        SimulatedCamera("watched", "Watched", gop=3, unclean_cooldown_s=1.0),
    ]
