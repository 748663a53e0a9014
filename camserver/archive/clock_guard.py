"""Decides whether the wall clock may be believed when pictures are deleted by age. Pure.

A wall clock can lie: after a battery is empty, before the time server answers, or when a person
sets it. Then old pictures look new, or new ones old. Deleting by a wrong clock can't be undone. So
the guard compares the wall clock with the clock since boot, which nobody can set, and with the wall
time of the last pass. After a difference, nothing is deleted by age until the clocks have agreed
for AGREEMENT_S, or until a person confirms the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

TOLERANCE_S = 600.0
"""The most by which the wall clock may be set between two passes. Time servers correct seconds."""
DRIFT_A_DAY_S = 60.0
"""How much a clock may be corrected in a day in the long run."""
MAX_GAP_S = 86400.0
"""The longest time without camserver, over a restart of the machine, that is believed at once."""
AGREEMENT_S = 86400.0
NEARLY_ALL = 0.9
"""The share of the pictures that may be deleted that no pass deletes by age at once."""
FEW_PICTURES = 50
"""Fewer pictures than this are never nearly all."""


class Doubt(StrEnum):
    """Why nothing is deleted by age."""

    SET = "the clock was set"
    GAP = "the clock is far from the last pass"
    NEARLY_ALL = "a pass by age would delete nearly everything of a camera"


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks at one moment. `boot_s` is the time since the boot with the id `boot_id`."""

    wall_s: float
    boot_s: float
    boot_id: str


@dataclass(frozen=True, slots=True)
class ClockRecord:
    """The clocks at the last pass, and what is doubted. It is stored beside the index.

    `by_s` is the difference that was found, in seconds. `agreed_s` is how long the clocks have
    agreed since. `confirmed` means that the next pass may delete nearly everything.
    """

    wall_s: float
    boot_s: float
    boot_id: str
    doubt: Doubt | None = None
    by_s: float = 0.0
    agreed_s: float = 0.0
    confirmed: bool = False
    drift_s: float = 0.0
    """The sum of the small differences that were believed, less DRIFT a day."""

    @classmethod
    def load(cls, stored: Mapping[str, Any] | None) -> ClockRecord | None:
        """The record from its stored form. None when there is none, or no valid one."""
        if stored is None:
            return None
        try:
            doubt = stored["doubt"]
            return cls(**{**stored, "doubt": None if doubt is None else Doubt(doubt)})
        except (KeyError, TypeError, ValueError):
            return None

    def stored(self) -> dict[str, Any]:
        """The form that is stored."""
        return asdict(self)

    @property
    def left_s(self) -> float:
        """How many more seconds the clocks must agree. 0 without a doubt."""
        return 0.0 if self.doubt is None else AGREEMENT_S - self.agreed_s


def look(record: ClockRecord | None, now: Clocks, newest_before_s: float | None) -> ClockRecord:
    """The record after a look at the clocks.

    `newest_before_s` is the time of the newest picture of an earlier run. It stands in for the last
    pass when there is no record.
    """
    if record is None:
        if newest_before_s is None:
            return ClockRecord(now.wall_s, now.boot_s, now.boot_id)
        record = ClockRecord(newest_before_s, 0.0, "")
    seen = replace(record, wall_s=now.wall_s, boot_s=now.boot_s, boot_id=now.boot_id)
    passed_s = now.wall_s - record.wall_s
    if now.boot_id == record.boot_id and now.boot_s >= record.boot_s:
        elapsed_s = now.boot_s - record.boot_s
        drift_s = record.drift_s + passed_s - elapsed_s
        if abs(drift_s) > TOLERANCE_S:
            return replace(_doubted(seen, Doubt.SET, drift_s), drift_s=0.0)
        forgiven_s = min(abs(drift_s), elapsed_s * DRIFT_A_DAY_S / 86400)
        drift_s -= forgiven_s if drift_s > 0 else -forgiven_s
        return _agreed(replace(seen, drift_s=drift_s), elapsed_s)
    if not -TOLERANCE_S <= passed_s <= MAX_GAP_S:
        return _doubted(seen, Doubt.GAP, passed_s)
    return seen


def judge(record: ClockRecord, counts: Iterable[tuple[int, int]]) -> ClockRecord:
    """The record when a pass would delete so many pictures by age.

    `counts` are, for each camera, the pictures that are deleted, and those that may be deleted.
    """
    nearly_all = any(
        deletes > FEW_PICTURES and deletes > NEARLY_ALL * deletable for deletes, deletable in counts
    )
    if record.doubt is None and nearly_all and not record.confirmed:
        return _doubted(record, Doubt.NEARLY_ALL, 0.0)
    return record


def confirmed(record: ClockRecord) -> ClockRecord:
    """The record after a person, or the passing time, has confirmed the clock."""
    return replace(record, doubt=None, by_s=0.0, agreed_s=0.0, confirmed=True)


def done(record: ClockRecord) -> ClockRecord:
    """The record after a pass by age: the next one is judged again."""
    return replace(record, confirmed=False)


def _doubted(record: ClockRecord, doubt: Doubt, by_s: float) -> ClockRecord:
    return replace(record, doubt=doubt, by_s=by_s, agreed_s=0.0, confirmed=False)


def _agreed(record: ClockRecord, elapsed_s: float) -> ClockRecord:
    if record.doubt is None:
        return record
    agreed_s = record.agreed_s + elapsed_s
    if agreed_s >= AGREEMENT_S:
        return confirmed(record)
    return replace(record, agreed_s=agreed_s)
