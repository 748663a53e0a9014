"""What camserver is expected to do on two cores, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
OURS, FIRST = "camserver", "camserver, first poll"
FIRST_BYTES, DECODING = "limit: bytes, first poll", "limit: decoding"
SMALL_FLEET = 100
"""The CPU of a poll is compared with that of so many cameras at the same time."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One line of the table. Both values are text; `kept` was decided on the numbers."""

    what: str
    expected: str
    measured: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Distance:
    """How far camserver's first picture of a scene is from the limits.

    `over_s` is wall over the bare client, decoding and JPEG. `cpu_ratio` is to bare decoding.
    """

    over_s: float
    cpu_ratio: float


def distance(contenders: Json) -> Distance | None:
    """The distance to the limits. None when one of them, or camserver, gave no picture."""
    first, decoding, bare = (contenders[name]["medians"] for name in (FIRST, DECODING, FIRST_BYTES))
    if first is None or decoding is None or bare is None:
        return None
    return Distance(
        first["wall_s"] - bare["wall_s"] - first["decode_s"], first["cpu_s"] / decoding["cpu_s"]
    )


def expectations(
    scenes: Json, fleets: tuple[Json, ...], growth: Json | None
) -> Iterator[Expectation]:
    """All lines whose bench has run."""
    if "plain" in scenes:
        yield from _of_one_picture(scenes["plain"]["contenders"])
    for fleet in fleets:
        yield from _of_a_fleet(fleet)
    if growth is not None:
        yield from _of_growth(growth)


def _at_most(what: str, limit: float, value: float, unit: str, digits: int = 1) -> Expectation:
    measured = f"{value:.{digits}f}{unit}"
    return Expectation(what, f"at most {limit:g}{unit}", measured, value <= limit)


def _of_one_picture(contenders: Json) -> Iterator[Expectation]:
    name = "one first 1080p H.264 picture"
    failed = contenders[OURS]["failed"] + contenders[FIRST]["failed"]
    yield _at_most(f"{name}: polls without a picture", 0, failed, "", 0)
    first, ffmpeg = (contenders[who]["medians"] for who in (FIRST, "ffmpeg"))
    if first is not None and ffmpeg is not None:
        ratio = ffmpeg["cpu_s"] / first["cpu_s"]
        what = f"{name}: CPU of ffmpeg's default"
        yield Expectation(what, "at least 8x", f"{ratio:.1f}x", ratio >= 8)
    if (far := distance(contenders)) is not None:
        yield _at_most(f"{name}: CPU beside bare decoding", 1.15, far.cpu_ratio, "x", 2)
        what = f"{name}: wall over the bare client, decoding and JPEG"
        yield _at_most(what, 20, 1000 * far.over_s, " ms")


def _of_a_fleet(fleet: Json) -> Iterator[Expectation]:
    name = f"{fleet['cameras']:,} cameras at {fleet['interval']}"
    success = 100 * fleet["success"]
    own_ms = sum(fleet["cpu_ms"].get(part, 0.0) for part in ("loop", "store", "threads"))
    interval_s = float(fleet["interval"].removesuffix("s"))
    slack_s = 2 if interval_s >= 60 else 1
    yield _at_most(f"{name}: first picture of each", 60, fleet["first_pictures_s"], " s")
    yield Expectation(f"{name}: success", "at least 99.9 %", f"{success:.3f} %", success >= 99.9)
    yield _at_most(f"{name}: 99 % of the polls are late by", 1, fleet["lateness_p99_s"], " s", 2)
    yield _at_most(f"{name}: freshness p99", interval_s + slack_s, fleet["freshness_p99_s"], " s")
    yield _at_most(f"{name}: CPU of the daemon itself a picture", 4, own_ms, " ms")
    yield _at_most(f"{name}: the daemon, of a core", 8, 100 * fleet["daemon_core"], " %")
    yield _at_most(f"{name}: memory of all, most", 200, fleet["memory_most_mb"], " MB", 0)


def _of_growth(growth: Json) -> Iterator[Expectation]:
    largest = max(growth["points"], key=lambda point: point["cameras"])
    what = f"CPU of a poll, {largest['cameras']:,} cameras beside {SMALL_FLEET:,}"
    yield _at_most(what, 1.2, largest["own_cpu_ms"] / largest["small_cpu_ms"], "x", 2)
    idle = growth["idle"]
    name = f"{idle['cameras']:,} cameras at 1 h"
    yield _at_most(f"{name}: the daemon, of a core", 1, 100 * idle["own_core"], " %", 2)
    yield _at_most(f"{name}: memory of all", 250, idle["memory_mb"], " MB", 0)
    busy_ms = 1000 * max(idle["reload_busy_s"])
    yield _at_most(f"{name}: a reload keeps the event loop from answering", 50, busy_ms, " ms", 0)
    yield _at_most("READY with 100 cameras", 0.6, growth["ready_s"], " s", 2)
