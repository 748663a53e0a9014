"""How long after their due time polls started."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

BOUNDS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""The bounds of the groups in which polls are counted, by their lateness."""


@dataclass(frozen=True, slots=True)
class LatenessStatistics:
    """Polls by their lateness, in seconds.

    `within` says how many were at most as late as each of BOUNDS_S; its last number counts all.
    """

    polls: int
    total_s: float
    most_s: float
    within: tuple[int, ...]


@dataclass(slots=True)
class Lateness:
    """Counts polls by their lateness, in seconds."""

    polls: int = 0
    total_s: float = 0.0
    most_s: float = 0.0
    _counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    def add(self, late_s: float) -> None:
        """Count a poll that started `late_s` seconds after its due time."""
        self.polls += 1
        self.total_s += late_s
        self.most_s = max(self.most_s, late_s)
        self._counts[bisect_left(BOUNDS_S, late_s)] += 1

    def statistics(self) -> LatenessStatistics:
        """A frozen copy."""
        within = tuple(accumulate(self._counts))
        return LatenessStatistics(self.polls, self.total_s, self.most_s, within)
