"""What a picture looks like, in numbers: they follow the picture, and cost little."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from camserver.capture.decoder import MAYBE_NUMBERS, NUMBERS, _look
from camserver.capture.look import look_at
from camserver.model import CELLS_BYTES, Look, References

RANDOM = np.random.default_rng(1)


def scene() -> Any:
    """A picture with edges: blocks of different grey."""
    blocks = RANDOM.integers(30, 220, (18, 32)).astype(np.uint8)
    return np.kron(blocks, np.ones((20, 20), np.uint8))


SCENE = scene()


def look(luma: Any, previous: bytes = b"", coded: bytes = b"x", *scenes: Look) -> Look:
    references = References(previous, tuple(scene.cells for scene in scenes))
    return look_at(np.ascontiguousarray(luma.astype(np.uint8)), (), coded, references)


def noisy(luma: Any, levels: float = 3.0) -> Any:
    return np.clip(luma + RANDOM.normal(0, levels, luma.shape), 0, 255)


def blurred(luma: Any, radius: float) -> Any:
    return np.asarray(Image.fromarray(luma).filter(ImageFilter.GaussianBlur(radius)))


def bits(a: Look, b: Look) -> int:
    return (int(a.hash, 16) ^ int(b.hash, 16)).bit_count()


def test_brightness_and_contrast() -> None:
    black, white = look(SCENE * 0), look(SCENE * 0 + 255)
    assert (black.brightness, black.contrast) == (0, 0)
    assert (white.brightness, white.contrast) == (1, 0)
    assert look(SCENE).brightness == pytest.approx(SCENE.mean() / 255, abs=0.01)
    assert look(SCENE).contrast == pytest.approx(SCENE.std() / 255, rel=0.3)  # of the cells
    assert look(128 + (SCENE - 128.0) / 4).contrast == pytest.approx(
        look(SCENE).contrast / 4, rel=0.1
    )


def test_sharpness_falls_with_defocus_and_not_with_light_or_noise() -> None:
    sharp = look(SCENE).sharpness
    for changed in (noisy(SCENE), SCENE * 0.4, 128 + (SCENE - 128.0) / 2):
        assert look(changed).sharpness > 0.7 * sharp
    values = [look(noisy(blurred(SCENE, radius))).sharpness for radius in (1, 2, 4)]
    assert max(values) < 0.6 * sharp


def test_change_is_the_share_that_has_changed() -> None:
    before = look(noisy(SCENE))
    assert before.change is None
    assert look(noisy(SCENE), before.cells).change == 0, "noise is no change"
    other = SCENE.copy()
    other[:90, :160] = 255 - other[:90, :160]  # an eighth of it
    assert look(noisy(other), before.cells).change == pytest.approx(1 / 16, abs=0.02)
    assert look(255 - SCENE, before.cells).change == pytest.approx(0.95, abs=0.06)


def test_alike_pictures_have_hashes_that_are_alike() -> None:
    one = look(SCENE)
    assert bits(one, look(noisy(SCENE * 0.6 + 20))) <= 6
    assert bits(one, look(SCENE[:, ::-1])) > 20
    assert one.digest != look(SCENE, coded=b"y").digest
    assert one.digest == look(SCENE).digest


def test_colour_is_of_the_chroma() -> None:
    grey, red = np.full((180, 320), 128, np.uint8), np.full((180, 320), 200, np.uint8)
    assert look(SCENE).colour is None
    assert look_at(SCENE, (grey, grey), b"", References()).colour == 0
    assert look_at(SCENE, (grey, red), b"", References()).colour == pytest.approx(72 / 255)


def test_motion_is_of_the_calmer_half() -> None:
    """So it shows the sensor's noise, whatever else moves."""
    before = look(noisy(SCENE))
    assert before.motion is None
    still = look(noisy(SCENE), before.cells).motion
    other = SCENE.copy()
    other[:, :200] = 255 - other[:, :200]
    moving = look(noisy(other), before.cells).motion
    assert still is not None
    assert moving is not None
    assert 0.1 < still < 1.0
    assert still < moving < 2 * still
    assert look(SCENE, look(SCENE).cells).motion == 0


def test_shadows_and_highlights_leave_an_overlay_out() -> None:
    dark = (SCENE * 0.0 + 5).astype(np.uint8)
    dark[4:18, 10:200] = 255
    found = look(dark)
    assert found.highlights == pytest.approx(5 / 255, abs=0.001)
    assert look(255 - dark).shadows == pytest.approx(250 / 255, abs=0.001)


def test_likeness_is_of_the_scene_and_not_of_the_light() -> None:
    one, other = look(SCENE), look(scene())
    seen = look(noisy(SCENE * 0.5 + 20), b"", b"", one, other)
    assert seen.likeness[0] > 0.9
    assert abs(seen.likeness[1]) < 0.3
    assert look(SCENE * 0 + 80, b"", b"", one).likeness == (0.0,)
    assert look(np.roll(SCENE, 40, axis=1), b"", b"", one).likeness[0] < 0.4


def test_an_overlay_is_not_what_is_sharp() -> None:
    """Cameras write their clock above or below. It stays sharp when the lens does not."""
    soft = blurred(SCENE, 4).copy()
    soft[4:18:2, 10:200] = 255
    assert look(soft).sharpness < 0.6 * look(SCENE).sharpness


@given(st.integers(1, 200), st.integers(1, 200))
def test_any_size_can_be_measured(height: int, width: int) -> None:
    found = look(np.full((height, width), 99))
    assert len(found.cells) == CELLS_BYTES
    assert found.brightness == pytest.approx(99 / 255)
    assert look(np.full((height, width), 99), found.cells).change == 0


def test_facts_of_a_worker_are_checked() -> None:
    """It is not trusted: a camera may have taken it over."""
    good: dict[str, object] = dict.fromkeys((*NUMBERS, *MAYBE_NUMBERS), 0.5) | {
        "hash": "0" * 16,
        "digest": "f" * 16,
        "likeness": [0.5, -0.5],
    }
    cells = bytes(CELLS_BYTES)
    assert _look(good, cells, 2) is not None
    assert _look(good | {"change": None, "motion": None, "colour": None}, cells, 2) is not None
    for bad in (
        {"brightness": None},
        {"brightness": "0.5"},
        {"contrast": float("nan")},
        {"sharpness": -1.0},
        {"change": float("inf")},
        {"hash": "<script>"},
        {"digest": 7},
        {"hash": None},
        {"likeness": [0.5]},
        {"likeness": [0.5, float("nan")]},
        {"likeness": [0.5, "0.5"]},
        {"likeness": "ab"},
        {"likeness": None},
    ):
        assert _look(good | bad, cells, 2) is None
    assert _look(good, cells[1:], 2) is None
    assert _look([], cells, 2) is None
