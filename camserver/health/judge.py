"""Judge what a camera's pictures look like, against what they usually look like.

It is pure: values and a time come in, a Health comes out. A picture is never withheld for what is
found here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic import Base64Bytes

from camserver.config import HealthTable
from camserver.health.dark_hours import DarkHours
from camserver.health.evidence import NONE, Evidence
from camserver.health.frozen import OVERLAY, Repeats, StandingClock, clock_of, is_motionless
from camserver.health.picture import Kind, Picture
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
SAME_LIGHT = 0.05
"""A picture that stands does not change its brightness by more than an overlay does."""
Views = dict[Suspicion, bool]
VIEWS = (
    Suspicion.BLACK,
    Suspicion.WASHED_OUT,
    Suspicion.COVERED,
    Suspicion.MOVED,
    Suspicion.BLURRED,
)
"""What one picture alone shows, by itself or against what is usual. One picture shows one of them.
"""


@dataclass(slots=True)
class Judge:
    """What is known of one camera's pictures. `judge` takes one picture after the other."""

    scenes: Scenes = field(default_factory=Scenes)
    dark_hours: DarkHours = field(default_factory=DarkHours)
    evidence: dict[Suspicion, Evidence] = field(default_factory=dict)
    """Of the faults that were seen. Most cameras have none, and there may be 10,000."""
    standing: Evidence = field(default_factory=Evidence)
    motionless: Evidence = field(default_factory=Evidence)
    """These speak for a frozen camera, too: its clock stands, or nothing moves."""
    repeats: Repeats = field(default_factory=Repeats)
    clock: StandingClock = field(default_factory=StandingClock)
    motion_of: tuple[Kind, float] | None = None
    """Since nothing moves: the kind of the picture, and its brightness."""
    previous: Base64Bytes = b""
    previous_s: float = 0.0
    pace_s: float = 0.0
    """The time between the newest pictures."""
    health: Health | None = None
    """What was found last. None before the first picture."""

    @property
    def references(self) -> References:
        """What the next picture is compared with."""
        return References(self.previous, tuple(scene.cells for scene in self.scenes.all))

    def judge(self, picture: Picture, limits: HealthTable) -> Health:
        """Judge the next picture of the camera."""
        picture = replace(picture, interval_s=self._pace(picture))
        views = self._views(picture, limits)
        self._see_views(views, picture, limits.suspect_after)
        self._see_clock(picture, limits)
        self._see_frozen(views, picture, limits)
        self._learn(views, picture, limits)
        self.previous, self.previous_s = picture.look.cells, picture.now
        found = self._suspicions()
        if self.health is None or found != self.health.suspicions or self._has_learned():
            began = found[0][1] if found else picture.at
            self.health = Health(began, found, not found and self.scenes.is_learning)
        return self.health

    def _pace(self, picture: Picture) -> float:
        """The time between pictures as it is: a busy device gives fewer than the inventory wants.

        One outage is no pace.
        """
        elapsed_s = max(0.0, picture.now - self.previous_s) if self.previous else 0.0
        pace_s = max(self.pace_s, picture.interval_s)
        self.pace_s = pace_s + (min(elapsed_s, 2 * pace_s) - pace_s) / 2
        return max(self.pace_s, picture.interval_s)

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
                    for evidence in held.get(suspicion, ())
                    if evidence.is_suspected and evidence.since is not None
                ]
            )
        )

    # ---- what one picture shows

    def _views(self, picture: Picture, limits: HealthTable) -> Views:
        """What this picture shows by itself, or against what is usual.

        Each value is whether it shows that. None: it can't be told.
        """
        look = picture.look
        if look.highlights < self._eased(Suspicion.BLACK, limits.black_below):
            return {Suspicion.BLACK: True}
        if 1 - look.shadows < self._eased(Suspicion.WASHED_OUT, 1 - limits.washed_out_above):
            return {Suspicion.WASHED_OUT: True}
        lit: Views = {Suspicion.BLACK: False, Suspicion.WASHED_OUT: False}
        if self.scenes.is_learning:
            return lit
        return lit | self._scene(picture, limits) | self._sharpness(picture, limits)

    def _scene(self, picture: Picture, limits: HealthTable) -> Views:
        look = picture.look
        likeness = self.scenes.likeness(look)
        left = look.contrast / max(self.scenes.contrast(), 1e-9)
        is_flat = left < self._eased(Suspicion.COVERED, limits.covered_below)
        if is_flat and likeness < self._eased(Suspicion.COVERED, COVERED_LIKENESS):
            # It may also look like another scene: one does not end the other
            return {Suspicion.COVERED: True}
        if likeness >= self._eased(Suspicion.MOVED, limits.moved_below):
            return {Suspicion.COVERED: False, Suspicion.MOVED: False}
        found: Views = {} if is_flat else {Suspicion.COVERED: False}
        if look.contrast >= STRUCTURE and self.scenes.has_mode(picture.kind):
            found[Suspicion.MOVED] = True
        return found

    def _sharpness(self, picture: Picture, limits: HealthTable) -> Views:
        scene = self.scenes.match(picture, limits.moved_below)
        usual = None if scene is None else scene.light_of(picture)
        if usual is None or not usual.is_known:
            return {}
        least = self._eased(Suspicion.BLURRED, limits.blurred_below) * usual.sharpness
        return {Suspicion.BLURRED: picture.look.sharpness < least}

    def _eased(self, suspicion: Suspicion, limit: float) -> float:
        return limit * EASE if self.evidence.get(suspicion, NONE).is_suspected else limit

    def _see(
        self, suspicion: Suspicion, speaks: bool | None, picture: Picture, after_s: float
    ) -> None:
        """Take a picture into account for one fault, as Evidence.see does."""
        evidence = self.evidence.get(suspicion)
        if evidence is None:
            if not speaks:
                return
            evidence = self.evidence[suspicion] = Evidence()
        evidence.see(speaks, picture, after_s)
        if evidence.is_over:
            del self.evidence[suspicion]

    def _see_views(self, views: Views, picture: Picture, after_s: float) -> None:
        is_black = views.get(Suspicion.BLACK)
        if is_black:
            self.dark_hours.dark(picture.at)
            if self.dark_hours.is_usual(picture.at):
                return
        else:
            self.dark_hours.light(picture.at)
        for suspicion in VIEWS:
            self._see(suspicion, views.get(suspicion), picture, after_s)

    def _learn(self, views: Views, picture: Picture, limits: HealthTable) -> None:
        if views.get(Suspicion.MOVED):
            self.scenes.see_other(picture, limits.moved_below, limits.accept_after)
            return
        # Of what can't be told, nothing is learned while a fault is seen
        is_held = any(self.evidence.get(suspicion, NONE).pictures for suspicion in VIEWS)
        is_certain = all(views.get(suspicion) is False for suspicion in VIEWS)
        if any(views.values()) or self._is_frozen() or (is_held and not is_certain):
            return
        self.scenes.learn(picture, limits.moved_below)

    # ---- what pictures show one after the other

    def _see_clock(self, picture: Picture, limits: HealthTable) -> None:
        is_off = None
        if clock_of(picture) is not None:
            is_suspected = self.evidence.get(Suspicion.CLOCK, NONE).is_suspected
            limit_s = limits.clock_tolerance / (EASE if is_suspected else 1)
            is_off = abs(picture.offset_s or 0.0) > limit_s
        self._see(Suspicion.CLOCK, is_off, picture, limits.suspect_after)

    def _see_frozen(self, views: Views, picture: Picture, limits: HealthTable) -> None:
        after_s = limits.frozen_after
        if self.repeats.see(picture):
            same = replace(picture, interval_s=math.inf)  # also after a gap it is the same picture
            if Suspicion.FROZEN not in self.evidence and self.repeats.first is not None:
                # Also the first one of the equal pictures speaks for it
                first = replace(same, **self.repeats.first._asdict())
                self._see(Suspicion.FROZEN, True, first, after_s)
            self._see(Suspicion.FROZEN, True, same, after_s)
        else:
            self.evidence.pop(Suspicion.FROZEN, None)  # one new picture proves it
        self.standing.see(self.clock.see(picture), picture, after_s)
        self._see_motion(views, picture, limits)

    def _see_motion(self, views: Views, picture: Picture, limits: HealthTable) -> None:
        """Whether nothing but an overlay moves: in the same light, and in pictures that look well.

        A change of the light, or of most of the picture, proves that it does not stand.
        """
        change, brightness = picture.look.change, picture.look.brightness
        kind, light = self.motion_of or (picture.kind, brightness)
        is_same = kind == picture.kind and abs(light - brightness) < SAME_LIGHT
        if not is_same or (change is not None and change >= OVERLAY):
            self.motionless.end()
        if not self.motionless.pictures:
            self.motion_of = (picture.kind, brightness)
        is_early = picture.now - self.previous_s < EARLY_SHARE * picture.interval_s
        scene = self.scenes.match(picture, limits.moved_below)
        speaks = None
        if not any(views.values()) and not is_early and scene is not None:
            speaks = is_motionless(picture, scene.light_of(picture))
        self.motionless.see(speaks, picture, limits.frozen_after * MOTIONLESS_TIMES)

    def _is_frozen(self) -> bool:
        """Whether this picture may not be a new one, so that nothing is learned from it."""
        return any(sign.pictures > 1 or sign.is_suspected for sign in self._of_frozen)

    @property
    def _of_frozen(self) -> tuple[Evidence, ...]:
        return self.evidence.get(Suspicion.FROZEN, NONE), self.standing, self.motionless
