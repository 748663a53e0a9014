"""How old the newest picture of a camera was at each moment, from its archive.

A picture is as old as its name says, from the moment it was written until the next one was.
"""

from __future__ import annotations

from pathlib import Path


def ages(folder: Path, started: float, begin: float, end: float) -> list[tuple[float, float]]:
    """The ages of a camera's newest picture from `begin` to `end`: (from, to) in seconds.

    As long as there is none, it counts as one of the moment `started`.
    """
    pictures = sorted(
        (path.stat().st_mtime, float(path.stem)) for path in folder.glob("[0-9]*.jpg")
    )
    pictures.insert(0, (started, started))
    spans = []
    for number, (written, captured) in enumerate(pictures):
        until = pictures[number + 1][0] if number + 1 < len(pictures) else end
        since, until = max(begin, written), min(end, until)
        if since < until:
            spans.append((since - captured, until - captured))
    return spans


def percentile(spans: list[tuple[float, float]], share: float) -> float:
    """The age that is not exceeded for `share` of the time."""
    low, high = 0.0, max(to for _, to in spans)
    total = sum(to - since for since, to in spans)
    for _ in range(40):
        middle = (low + high) / 2
        below = sum(max(0.0, min(to, middle) - since) for since, to in spans)
        low, high = (middle, high) if below < share * total else (low, middle)
    return high
