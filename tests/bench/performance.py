"""Write the numbers of docs/performance.md: performance.py. It reads docs/performance/*.json.

The benches write the JSON files. The page's own text stays: only what is between the lines
`<!-- NAME -->` and `<!-- end -->` is replaced.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from expected import FIRST_BYTES, SMALL_FLEET, distance, expectations
from performance_plots import draw_growth, draw_scenes

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "performance.md"
NUMBERS = DOCS / "performance"
MACHINE = ("date", "camserver", "processor", "cores", "memory", "kernel", "file system", "Python")
PARTS = {
    "loop": "event loop",
    "store": "storage",
    "threads": "other threads",
    "workers": "decoders",
}
NOTHING = "Not measured."
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the benches have written. Empty, or None, where one has not run."""

    scenes: Json
    fleets: tuple[Json, ...]
    growth: Json | None


def read(folder: Path) -> Numbers:
    """The newest numbers of each bench."""

    def of(name: str) -> Json | None:
        path = folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    fleets = (of(path.stem) for path in sorted(folder.glob("fleet-*.json"), reverse=True))
    return Numbers(of("snapshot") or {}, tuple(fleet for fleet in fleets if fleet), of("growth"))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def expected_section(numbers: Numbers) -> str:
    rows = (
        (each.what, each.expected, each.measured, "yes" if each.kept else "**no**")
        for each in expectations(numbers.scenes, numbers.fleets, numbers.growth)
    )
    return table(("what", "expected", "measured", "kept"), rows)


def machines_section(numbers: Numbers) -> str:
    named = [("one picture", scene["machine"]) for scene in numbers.scenes.values()]
    named += [(f"{f['cameras']:,} at {f['interval']}", f["machine"]) for f in numbers.fleets]
    named += [("growth", numbers.growth["machine"])] if numbers.growth else []
    rows = {(name, *(machine[fact] for fact in MACHINE)): None for name, machine in named}
    text = table(("run", *MACHINE), rows)
    if named:
        known = {"date", *MACHINE}
        versions = (f"{k} {v}" for k, v in named[0][1].items() if k not in known)
        text += "\n\nVersions: " + ", ".join(versions) + "."
    return text


def snapshot_section(numbers: Numbers) -> str:
    if "plain" not in numbers.scenes:
        return NOTHING
    plots = (
        "![Wall and CPU of one picture, by program](performance/one-picture.svg)\n"
        "![CPU of one picture beside camserver's, in each scene](performance/scenes.svg)"
    )
    return "\n\n".join((plots, *map(scene_text, numbers.scenes.values())))


def scene_text(scene: Json) -> str:
    """The table of a scene, and how far the first picture is from the limits."""
    rows = []
    for name, result in scene["contenders"].items():
        m = result["medians"]
        if m is None:
            rows.append((name, f"no picture: {result['why']}", "", "", "", "", ""))
            continue
        cpu = (f"{1000 * m['cpu_s']:.1f}", f"{result['cpu_ratio']:.1f}") if m["cpu_s"] else ("", "")
        failed = f" ({result['failed']} without a picture)" if result["failed"] else ""
        rows.append(
            (
                name + failed,
                f"{1000 * m['wall_s']:.0f}",
                f"{result['wall_ratio']:.1f}",
                f"{1000 * m['done_s']:.0f}",
                *cpu,
                f"{m['kilobytes']:.0f}" if m["kilobytes"] else "",
            )
        )
    head = ("", "wall, ms", "x", "closed, ms", "CPU, ms", "x", "KB")
    text = f"### {scene['title']}\n{table(head, rows)}"
    far, least = distance(scene["contenders"]), scene["least"].get(FIRST_BYTES)
    if far is not None and least is not None:
        text += (
            f"\n\nThe first keyframe ends after {least['round_trips']} round trips and"
            f" {least['bytes'] / 1000:.0f} KB. camserver's first picture comes"
            f" {1000 * far.over_s:.0f} ms after the bare client, decoding and JPEG, with"
            f" {far.cpu_ratio:.2f} times the CPU of bare decoding."
        )
    return text


