"""Judge what a camera's pictures look like, against what they usually look like.

It is pure: values and a time come in, a Health comes out. A picture is never withheld for what is
found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import Base64Bytes

from camserver.config import HealthTable
from camserver.health.dark_hours import DarkHours
from camserver.health.evidence import Evidence
from camserver.health.frozen import Repeats, StandingClock, clock_of, is_motionless
from camserver.health.picture import Picture
from camserver.health.scenes import STRUCTURE, Scenes
from camserver.model import Health, References, Suspicion

EASE = 1.15
"""A suspicion ends when its limit is passed by this factor."""
COVERED_LIKENESS = 0.45
"""A covered lens leaves hardly anything of the scene. Fog leaves more, however dense it is."""
MOTIONLESS_TIMES = 5.0
"""So many times longer than the same coded picture must a picture without motion be seen."""
EARLY_SHARE = 0.5
"""A picture that comes after less than this share of the interval shows less motion than usual."""
VIEWS = (
    Suspicion.BLACK,
    Suspicion.WASHED_OUT,
    Suspicion.COVERED,
    Suspicion.MOVED,
    Suspicion.BLURRED,
)
"""What one picture alone shows, by itself or against what is usual. One picture shows one of them.
"""


def _evidence() -> dict[Suspicion, Evidence]:
    return {suspicion: Evidence() for suspicion in Suspicion}


@dataclass(slots=True)
class Judge:
    """What is known of one camera's pictures. `judge` takes one picture after the other."""

    scenes: Scenes = field(default_factory=Scenes)
    dark_hours: DarkHours = field(default_factory=DarkHours)
    evidence: dict[Suspicion, Evidence] = field(default_factory=_evidence)
    standing: Evidence = field(default_factory=Evidence)
    motionless: Evidence = field(default_factory=Evidence)
    """These speak for a frozen camera, too: its clock stands, or nothing moves."""
    repeats: Repeats = field(default_factory=Repeats)
    clock: StandingClock = field(default_factory=StandingClock)
    previous: Base64Bytes = b""
    previous_s: float = 0.0
    health: Health | None = None
    """What was found last. None before the first picture."""

    @property
    def references(self) -> References:
        """What the next picture is compared with."""
        return References(self.previous, self.scenes.cells)

    def judge(self, picture: Picture, limits: HealthTable) -> Health:
        """Judge the next picture of the camera."""
        view = self._view(picture, limits)
        self._see_view(view, picture, limits.suspect_after)
        self._see_clock(picture, limits)
        self._see_frozen(view, picture, limits)
        self._learn(view, picture, limits)
        self.previous, self.previous_s = picture.look.cells, picture.now
        found = self._suspicions()
        if self.health is None or found != self.health.suspicions or self._has_learned():
            began = min((since for _, since in found), default=picture.at)
            self.health = Health(began, found, not found and self.scenes.is_learning)
        return self.health

    def _has_learned(self) -> bool:
        return self.health is not None and self.health.is_learning != (
            not self.health.suspicions and self.scenes.is_learning
        )

    def _suspicions(self) -> tuple[tuple[Suspicion, datetime], ...]:
        held: Mapping[Suspicion, tuple[Evidence, ...]] = {
            **{suspicion: (evidence,) for suspicion, evidence in self.evidence.items()},
            Suspicion.FROZEN: self._of_frozen,
        }
        return tuple(
            (suspicion, min(beginnings))
            for suspicion in Suspicion
            if (
                beginnings := [
                    evidence.since
                    for evidence in held[suspicion]
                    if evidence.is_suspected and evidence.since is not None
                ]
            )
        )

    # ---- what one picture shows

    def _view(self, picture: Picture, limits: HealthTable) -> Suspicion | None:
        """What is wrong with this picture. None: nothing, or it can't be told."""
        look = picture.look
        if look.highlights < self._eased(Suspicion.BLACK, limits.black_below):
            return Suspicion.BLACK
        if 1 - look.shadows < self._eased(Suspicion.WASHED_OUT, 1 - limits.washed_out_above):
            return Suspicion.WASHED_OUT
        if self.scenes.is_learning:
            return None
        return self._other_scene(picture, limits) or self._blurred(picture, limits)

    def _other_scene(self, picture: Picture, limits: HealthTable) -> Suspicion | None:
        look = picture.look
        likeness = self.scenes.likeness(look)
        left = look.contrast / max(self.scenes.contrast(), 1e-9)
        is_flat = left < self._eased(Suspicion.COVERED, limits.covered_below)
        if is_flat and likeness < self._eased(Suspicion.COVERED, COVERED_LIKENESS):
            return Suspicion.COVERED
        is_other = likeness < self._eased(Suspicion.MOVED, limits.moved_below)
        if is_other and look.contrast >= STRUCTURE and self.scenes.has_mode(picture.kind):
            return Suspicion.MOVED
        return None

    def _blurred(self, picture: Picture, limits: HealthTable) -> Suspicion | None:
        scene = self.scenes.match(picture, limits.moved_below)
        usual = None if scene is None else scene.light_of(picture)
        if usual is None or not usual.is_known:
            return None
        least = self._eased(Suspicion.BLURRED, limits.blurred_below) * usual.sharpness
        return Suspicion.BLURRED if picture.look.sharpness < least else None

    def _eased(self, suspicion: Suspicion, limit: float) -> float:
        return limit * EASE if self.evidence[suspicion].is_suspected else limit

    def _see_view(self, view: Suspicion | None, picture: Picture, after_s: float) -> None:
        at, now = picture.at, picture.now
        if view is Suspicion.BLACK:
            self.dark_hours.dark(at)
        else:
            self.dark_hours.light(at)
        is_night = view is Suspicion.BLACK and self.dark_hours.is_usual(at)
        for suspicion in VIEWS:
            # A lens that is covered may also look like another scene: one does not end the other
            speaks = None if view not in (suspicion, None) or is_night else view is suspicion
            self.evidence[suspicion].see(speaks, at, now, after_s)

    def _learn(self, view: Suspicion | None, picture: Picture, limits: HealthTable) -> None:
        if view is Suspicion.MOVED:
            self.scenes.see_unknown(picture, limits.moved_below)
            if picture.now - self.scenes.unknown_since >= limits.accept_after:
                self.scenes.accept()
        elif view is None and not self._is_frozen():
            self.scenes.learn(picture, limits.moved_below)

    # ---- what pictures show one after the other

    def _see_clock(self, picture: Picture, limits: HealthTable) -> None:
        speaks = None
        if clock_of(picture) is not None:
            is_off = self.evidence[Suspicion.CLOCK].is_suspected
            limit_s = limits.clock_tolerance / (EASE if is_off else 1)
            speaks = abs(picture.offset_s or 0.0) > limit_s
        self.evidence[Suspicion.CLOCK].see(speaks, picture.at, picture.now, limits.suspect_after)

    def _see_frozen(self, view: Suspicion | None, picture: Picture, limits: HealthTable) -> None:
        at, now = picture.at, picture.now
        evidence, after_s = self.evidence[Suspicion.FROZEN], limits.frozen_after
        if not self.repeats.see(picture):
            evidence.end()  # one new picture proves it
        else:
            if not evidence.pictures and self.repeats.since is not None:
                # Also the first one of the equal pictures speaks for it
                evidence.see(True, self.repeats.since, self.repeats.since_s, after_s)
            evidence.see(True, at, now, after_s)
        motionless, stands = self._is_motionless(view, picture, limits), self.clock.see(picture)
        if motionless is False and stands:
            stands = False  # some cameras tell a clock that never goes
        self.standing.see(stands, at, now, after_s)
        self.motionless.see(motionless, at, now, after_s * MOTIONLESS_TIMES)

    def _is_motionless(
        self, view: Suspicion | None, picture: Picture, limits: HealthTable
    ) -> bool | None:
        is_early = picture.now - self.previous_s < EARLY_SHARE * picture.interval_s
        scene = self.scenes.match(picture, limits.moved_below)
        if view is not None or is_early or scene is None:
            return None
        return is_motionless(picture, scene.light_of(picture))

    def _is_frozen(self) -> bool:
        """Whether this picture may not be a new one, so that nothing is learned from it."""
        return any(sign.pictures > 1 or sign.is_suspected for sign in self._of_frozen)

    @property
    def _of_frozen(self) -> tuple[Evidence, ...]:
        return self.evidence[Suspicion.FROZEN], self.standing, self.motionless
