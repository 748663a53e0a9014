"""What the judge of pictures must find, and must not: sequences through the real decoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import footage as f

from camserver.capture.decode import decode
from camserver.config import HealthTable
from camserver.health import Judge, Picture
from camserver.model import Health, Suspicion

INTERVAL_S = 30.0
LEARNED = 66
"""So many pictures are seen before something befalls the camera: half an hour."""
BEFALLEN = 26
AFTERWARDS = 9
START = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
LIMITS = HealthTable()


@dataclass(frozen=True)
class Case:
    """What befalls a camera. `expected` is the suspicion that it must raise, or None.

    Of a camera that `is_frozen` the scene stands. `repeats`: it sends the same coded picture.
    `crf` is how strongly it compresses, `offset_s` how far its clock is off.
    """

    name: str
    expected: Suspicion | None
    effects: tuple[f.Effect, ...] = ()
    is_frozen: bool = False
    repeats: bool = False
    crf: int = 25
    size: int = 1
    offset_s: float = 0.2


def _cases(
    expected: Suspicion | None,
    name: str,
    values: Sequence[float],
    effect: Callable[[float], f.Effect],
) -> Iterator[Case]:
    for value in values:
        yield Case(f"{name} {value:g}", expected, (effect(value),))


FAULTS: tuple[Case, ...] = (
    Case("lens cap", Suspicion.BLACK, (f.gain(0, 2),)),
    Case("no light", Suspicion.BLACK, (f.gain(0.04),)),
    Case("overexposed", Suspicion.WASHED_OUT, (f.gain(0.15, 222),)),
    Case("nearly white", Suspicion.WASHED_OUT, (f.gain(0.05, 240),)),
    *_cases(Suspicion.COVERED, "cloth", (20, 60, 110, 180), f.cloth),
    *_cases(Suspicion.COVERED, "sprayed", (0.7, 0.85), f.spray),
    *_cases(Suspicion.MOVED, "turned by pixels", (24, 60, 120, 300), f.pan),
    Case("another place", Suspicion.MOVED, (f.other,)),
    *_cases(Suspicion.BLURRED, "out of focus", (1, 1.5, 2, 3, 5, 8), f.defocus),
    Case("same picture", Suspicion.FROZEN, is_frozen=True, repeats=True),
    Case("clock runs on", Suspicion.FROZEN, is_frozen=True),
    Case("an hour off", Suspicion.CLOCK, offset_s=3600.0),
    Case("years off", Suspicion.CLOCK, offset_s=-56 * 365 * 86_400.0),
)
"""What must be found."""

QUIET: tuple[Case, ...] = (
    Case("nothing", None),
    *_cases(None, "light", (0.3, 0.6, 1.3), f.gain),
    Case("dusk", None, (f.dusk(BEFALLEN, 0.2),)),
    Case("infrared", None, (f.infrared,)),
    *_cases(None, "fog", (0.4, 0.6, 0.8, 0.9), f.fog),
    Case("snow", None, (f.snow,)),
    Case("rain", None, (f.rain,)),
    *_cases(None, "truck", (0.3, 0.5), f.truck),
    Case("clouds", None, (lambda picture, n: f.gain(1 - 0.04 * (n % 5))(picture, n),)),
    Case("more noise", None, (f.noise(6),)),
    Case("less noise", None, (f.defocus(0.4),)),
    Case("low bit rate", None, crf=36),
    Case("smaller stream", None, size=2),
    Case("time since start", None, offset_s=-(126 * 365 * 86_400.0)),
)
"""What must not be called a fault."""


class Camera:
    """A camera with one scene, and the judge of its pictures."""

    def __init__(self, scene: f.Scene, *, interval_s: float = INTERVAL_S) -> None:
        self.scene = scene
        self.interval_s = interval_s
        self.judge = Judge()
        self.number = 0
        self.found: set[Suspicion] = set()
        self._standing: f.Pixels | None = None
        self._sent = b""

    def learn(self) -> None:
        """Half an hour in which all is well."""
        self.run(LEARNED, Case("nothing", None))
        assert not self.found, self.found

    def befall(self, case: Case, pictures: int = BEFALLEN) -> Camera:
        """The same camera, when something has befallen it."""
        camera = copy.copy(self)
        camera.judge, camera.found = copy.deepcopy(self.judge), set()
        camera.run(pictures, case)
        return camera

    def run(self, pictures: int, case: Case) -> None:
        """Send pictures, and note what is suspected."""
        first = self.number
        for number in range(first, first + pictures):
            self.number = number + 1
            health = self._send(number, number - first, case)
            self.found |= {suspicion for suspicion, _ in health.suspicions}

    def _send(self, number: int, since: int, case: Case) -> Health:
        at = START + timedelta(seconds=number * self.interval_s)
        if not (case.repeats and since):
            self._sent = self._coded(number, since, case, at)
        still = decode(
            "h264", self._sent, b"", width=None, quality=70, references=self.judge.references
        )
        assert still.look is not None
        picture = Picture(
            still.look,
            still.width,
            still.height,
            len(self._sent),
            at,
            1000.0 + number * self.interval_s,
            self.interval_s,
            case.offset_s,
        )
        return self.judge.judge(picture, LIMITS)

    def _coded(self, number: int, since: int, case: Case, at: datetime) -> bytes:
        if not (case.is_frozen and since):
            picture = self.scene(number)
            for effect in case.effects:
                picture = effect(picture, since)
            self._standing = f.noise(2.5)(picture, number)
        assert self._standing is not None
        written = f.overlay(f"{at:%Y-%m-%d %H:%M:%S}")(self._standing, number)
        return f.keyframe(written[:: case.size, :: case.size], case.crf)


def results(cameras: Iterable[Camera], cases: Iterable[Case]) -> Iterator[tuple[Camera, Case]]:
    """Each camera after each case."""
    for camera in cameras:
        for case in cases:
            yield camera.befall(case), case
