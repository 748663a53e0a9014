"""The scenes that a camera is known to show, and others that it shows now and then."""

from __future__ import annotations

from dataclasses import dataclass, field

from camserver.health.picture import Kind, Picture
from camserver.health.scene import Scene
from camserver.model import Look

MOST, MOST_OTHERS = 12, 4
"""A camera has no more scenes. The one that was not seen for the longest time is dropped."""
LEARNING = 20
"""The first pictures of a camera are believed: each other scene is one of its own."""
STRUCTURE = 0.02
"""A picture with less contrast has no scene that could be told from another one."""
PASSING_S = 3600.0
"""Another scene that is seen for so long, and ends by itself, is known then."""
VISITS = 4
"""So is one that was seen so often, and ended by itself each time: the camera is on a patrol."""


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
        self._leave_other()
        self.pictures += 1
        if scene is not None:
            scene.learn(picture)
        elif picture.look.contrast >= STRUCTURE:
            self._add(Scene.first(picture))

    def see_other(self, picture: Picture, least: float) -> None:
        """Follow another scene. It may become known later."""
        likeness = picture.look.likeness[len(self.known) :]
        alike = [(like, n) for n, like in enumerate(likeness) if like >= least]
        if alike:
            scene = self.others[max(alike)[1]]
            scene.learn(picture)
        else:
            scene = Scene.first(picture)
            self.others = [*_newest(self.others, MOST_OTHERS - 1), scene]
        for other in self.others:
            other.visits += other is scene and not scene.is_visited
            other.is_visited = other is scene

    def accept(self) -> None:
        """Take the other scene that is seen now as a known one."""
        for scene in [scene for scene in self.others if scene.is_visited]:
            self.others.remove(scene)
            self._add(scene)

    def _leave_other(self) -> None:
        """The camera shows a known scene again."""
        for scene in self.others:
            if scene.is_visited and scene.seen_s < PASSING_S and scene.visits < VISITS:
                scene.is_visited = False
        self.accept()

    def _add(self, scene: Scene) -> None:
        scene.is_visited = False
        self.known = [*_newest(self.known, MOST - 1), scene]


def _newest(scenes: list[Scene], most: int) -> list[Scene]:
    """The scenes, in their order, without those that were not seen for the longest time."""
    stay = sorted(scenes, key=lambda scene: scene.seen)[-most:]
    return [scene for scene in scenes if any(scene is one for one in stay)]
