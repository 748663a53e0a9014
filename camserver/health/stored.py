"""What is known of a camera's pictures, in a file beside them, so that a restart forgets nothing.

The file is disposable: without it the camera is learned anew. It is replaced as a whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from camserver.health.evidence import Evidence
from camserver.health.judge import Judge
from camserver.host.files import read_regular
from camserver.model import CELLS_BYTES

NAME = ".camserver-health.json"
MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    """A judge, and the moment when it was written: by the wall clock, and by the one of its times.

    `address` is where the camera was. At another address another camera may be.
    """

    address: str
    wall: float
    boot: float
    judge: Judge


_JSON = TypeAdapter(Stored)


def read(path: Path, address: str, wall: float, boot: float) -> Judge | None:
    """The judge in a file. None: there is none that can be used. The call blocks."""
    with contextlib.suppress(OSError, ValueError, TypeError, ArithmeticError, RecursionError):
        stored = _JSON.validate_json(read_regular(path, MAX_BYTES))
        judge = stored.judge
        sizes = {len(cells) for cells in judge.scenes.cells} | {len(judge.previous)}
        if stored.address != address or not sizes <= {0, CELLS_BYTES}:
            return None
        # The clock of its times may have begun again since
        move(judge, boot - stored.boot - max(0.0, wall - stored.wall))
        return judge
    return None


def content(judge: Judge, address: str, wall: float, boot: float) -> bytes:
    """The content of the file."""
    return _JSON.dump_json(Stored(address, wall, boot, judge))


def write(path: Path, data: bytes) -> None:
    """Replace the file. Its folder must exist. The call blocks. Raises OSError."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def move(judge: Judge, by_s: float) -> None:
    """Move all moments of a judge, which are of another clock."""
    judge.previous_s += by_s
    judge.repeats.since_s += by_s
    judge.clock.seen_s += by_s
    judge.scenes.unknown_since += by_s
    judge.scenes.returned += by_s
    for evidence in _all_evidence(judge):
        evidence.since_s += by_s
        evidence.clear_s += by_s
    for scene in (*judge.scenes.known, judge.scenes.unknown):
        if scene is not None:
            scene.seen += by_s
            scene.blended += by_s


def _all_evidence(judge: Judge) -> Iterator[Evidence]:
    yield from judge.evidence.values()
    yield from (judge.standing, judge.motionless)
