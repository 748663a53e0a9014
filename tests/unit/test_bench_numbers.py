"""What the published numbers are calculated with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import expected
from bench.expected import expectations
from bench.freshness_spans import ages, percentile


@pytest.mark.parametrize("bench", ["bench_fleet", "bench_growth"])
def test_a_bench_finds_what_it_imports(bench: str) -> None:
    """As a program, without the paths of the tests."""
    path = Path(expected.__file__).with_name(f"{bench}.py")
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_a_picture_is_as_old_as_its_name_until_the_next_one_is_written(tmp_path: Path) -> None:
    """Before the first picture the age counts from the daemon's start."""
    for captured, written in ((100.0, 101.0), (110.0, 113.0)):
        path = tmp_path / f"{captured:.3f}.jpg"
        path.touch()
        os.utime(path, (written, written))
    assert ages(tmp_path, 90.0, 95.0, 120.0) == [(5.0, 11.0), (1.0, 13.0), (3.0, 10.0)]
    assert ages(tmp_path / "none", 90.0, 95.0, 120.0) == [(5.0, 30.0)]


@pytest.mark.parametrize(("share", "age_s"), [(0.5, 5.0), (0.99, 9.9)])
def test_each_moment_counts_the_same(share: float, age_s: float) -> None:
    assert percentile([(0.0, 10.0)] * 3, share) == pytest.approx(age_s, abs=0.01)


def contender(cpu_s: float, wall_s: float = 0.1, failed: int = 0) -> dict[str, Any]:
    medians = {"cpu_s": cpu_s, "wall_s": wall_s, "decode_s": 0.03}
    return {"medians": medians, "failed": failed}


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, set()),
        ({"ffmpeg": contender(0.23)}, {"CPU of ffmpeg's default"}),
        ({"camserver": contender(0.03, failed=1)}, {"polls without a picture"}),
        ({"limit: bytes, first poll": contender(0.0, 0.04)}, {"decoding and JPEG"}),
        ({"limit: decoding": contender(0.025)}, {"beside bare decoding"}),
        ({"limit: decoding": {"medians": None, "failed": 3}}, set()),
    ],
)
def test_what_is_not_kept_is_said(changes: dict[str, Any], broken: set[str]) -> None:
    contenders = {
        "camserver": contender(0.03),
        "camserver, first poll": contender(0.03),
        "ffmpeg": contender(0.25),
        "limit: bytes, first poll": contender(0.0, 0.06),
        "limit: decoding": contender(0.028),
    } | changes
    lines = list(expectations({"plain": {"contenders": contenders}}, (), None))
    found = {line.what for line in lines if not line.kept}
    assert len(found) == len(broken)
    assert all(any(word in what for what in found) for word in broken)


@pytest.mark.parametrize(("small_ms", "kept"), [(5.1, True), (4.9, False)])
def test_a_large_fleet_is_compared_with_a_small_one_of_the_same_minutes(
    small_ms: float, kept: bool
) -> None:
    points = [
        {"cameras": 10_000, "own_cpu_ms": 6.0, "small_cpu_ms": small_ms},
        {"cameras": 10, "own_cpu_ms": 9.0, "small_cpu_ms": 3.0},
    ]
    idle = {"cameras": 1, "own_core": 0.0, "memory_mb": 1.0, "reload_busy_s": [0.01]}
    lines = expectations({}, (), {"points": points, "idle": idle, "ready_s": 0.1})
    (line,) = (each for each in lines if "10,000 cameras beside 100" in each.what)
    assert (line.measured, line.kept) == (f"{6.0 / small_ms:.2f}x", kept)
