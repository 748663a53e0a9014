"""What a picture looks like: measured in the decoder, on the planes that it has anyway.

All values are of full-range luma. `cells` is the picture in 48 x 27 cells, each the mean of its
part. It is fine enough to see what has changed, and small enough to be kept for each camera.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from camserver.model import CELLS_BYTES, Look, References

COLUMNS, ROWS = 48, 27
SCALE = 256
"""A cell is a mean luma of 0 to 255, times SCALE, as two bytes, little-endian."""
SAMPLES = 4
"""How many samples a cell has in each direction, at least. More would cost more time."""
SHARP_ROWS = 20
"""How many rows are read for the sharpness."""
MARGIN = 0.125
"""They are not near the upper or lower end: the camera writes there, and that is always sharp."""
EDGE = 3.0
"""An edge is a difference of so many times the mean difference."""
CHROMA_STEP = 8
CHANGED_LEVELS = 6.0
"""A cell has changed when its mean differs by more levels than this: noise is averaged away."""
FEW_DARK, FEW_BRIGHT = 0.05, 0.03
"""The share of the cells that may be darker than `shadows`, and brighter than `highlights`. An
overlay is bright, and takes about two cells of a hundred.
"""
STRONG_LEVELS = 6.0
"""Steps between cells that are much larger than this count alike: a lamp must not outweigh the
rest of the scene.
"""

Plane = np.ndarray[Any, np.dtype[np.uint8]]


def look_at(luma: Plane, chroma: tuple[Plane, ...], coded: bytes, references: References) -> Look:
    """Measure a picture. Planes have the shape (height, width).

    `chroma` is empty when it is not known. `coded` is what the camera sent.
    """
    cells = _cells(luma)
    levels = cells.astype(np.float32) / SCALE
    change, motion = _change(levels, references.previous)
    shadows, highlights = _percentiles(cells)
    return Look(
        brightness=float(levels.mean()) / 255,
        contrast=float(levels.std()) / 255,
        sharpness=_sharpness(luma),
        shadows=shadows,
        highlights=highlights,
        colour=_colour(chroma),
        change=change,
        motion=motion,
        cells=cells.astype("<u2").tobytes(),
        hash=_gradient_hash(levels),
        # SHA-1 is the fastest: processors have instructions for it
        digest=hashlib.sha1(coded, usedforsecurity=False).hexdigest()[:16],
        likeness=_likeness(levels, references.scenes),
    )


def _levels(cells: bytes) -> Any:
    """Cells as levels. Shape: (ROWS, COLUMNS)."""
    levels: Any = np.frombuffer(cells, "<u2").astype(np.float32) / SCALE
    return levels.reshape(ROWS, COLUMNS)


def _change(levels: Any, previous: bytes) -> tuple[float | None, float | None]:
    """(the share of the cells that have changed, the mean change of the calmer half in levels).

    None without a picture before.
    """
    if len(previous) != CELLS_BYTES:
        return None, None
    differences = np.abs(levels - _levels(previous)).ravel()
    calmer = np.partition(differences, differences.size // 2)[: differences.size // 2]
    return float((differences > CHANGED_LEVELS).mean()), float(calmer.mean())


def _percentiles(cells: np.ndarray[Any, np.dtype[np.uint16]]) -> tuple[float, float]:
    """The luma from 0 to 1 that few cells are darker than, and that few are brighter than."""
    low, high = int(cells.size * FEW_DARK), int(cells.size * (1 - FEW_BRIGHT))
    ordered = np.partition(cells.ravel(), (low, high))
    return float(ordered[low]) / SCALE / 255, float(ordered[high]) / SCALE / 255


def _likeness(levels: Any, scenes: tuple[bytes, ...]) -> tuple[float, ...]:
    """How much the picture is like each scene, from -1 to 1: whether edges are at the same places.

    It is the correlation of the steps between cells. Light, fog and contrast hardly change it.
    """
    if not scenes:
        return ()
    here = _steps(levels)
    return tuple(_correlation(here, _steps(_levels(scene))) for scene in scenes)


def _steps(levels: Any) -> Any:
    """The steps to the cells on the right and below, strong ones weakened. Shape: (n,)."""
    right = np.diff(levels, axis=1)[:-1]
    below = np.diff(levels, axis=0)[:, :-1]
    weight = 1 / np.sqrt(1 + (right * right + below * below) / STRONG_LEVELS**2)
    return np.concatenate(((right * weight).ravel(), (below * weight).ravel()))


def _correlation(one: Any, other: Any) -> float:
    size = float(np.sqrt(np.dot(one, one) * np.dot(other, other)))
    return float(np.dot(one, other)) / size if size else 0.0


def _cells(luma: Plane) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """The mean of each cell, times SCALE. Shape: (ROWS, COLUMNS)."""
    height, width = luma.shape
    step_y, step_x = max(1, height // (ROWS * SAMPLES)), max(1, width // (COLUMNS * SAMPLES))
    samples = luma[::step_y, ::step_x]
    rows, columns = _edges(samples.shape[0], ROWS), _edges(samples.shape[1], COLUMNS)
    sums = np.add.reduceat(samples, columns, axis=1, dtype=np.uint32)
    sums = np.add.reduceat(sums, rows, axis=0)
    counts = np.outer(_counts(rows, samples.shape[0]), _counts(columns, samples.shape[1]))
    return (sums * SCALE // counts).astype(np.uint16)


def _edges(size: int, count: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Where each of `count` parts of `size` begins."""
    return (np.arange(count) * size // count).astype(np.intp)


def _counts(edges: np.ndarray[Any, np.dtype[np.intp]], size: int) -> Any:
    # A part of a tiny picture may be empty: reduceat then takes the sample at its beginning
    return np.maximum(1, np.diff(np.append(edges, size)))


def _sharpness(luma: Plane) -> float:
    """How abrupt the strongest edges are, from 0 to about 1. Noise hardly changes it.

    The second difference over the first one, along rows, where the first one is large.
    """
    height, width = luma.shape
    if width < 8:
        return 0.0
    margin = int(height * MARGIN)
    middle = luma[margin : height - margin]
    rows = middle[:: max(1, middle.shape[0] // SHARP_ROWS)].astype(np.int16)
    first = np.abs(rows[:, 2:] - rows[:, :-2])
    strong = first > max(8.0, EDGE * float(first.mean()))
    slopes = int(first[strong].sum(dtype=np.int64))
    if not slopes:
        return 0.0
    second = np.abs(2 * rows[:, 1:-1] - rows[:, :-2] - rows[:, 2:])
    return int(second[strong].sum(dtype=np.int64)) / slopes


def _colour(chroma: tuple[Plane, ...]) -> float | None:
    """How far the chroma is from grey, from 0 to 1. Infrared pictures have none."""
    if not chroma:
        return None
    parts = [plane[::CHROMA_STEP, ::CHROMA_STEP].astype(np.int16) for plane in chroma]
    return float(sum(np.abs(part - 128).mean() for part in parts)) / 255


def _gradient_hash(levels: Any) -> str:
    """A perceptual hash of 64 bits, as 16 hexadecimal digits: whether it is brighter to the right.

    Pictures that look alike differ in few bits.
    """
    rows, columns = _edges(ROWS, 8), _edges(COLUMNS, 9)
    small = np.add.reduceat(np.add.reduceat(levels, rows, axis=0), columns, axis=1)
    small /= np.outer(_counts(rows, ROWS), _counts(columns, COLUMNS))
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()