def fleets_section(numbers: Numbers) -> str:
    fleets = numbers.fleets
    if not fleets:
        return NOTHING
    kinds = sorted({kind for fleet in fleets for kind in fleet["loop_ms"] or {}})
    lines: list[tuple[str, Callable[[Json], str]]] = [
        ("first picture of each healthy camera after", lambda f: f"{f['first_pictures_s']:.0f} s"),
        ("success of healthy cameras", lambda f: f"{100 * f['success']:.3f} %"),
        ("lateness of healthy cameras, mean", lambda f: f"{1000 * f['lateness_mean_s']:.0f} ms"),
        ("99 % of their polls are late by at most", lambda f: f"{f['lateness_p99_s']:g} s"),
        ("freshness, p50", lambda f: f"{f['freshness_p50_s']:.1f} s"),
        ("freshness, p99", lambda f: f"{f['freshness_p99_s']:.1f} s"),
        ("a picture, on average", lambda f: f"{f['picture_kb']:.0f} KB"),
        *((f"CPU a picture: {name}", _ms("cpu_ms", part)) for part, name in PARTS.items()),
        *((f"of the event loop: {kind}", _ms("loop_ms", kind)) for kind in kinds),
        ("the daemon, of a core", lambda f: f"{100 * f['daemon_core']:.1f} %"),
        ("the simulator, of a core", lambda f: f"{100 * f['simulator_core']:.1f} %"),
        ("memory of all, median", lambda f: f"{f['memory_mb']:.0f} MB"),
        ("memory of all, most", lambda f: f"{f['memory_most_mb']:.0f} MB"),
        ("sessions at once, most of all looks", lambda f: f"{f['sessions_most']}"),
    ]
    head = ("", *(f"{f['cameras']:,} cameras at {f['interval']}" for f in fleets))
    return table(head, ((name, *(say(fleet) for fleet in fleets)) for name, say in lines))


def _ms(of: str, part: str) -> Callable[[Json], str]:
    return lambda fleet: f"{fleet[of].get(part, 0.0):.2f} ms" if fleet[of] else "not measured"


def growth_section(numbers: Numbers) -> str:
    growth = numbers.growth
    if growth is None:
        return NOTHING
    idle = growth["idle"]
    busy = ", ".join(f"{1000 * s:.0f}" for s in idle["reload_busy_s"])
    return (
        "![CPU of a picture by the number of cameras](performance/growth.svg)\n\n"
        f"{_points(growth['points'])}\n\n"
        "200 cameras, polled at several rates:\n\n"
        f"{_points(growth['rates'])}\n\n"
        f"{idle['cameras']:,} cameras with one picture an hour ({idle['polls_a_second']:.1f} a"
        f" second): the daemon takes {100 * idle['own_core']:.2f} % of a core, with its decoders"
        f" {100 * idle['core']:.2f} %. When the start was over, all took"
        f" {idle['memory_mb']:.0f} MB, with one decoder. When the inventory"
        f" was reloaded with one camera changed, the event loop did not answer for at most {busy}"
        f" ms; without a reload, for {1000 * idle['quiet_busy_s']:.0f} ms. A daemon with 100"
        f" cameras says READY after {growth['ready_s']:.2f} s."
    )


def _points(points: list[Json]) -> str:
    """The table of some fleets. Its last columns are there when all ran beside a small one."""
    head = ["cameras", "interval", "pictures a second", "failed", "CPU a picture, daemon, ms"]
    head += ["event loop", "storage", "decoders", "memory of all, MB"]
    rows = [
        [
            f"{p['cameras']:,}",
            f"{p['interval_s']:g} s",
            f"{p['pictures_a_second']:.1f}",
            f"{p['failed']}",
            *(f"{p[f'{part}_cpu_ms']:.2f}" for part in ("own", "loop", "store", "workers")),
            f"{p['memory_mb']:.0f}",
        ]
        for p in points
    ]
    if all(p["small_cpu_ms"] for p in points):
        head += [f"daemon of {SMALL_FLEET} at the same time, ms", "x"]
        for row, p in zip(rows, points, strict=True):
            small = p["small_cpu_ms"]
            row += [f"{small:.2f}", f"{p['own_cpu_ms'] / small:.2f}"]
    return table(head, rows)


SECTIONS = {
    "expected": expected_section,
    "machines": machines_section,
    "snapshot": snapshot_section,
    "fleets": fleets_section,
    "growth": growth_section,
}


def main() -> None:
    numbers = read(NUMBERS)
    text = PAGE.read_text()
    for name, section in SECTIONS.items():
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        made = section(numbers)
        text, found = between.subn(lambda m, made=made: f"{m[1]}{made}\n{m[2]}", text)
        assert found == 1, f"{PAGE} has no place for {name}"
    PAGE.write_text(text)
    if "plain" in numbers.scenes:
        draw_scenes(numbers.scenes, NUMBERS)
    if numbers.growth is not None:
        draw_growth(numbers.growth["points"], NUMBERS)


if __name__ == "__main__":
    main()
