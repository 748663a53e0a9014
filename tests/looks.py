"""Looks of pictures made by hand, and a judge that sees them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from camserver.config import HealthTable
from camserver.health import Judge, Picture
from camserver.model import CELLS_BYTES, Health, Look

START = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
CELLS = bytes(CELLS_BYTES)
WELL = Look(
    brightness=0.45,
    contrast=0.18,
    sharpness=0.6,
    shadows=0.2,
    highlights=0.8,
    colour=0.1,
    change=0.03,
    motion=0.4,
    cells=CELLS,
    hash="0" * 16,
    digest="",
)
BLACK = replace(WELL, brightness=0.01, highlights=0.02, shadows=0.0, contrast=0.0)
BLURRED = replace(WELL, sharpness=0.2)


class Watched:
    """One camera. Its clocks go on with each picture."""

    def __init__(self, limits: HealthTable | None = None, *, interval_s: float = 10.0) -> None:
        self.judge = Judge()
        self.limits = limits or HealthTable()
        self.interval_s = interval_s
        self.at = START
        self.now = 1000.0
        self.number = 0
        self.place = 0
        """Which scene it sees."""
        self.kind = (1920, 1080)
        self.offset_s: float | None = None

    def see(self, look: Look = WELL, *, digest: str = "", times: int = 1) -> Health:
        """Pictures that look like this. Each has its own digest unless one is given."""
        for _ in range(times):
            self.number += 1
            health = self.judge.judge(self._picture(look, digest), self.limits)
            self.wait(self.interval_s)
        return health

    def _picture(self, look: Look, digest: str) -> Picture:
        cells = bytes([self.place]) * CELLS_BYTES
        likeness = tuple(0.9 if one.cells == cells else 0.1 for one in self.judge.scenes.all)
        digest = digest or f"{self.number:016x}"
        seen = replace(look, digest=digest, likeness=likeness, cells=cells)
        interval_s, offset_s = self.interval_s, self.offset_s
        return Picture(seen, *self.kind, 100_000, self.at, self.now, interval_s, offset_s)

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.now += seconds

    def learned(self) -> Watched:
        self.see(times=20)
        return self
