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
from camserver.health.scenes import MOST, MOST_OTHERS
from camserver.host.files import read_regular
from camserver.model import CELLS_BYTES
from camserver.storage.publish import RUN, TEMPORARY

NAME = ".camserver-health.json"
MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    """A judge, and the moment when it was written: by the wall clock, and by the one of its times.

    `address` stands for where the camera was. At another address another camera may be.
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
        if stored.address != address or not _makes_sense(judge):
            return None
        # An older version kept evidence that is over
        judge.evidence = {s: seen for s, seen in judge.evidence.items() if not seen.is_over}
        # The clock of its times may have begun again since
        move(judge, boot - stored.boot - max(0.0, wall - stored.wall))
        return judge
    return None


def content(judge: Judge, address: str, wall: float, boot: float) -> bytes:
    """The content of the file."""
    return _JSON.dump_json(Stored(address, wall, boot, judge))


def write(path: Path, data: bytes) -> None:
    """Replace the file. Its folder must exist. The call blocks. Raises OSError."""
    temporary = path.with_name(TEMPORARY.format(f"{RUN}-health"))
    temporary.unlink(missing_ok=True)
    with temporary.open("xb") as file:  # never something else that has this name
        file.write(data)
    temporary.replace(path)


def move(judge: Judge, by_s: float) -> None:
    """Move all moments of a judge, which are of another clock."""
    judge.previous_s += by_s
    first = judge.repeats.first
    judge.repeats.first = first and first._replace(now=first.now + by_s)
    judge.clock.seen_s += by_s
    for evidence in _all_evidence(judge):
        evidence.last_s += by_s
        evidence.told_s += by_s
        evidence.clear_s += by_s
    for scene in judge.scenes.all:
        scene.seen += by_s
        scene.blended += by_s
        scene.visited += by_s


def _makes_sense(judge: Judge) -> bool:
    scenes = judge.scenes
    return (
        len(judge.previous) in (0, CELLS_BYTES)
        and all(len(scene.cells) == CELLS_BYTES and scene.pictures > 0 for scene in scenes.all)
        and len(scenes.known) <= MOST
        and len(scenes.others) <= MOST_OTHERS
    )


def _all_evidence(judge: Judge) -> Iterator[Evidence]:
    yield from judge.evidence.values()
    yield from (judge.standing, judge.motionless)
