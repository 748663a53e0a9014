"""Chooses which archived pictures to delete.

The code is pure: it takes the list, the moment and the free space, and returns the choice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from camserver.config.model import RetentionTable


class Archived(NamedTuple):
    """One archived picture. `taken_at` is in seconds since the epoch."""

    taken_at: float
    bytes: int
    camera: str
    path: Path


def choose(
    files: Iterable[Archived], policy: RetentionTable, *, now: float, free_bytes: int
) -> list[Archived]:
    """The pictures to delete, oldest first: too old, too many bytes, or too little free space.

    The newest `keep_last` pictures of each camera are never chosen, whatever the limits are.
    """
    by_camera: dict[str, list[Archived]] = defaultdict(list)
    for file in files:
        by_camera[file.camera].append(file)
    total = 0
    candidates: list[Archived] = []
    for owned in by_camera.values():
        owned.sort()
        total += sum(f.bytes for f in owned)
        candidates += owned[: -policy.keep_last]
    candidates.sort()
    too_many = total - policy.max_bytes if policy.max_bytes is not None else 0
    too_few = policy.min_free - free_bytes if policy.min_free is not None else 0
    freed = 0
    chosen = []
    for file in candidates:
        too_old = policy.max_age is not None and now - file.taken_at > policy.max_age
        if not too_old and freed >= max(too_many, too_few):
            break  # all later candidates are newer
        chosen.append(file)
        freed += file.bytes
    return chosen
