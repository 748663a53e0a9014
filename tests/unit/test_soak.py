"""The soak's judgement: what it calls flat."""

from __future__ import annotations

import pytest
from soak import FLAT, Sample, growth, report


def samples(grown: float = 0.0, length: int = 100) -> list[Sample]:
    return [
        Sample(80 + (n % 7) + grown * n / length, 50 + n % 3, 12, 4, 0.01 * (n % 2))
        for n in range(length)
    ]


def test_what_goes_up_and_down_is_flat_and_a_trend_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(samples())
    assert not report(samples(grown=3 * FLAT["memory_mb"]))
    assert "memory_mb" in capsys.readouterr().out
    assert growth([1.0, 2.0, 3.0]) == pytest.approx(2.0)


def test_the_warm_up_does_not_count() -> None:
    cold = [Sample(20 + 3 * n, 10, 5, 1, 0.0) for n in range(20)]
    assert report(cold + samples(length=80))
