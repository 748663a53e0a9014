"""The scenes that a camera is known to show, and others that it shows now and then."""

from __future__ import annotations

from dataclasses import dataclass, field

from camserver.health.picture import Kind, Picture
from camserver.health.scene import Scene
from camserver.model import Look

MOST, MOST_OTHERS = 12, 12
"""A camera has no more scenes. The one that was not seen for the longest time is dropped."""
LEARNING = 20
"""The first pictures of a camera are believed: each other scene is one of its own."""
STRUCTURE = 0.02
"""A picture with less contrast has no scene that could be told from another one."""
PASSING_S = 3600.0
"""Another scene that is seen for so long, and ends by itself, is known then."""
VISITS, VISIT_PICTURES, VISIT_S = 4, 2, 86_400.0
"""So is one that was seen so often, each time in so many pictures at least and within so long, and
that ended by itself each time: the camera is on a patrol.
"""


@dataclass(slots=True)
class Scenes:
    """All scenes of one camera. Moments are in seconds of a clock that nobody sets."""

    known: list[Scene] = field(default_factory=list)
    others: list[Scene] = field(default_factory=list)
    """Scenes that were seen instead of a known one."""
    pictures: int = 0
    """How many pictures have been learned from."""

    @property
    def is_learning(self) -> bool:
        """Whether too few pictures have been seen to tell one scene from another."""
        return self.pictures < LEARNING

    @property
    def all(self) -> list[Scene]:
        """All scenes, in the order of a look's likeness."""
        return [*self.known, *self.others]

    def likeness(self, look: Look) -> float:
        """How like the picture is to the most similar known scene, or 1 when none is known."""
        return max(look.likeness[: len(self.known)], default=1.0)

    def contrast(self) -> float:
        """The usual contrast of the scene that was seen last, or 0."""
        newest = max(self.known, key=lambda scene: scene.seen, default=None)
        return 0.0 if newest is None else newest.contrast

    def has_mode(self, kind: Kind) -> bool:
        """Whether the camera is known by day, or in infrared, as this picture is."""
        return any(scene.kind.is_grey == kind.is_grey for scene in self.known)

    def match(self, picture: Picture, least: float) -> Scene | None:
        """The most similar known scene of the picture's kind that is as like as `least`."""
        alike = [
            (likeness, number)
            for number, likeness in enumerate(picture.look.likeness[: len(self.known)])
            if likeness >= least and self.known[number].kind == picture.kind
        ]
        return self.known[max(alike)[1]] if alike else None

    def learn(self, picture: Picture, least: float) -> None:
        """Learn from a picture that looks well. `least` is how like a known scene is."""
        scene = self.match(picture, least)
        if scene is not None:
            scene.learn(picture)
        elif picture.look.contrast >= STRUCTURE:
            self._add(Scene.first(picture))
        self.pictures += 1
        self._leave_others(picture.now)

    def see_other(self, picture: Picture, least: float, accept_after_s: float) -> None:
        """Follow another scene. It is known when it has been seen for so long, or later."""
        likeness = picture.look.likeness[len(self.known) :]
        alike = [(like, n) for n, like in enumerate(likeness) if like >= least]
        if alike:
            scene = self.others[max(alike)[1]]
            if scene.visit_pictures:
                scene.shown_s += min(max(0.0, picture.now - scene.seen), 3 * picture.interval_s)
            else:
                scene.seen = picture.now
            scene.learn(picture)
        else:
            scene = Scene.first(picture)
            self.others = [*_newest(self.others, MOST_OTHERS - 1), scene]
        scene.visit_pictures += 1
        if scene.shown_s >= accept_after_s:
            self._accept(scene)

    def _accept(self, scene: Scene) -> None:
        self.others = [other for other in self.others if other is not scene]
        self._add(scene)

    def _leave_others(self, now: float) -> None:
        """The camera shows a known scene again."""
        for scene in [scene for scene in self.others if scene.visit_pictures]:
            if scene.visit_pictures >= VISIT_PICTURES:
                is_again = now - scene.visited < VISIT_S
                scene.visits, scene.visited = (scene.visits + 1 if is_again else 1), now
            scene.visit_pictures = 0
            if scene.shown_s >= PASSING_S or scene.visits >= VISITS:
                self._accept(scene)

    def _add(self, scene: Scene) -> None:
        scene.visit_pictures = 0
        self.known = [*_newest(self.known, MOST - 1), scene]


def _newest(scenes: list[Scene], most: int) -> list[Scene]:
    """The scenes, in their order, without those that were not seen for the longest time."""
    stay = sorted(scenes, key=lambda scene: scene.seen)[-most:]
    return [scene for scene in scenes if any(scene is one for one in stay)]
