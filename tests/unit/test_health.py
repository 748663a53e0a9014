"""The judge of pictures, on looks made by hand: what it learns, tells, and keeps."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from looks import BLACK, BLURRED, START, WELL, Watched

from camserver.config import HealthTable
from camserver.health.evidence import Evidence
from camserver.health.scene import blend
from camserver.health.stored import content, read
from camserver.model import Suspicion


def test_the_first_pictures_are_learned_from() -> None:
    camera = Watched()
    assert camera.see(times=19).state == "learning"
    ok = camera.see(times=2)
    assert (ok.state, ok.label, ok.since) == ("ok", "", START + timedelta(seconds=190))


def test_a_fault_is_told_when_it_has_lasted_and_since_when() -> None:
    """One picture is no fault, and one that looks well is no end."""
    camera = Watched().learned()
    began = camera.at
    assert camera.see(BLURRED, times=18).state == "ok"
    suspect = camera.see(BLURRED)
    assert (suspect.state, suspect.since) == ("blurred", began)
    assert suspect.label == "has been blurred"
    assert camera.see().state == "blurred"
    assert camera.see(BLURRED).state == "blurred"
    camera.see(times=4)
    assert camera.see(times=2).state == "ok"


def test_what_passes_is_no_fault() -> None:
    """A truck, a hand, a headlight: the time begins again."""
    camera = Watched().learned()
    for _ in range(20):
        assert camera.see(BLACK, times=12).state == "ok"
        assert camera.see(times=2).state == "ok"


def test_rare_pictures_need_three_of_them() -> None:
    camera = Watched(interval_s=3600.0).learned()
    assert camera.see(BLURRED, times=2).state == "ok"
    assert camera.see(BLURRED).state == "blurred"


def test_the_end_needs_a_clear_distance_from_the_limit() -> None:
    """At the limit it does not flap."""
    camera = Watched().learned()
    camera.see(BLURRED, times=30)
    near = replace(WELL, sharpness=0.6 * 0.6 * 1.05)
    assert camera.see(near, times=50).state == "blurred"
    assert camera.see(replace(WELL, sharpness=0.6 * 0.75), times=10).state == "ok"


def test_a_night_that_came_before_is_usual() -> None:
    """A place without light is black every night. Two of them are told, then it is known."""
    camera = Watched(interval_s=600.0)
    camera.see(times=30)
    found = []
    for _ in range(4):
        night = {camera.see(BLACK).state for _ in range(60)}
        day = {camera.see().state for _ in range(84)}
        found.append((night, day - {"black"}))
    assert found[:2] == [({"ok", "black"}, {"ok"})] * 2
    assert found[2:] == [({"ok"}, {"ok"})] * 2
    camera.wait(12 * 3600)
    camera.see(times=2)
    assert camera.see(BLACK, times=10).state == "black", "by day it is told"


def test_a_fault_is_no_night() -> None:
    """Single black pictures, and days of black ones, teach nothing."""
    camera = Watched(interval_s=60.0).learned()
    for _ in range(16):
        camera.see(BLACK)
        camera.see(times=179)
    assert camera.see(BLACK, times=10).state == "black"
    camera.see(times=10)
    for _ in range(2):
        camera.see(BLACK, times=26 * 60)
        camera.see(times=22 * 60)
    assert camera.see(BLACK, times=10).state == "black"


def test_what_cannot_be_told_ends_no_fault_and_teaches_nothing() -> None:
    """A picture of another source, in infrared for the first time, in a light never seen before."""
    grey = replace(WELL, colour=0.0)
    camera = Watched().learned()
    camera.place = 1
    camera.see(times=25)
    for other in (replace(WELL, colour=None), grey, replace(WELL, contrast=0.01)):
        assert camera.see(other, times=5).state == "moved"
    assert camera.see(times=5).state == "moved"
    assert len(camera.judge.scenes.known) == 1
    camera = Watched().learned()
    camera.see(BLURRED, times=25)
    camera.see(replace(BLURRED, brightness=0.75), times=50)
    assert camera.see(BLURRED).state == "blurred"
    camera.kind = (640, 360)
    camera.see(BLURRED, times=50)
    camera.kind = (1920, 1080)
    assert camera.see(BLURRED).state == "blurred"
    camera = Watched().learned()
    camera.place = 1
    assert camera.see(grey, times=50).state == "ok", "the first night in infrared"
    assert len(camera.judge.scenes.known) == 2


def test_what_was_seen_before_a_gap_does_not_count() -> None:
    camera = Watched().learned()
    camera.see(BLURRED, times=2)
    camera.wait(3 * 86_400)
    assert camera.see(BLURRED, times=2).state == "ok"
    camera = Watched().learned()
    camera.place = 1
    camera.see(times=60)
    camera.wait(8 * 86_400)
    assert camera.see(times=10).state == "moved"


def test_another_scene_that_came_and_went_is_known() -> None:
    """The camera looks elsewhere for two hours, and does so again: at night, on a patrol."""
    camera = Watched(interval_s=60.0).learned()
    camera.place = 1
    assert camera.see(times=120).state == "moved"
    camera.place = 0
    assert camera.see(times=5).state == "ok"
    assert len(camera.judge.scenes.known) == 2


def test_a_scene_that_stays_is_the_usual_one_after_a_week() -> None:
    camera = Watched(HealthTable(accept_after=86_400), interval_s=3600.0).learned()
    camera.place = 1
    for hour in range(30):  # day and infrared
        camera.see(replace(WELL, colour=0.0) if hour % 8 > 4 else WELL)
        assert hour < 3 or hour > 22 or camera.judge.health.state == "moved"
    assert camera.see().state == "ok"
    assert len(camera.judge.scenes.known) == 3


def test_patrols_are_learned_from_the_first_pictures() -> None:
    """Each preset is a scene of its own, but there is an end of them."""
    camera = Watched()
    for number in range(20):
        camera.place = number
        assert camera.see().state == ("learning" if number < 19 else "ok")
    assert 1 < len(camera.judge.scenes.known) <= 12


def test_a_patrol_is_learned_from_its_returns() -> None:
    """Nine presets of a minute, eight of them unknown: told at first, known after some rounds."""
    camera = Watched().learned()
    told = []
    for _ in range(20):
        states = set()
        for preset in range(9):
            camera.place = preset
            states |= {camera.see(times=6).state}
        told.append("moved" in states)
    assert told[0]
    assert not any(told[-3:])


def test_single_odd_pictures_teach_no_scene() -> None:
    """A placard "no video", now and then, and then for good."""
    camera = Watched().learned()
    for _ in range(10):
        camera.place = 1
        camera.see()
        camera.place = 0
        camera.see(times=10)
    camera.place = 1
    assert camera.see(times=25).state == "moved"


def test_pictures_that_come_less_often_than_wanted_are_judged_by_their_own_pace() -> None:
    """The device is busy: a picture every 190 s instead of 10 s. One outage is no pace."""
    for look, state in ((BLURRED, "blurred"), (BLACK, "black")):
        camera = Watched().learned()
        for _ in range(30):
            health = camera.see(look)
            camera.wait(180)
        assert health.state == state
    camera = Watched().learned()
    for _ in range(5):
        health = camera.see(digest="c" * 16)
        camera.wait(500)
    assert health.state == "frozen"


def test_a_camera_that_is_uncovered_and_turned_is_not_covered() -> None:
    camera = Watched().learned()
    camera.place = 1
    camera.see(replace(WELL, contrast=0.02), times=30)
    assert camera.see(times=25).state == "moved"


def test_a_car_does_not_end_the_night() -> None:
    """A picture that is lit now and then, by a lamp or a car."""
    camera = Watched(interval_s=300.0)
    camera.see(times=30)
    told = []
    for _ in range(5):
        night = [camera.see(WELL if n % 5 == 4 else BLACK).state for n in range(120)]
        told.append("black" in night)
        camera.see(times=168)
    assert told == [True, True, False, False, False]


def test_the_same_coded_picture_is_frozen() -> None:
    camera = Watched().learned()
    began = camera.at
    assert camera.see(digest="a" * 16, times=12).state == "ok"
    frozen = camera.see(digest="a" * 16)
    assert (frozen.state, frozen.since) == ("frozen", began)
    assert camera.see().state == "ok", "one new picture proves it"


@pytest.mark.parametrize("same", [1, 2, 3, 8])
def test_a_keyframe_that_comes_again_until_the_next_one_is_not_frozen(same: int) -> None:
    """Polls may be more frequent than keyframes, and snapshot URLs are often cached."""
    for has_clock in (False, True):
        camera = Watched(interval_s=0.3)
        camera.offset_s = 0.1 if has_clock else None
        states = set()
        for group in range(600 // same):
            states.add(camera.see(digest=f"{group:016x}", times=same).state)
        assert states <= {"learning", "ok"}


def test_a_clock_that_stands_is_frozen_if_the_picture_stands() -> None:
    still = replace(WELL, change=0.0, motion=0.0)
    noise = replace(WELL, change=0.0, motion=0.1)
    for look, has_gone, state in (
        (still, True, "frozen"),
        (noise, True, "ok"),
        (still, False, "ok"),  # it begins again with each session
    ):
        camera = Watched(HealthTable(clock_tolerance=3600))
        for number in range(40):
            is_standing = number >= 20 or not has_gone
            camera.offset_s = -10.0 * (number - 20) if is_standing else 0.0
            health = camera.see(look if is_standing else WELL)
        assert health.state == state


def test_no_motion_where_there_was_motion_is_frozen() -> None:
    """Only an overlay changes. It takes five times as long, and is not told of a quiet camera."""
    still = replace(WELL, change=0.002, motion=0.0)
    for usual, state in ((0.4, "frozen"), (0.05, "ok")):
        camera = Watched(interval_s=30.0)
        camera.see(replace(WELL, motion=usual), times=80)
        assert camera.see(still, times=20).state == "ok"
        assert camera.see(still, times=2).state == state
    camera = Watched(interval_s=30.0)
    camera.see(times=80)
    camera.see(still, times=30)
    for moves in (replace(still, change=0.5), replace(still, brightness=0.95)):
        assert camera.see(still, times=30).state == "frozen"
        assert camera.see(moves).state == "ok"
    camera = Watched(interval_s=30.0)
    camera.see(replace(WELL, motion=2.0), times=400)
    assert camera.see(replace(WELL, motion=0.25), times=100).state == "ok", "it became calm"
    camera = Watched(interval_s=30.0)
    camera.see(times=80)
    camera.interval_s = 5.0
    assert camera.see(still, times=200).state == "frozen"
    assert Watched(interval_s=30.0).learned().see(still, times=40).state == "ok", "not known yet"


def test_a_wrong_clock() -> None:
    for offset_s, state in (
        (59.0, "ok"),
        (61.0, "clock"),
        (-3600.0, "clock"),
        (-56 * 365 * 86_400.0, "clock"),
        (-127 * 365 * 86_400.0, "ok"),  # the time since the camera's start, or zero
        (1e12, "ok"),  # no time at all
        (float("nan"), "ok"),
    ):
        camera = Watched().learned()
        camera.offset_s = offset_s
        assert camera.see(times=25).state == state, offset_s
    camera.offset_s = 61.0
    camera.see(times=25)
    camera.offset_s = None
    assert camera.see(times=25).state == "clock", "a camera that does not tell is not cured"
    camera.offset_s = 0.1
    assert camera.see(times=10).state == "ok"
    camera.offset_s = 61.0
    camera.see(times=25)
    camera.offset_s = None
    camera.wait(86_400)
    assert camera.see().state == "ok", "its source tells no clock any more"


def test_the_worst_is_shown_first() -> None:
    camera = Watched().learned()
    camera.offset_s = 3600.0
    camera.see(times=25)
    camera.see(BLACK, times=30)
    health = camera.see(BLACK)
    (first, since), (second, earlier) = health.suspicions
    assert (first, second) == (Suspicion.BLACK, Suspicion.CLOCK)
    assert health.since == since > earlier


def test_a_fault_that_no_picture_tells_of_any_more_is_forgotten() -> None:
    """The lens was mended, and another stream size was set: the new size is learned after a day."""
    camera = Watched(interval_s=600.0).learned()
    camera.see(BLURRED, times=10)
    camera.kind = (640, 360)
    assert camera.see(times=100).state == "blurred"
    assert camera.see(times=60).state == "ok"
    assert len(camera.judge.scenes.known) == 2


def test_nothing_is_learned_from_a_fault() -> None:
    camera = Watched().learned()
    camera.see(BLURRED, times=2000)
    assert camera.see(BLURRED).state == "blurred"
    camera = Watched().learned()
    camera.see(digest="b" * 16, times=2000)
    assert camera.judge.scenes.pictures < 25


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """Also a reboot, after which the clock begins again."""
    path = tmp_path / "health.json"
    camera = Watched().learned()
    began = camera.at
    camera.see(BLURRED, times=12)
    path.write_bytes(content(camera.judge, "rtsp://a/", 5e8, camera.now))
    assert read(path, "rtsp://b/", 5e8, camera.now) is None, "another camera"
    found = read(path, "rtsp://a/", 5e8 + 10, 77.0)
    assert found is not None
    camera.judge, camera.now = found, 77.0
    camera.see(BLURRED, times=6)
    suspect = camera.see(BLURRED)
    assert (suspect.state, suspect.since) == ("blurred", began)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1, 2]", b"\xff", b"null", b"9" * 5000])
def test_a_damaged_file_is_no_file(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "health.json"
    path.write_bytes(damage)
    assert read(path, "x", 0.0, 0.0) is None
    whole = content(Watched().learned().judge, "x", 0.0, 0.0)
    assert len(whole) < 20_000
    path.write_bytes(whole)
    assert read(path, "x", 0.0, 0.0) is not None
    for odd in (
        whole.replace(b"AAAAAAAA", b"", 1),
        re.sub(rb'"cells":"[A-Z]*"', b'"cells":""', whole, count=1),
        re.sub(rb'"pictures":\d+', b'"pictures":-1', whole, count=1),
    ):
        assert odd != whole
        path.write_bytes(odd)
        assert read(path, "x", 0.0, 0.0) is None
    older = json.loads(whole)
    assert older["judge"]["evidence"] == {}, "a camera that looks well has none"
    older["judge"]["evidence"] = {"frozen": asdict(Evidence()), "moved": asdict(Evidence())}
    path.write_text(json.dumps(older))
    known = read(path, "x", 0.0, 0.0)
    assert known is not None
    assert known.evidence == {}, "an older version kept what is over"
    assert read(tmp_path, "x", 0.0, 0.0) is None


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8), st.floats(0, 1))
@example(bytes(8), b"\xff" * 8, 1.0)
@example(b"\xff" * 8, b"\xff" * 8, 0.3)
def test_cells_are_blended_one_by_one(old: bytes, new: bytes, weight: float) -> None:
    share = round(weight * 256)
    for before, after, found in zip(
        *(memoryview(cells).cast("H") for cells in (old, new, blend(old, new, weight))), strict=True
    ):
        assert found == (before * (256 - share) + after * share) // 256


def test_pictures_with_other_cells_are_not_blended() -> None:
    with pytest.raises(ValueError, match="different numbers"):
        blend(bytes(8), bytes(6), 0.5)
