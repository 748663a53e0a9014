"""What is known of each camera: its newest picture and its newest attempt.

It is kept in memory, so it is true also when the disk takes nothing. latest.json shows the same,
for other programs and for the next start.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from camserver.config import Inventory
from camserver.host.clock import Seconds, boot_time, rfc3339
from camserver.host.files import read_regular
from camserver.model import Attempt
from camserver.storage.published import FACTS

MAX_BYTES = 256 * 1024
"""latest.json has one or two kilobytes."""
_NOT_OURS = (OSError, ValueError, AttributeError, TypeError, OverflowError, RecursionError)
"""The errors of a latest.json that another program has written. It costs its own camera only."""
MOMENT_S = 60.0
"""A picture is published within this time after its capture. A larger difference comes from a clock
that was set.
"""


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """The newest attempt of a camera, as in latest.json."""

    at: str
    result: str
    error: str | None
    label: str

    @classmethod
    def of(cls, attempt: Attempt) -> AttemptFacts:
        """The facts of an attempt."""
        return cls(
            rfc3339(attempt.at),
            attempt.result.value,
            attempt.error,
            attempt.label or attempt.error or attempt.result.value,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of one camera.

    `picture` has the keys of FACTS; all are None when there is no picture. `captured_at` is its
    capture time in seconds since 1970. `captured_boot_s` is the same on the clock that nobody can
    set (`boot_time`). It is None for a picture of an earlier run.
    """

    picture: Mapping[str, Any] = field(default_factory=lambda: dict.fromkeys(FACTS))
    attempt: AttemptFacts | None = None
    consecutive_failures: int = 0
    captured_at: float | None = None
    captured_boot_s: float | None = None

    def latest(self, camera: str) -> dict[str, Any]:
        """The content of latest.json."""
        return {
            "camera": camera,
            **self.picture,
            "attempt": self.attempt and asdict(self.attempt),
            "consecutive_failures": self.consecutive_failures,
        }


def moment_of(text: str | None) -> float | None:
    """A moment in RFC 3339 as seconds since 1970. None when it is not one."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (TypeError, ValueError, OverflowError):  # another program may have written it
        return None


class Outcomes:
    """The newest outcome of each camera. All methods but `read_outcomes` are for the event loop."""

    def __init__(self, wall: Seconds = time.time, boot: Seconds = boot_time) -> None:
        self._wall = wall
        self._boot = boot
        self._known: dict[str, Outcome] = {}
        self._cameras: frozenset[str] | None = None  # None: all are in the inventory

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Forget the cameras that are not in the inventory any more.

        What a poll of them still brings is kept for latest.json, but not shown.
        """
        self._cameras = frozenset(camera.id for camera in inventory.cameras)
        self._known = {c: known for c, known in self._known.items() if c in self._cameras}
        return ()

    def remember(self, earlier: Mapping[str, Outcome]) -> None:
        """Take the outcomes of an earlier run, for cameras without one of this run."""
        self._known = {**earlier, **self._known}

    def get(self, camera: str) -> Outcome | None:
        """The newest outcome of a camera. None before its first attempt."""
        return self._known.get(camera)

    def age_s(self, camera: str) -> float | None:
        """The age of the newest picture in seconds. None when there is no picture.

        A picture of this run ages by a clock that nobody can set.
        """
        outcome = self._known.get(camera)
        if outcome is None or outcome.captured_at is None:
            return None
        if outcome.captured_boot_s is not None:
            return self._boot() - outcome.captured_boot_s
        return self._by_wall(outcome.captured_at)

    def _by_wall(self, captured_at: float | None) -> float | None:
        return None if captured_at is None else max(0.0, self._wall() - captured_at)

    def age_of(self, camera: str, captured_at: str | None) -> float | None:
        """The age in seconds of a camera's picture that was captured at `captured_at` (RFC 3339).

        None when that is not a moment.
        """
        known = self._known.get(camera)
        if known is not None and known.picture["captured_at"] == captured_at:
            return self.age_s(camera)
        return self._by_wall(moment_of(captured_at))

    def ages_s(self) -> dict[str, float]:
        """The age of the newest picture of each camera that has one."""
        ages = ((camera, self.age_s(camera)) for camera in self._shown())
        return {camera: age_s for camera, age_s in ages if age_s is not None}

    def captured_at(self) -> dict[str, float]:
        """The capture time of each camera's newest picture, in seconds since 1970."""
        times = ((camera, self._known[camera].captured_at) for camera in self._shown())
        return {camera: captured_at for camera, captured_at in times if captured_at is not None}

    def published(self, camera: str, picture: Mapping[str, Any], captured_at: datetime) -> None:
        """Note a new picture, which was captured a moment ago."""
        since_s = min(max(0.0, self._wall() - captured_at.timestamp()), MOMENT_S)
        self._known[camera] = replace(
            self._known.get(camera, Outcome()),
            picture=picture,
            captured_at=captured_at.timestamp(),
            captured_boot_s=self._boot() - since_s,
        )

    def attempted(self, attempt: Attempt, failures: int) -> Outcome:
        """Note an attempt, after which there are `failures` failures in a row."""
        outcome = self._known[attempt.camera] = replace(
            self._known.get(attempt.camera, Outcome()),
            attempt=AttemptFacts.of(attempt),
            consecutive_failures=failures,
        )
        return outcome

    def _shown(self) -> Collection[str]:
        """The cameras that are in the inventory."""
        return self._known if self._cameras is None else self._known.keys() & self._cameras


def read_outcomes(directory: Path, cameras: Iterable[str]) -> dict[str, Outcome]:
    """The outcomes of an earlier run, from latest.json of each camera. The call blocks."""
    found = {}
    for camera in cameras:
        with contextlib.suppress(*_NOT_OURS):
            latest = json.loads(read_regular(directory / camera / "latest.json", MAX_BYTES))
            attempt = latest.get("attempt") or {}
            found[camera] = Outcome(
                {key: latest.get(key) for key in FACTS},
                AttemptFacts(
                    str(attempt.get("at", "")),
                    str(attempt["result"]),
                    attempt.get("error"),
                    str(attempt.get("label") or attempt.get("error") or attempt["result"]),
                )
                if attempt.get("result")
                else None,
                int(latest.get("consecutive_failures") or 0),
                moment_of(latest.get("captured_at")),
            )
    return found
