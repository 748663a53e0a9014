"""What the judge of pictures finds, and what is no fault, on real and drawn scenes.

The pictures are coded as H.264 and go through the real decoder. `make health` prints the whole
table of docs/health.md.
"""

from __future__ import annotations

from functools import cache

import pytest
from footage import SCENES
from health_cases import AFTERWARDS, FAULTS, QUIET, Camera, Case

NOTHING = Case("nothing", None)


@cache
def learned(scene: str) -> Camera:
    """A camera that was seen for half an hour."""
    camera = Camera(SCENES[scene])
    camera.learn()
    return camera


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.name)
def test_each_fault_is_found_in_the_real_scene_and_its_end_too(case: Case) -> None:
    camera = learned("clip").befall(case)
    assert camera.found == {case.expected}
    camera.run(AFTERWARDS, NOTHING)
    assert camera.judge.health is not None
    assert camera.judge.health.state == "ok"


@pytest.mark.parametrize("case", QUIET, ids=lambda case: case.name)
@pytest.mark.parametrize("scene", ["clip", "warehouse"])
def test_what_is_no_fault_is_not_called_one(scene: str, case: Case) -> None:
    """Night, fog, snow, infrared, a truck, and an empty warehouse in which nothing moves."""
    assert learned(scene).befall(case).found == set()


@pytest.mark.parametrize("scene", ["yard", "warehouse"])
def test_a_frozen_picture_is_found_although_its_clock_runs(scene: str) -> None:
    case = next(case for case in FAULTS if case.name == "clock runs on")
    assert learned(scene).befall(case).found == {case.expected}


def test_two_hours_of_a_surveillance_clip_give_no_alarm() -> None:
    """The clip again and again, each picture with its own noise, every ten seconds."""
    camera = Camera(SCENES["clip"], interval_s=10.0)
    camera.run(2 * 3600 // 10, NOTHING)
    assert camera.found == set()
    assert len(camera.judge.scenes.known) == 1
