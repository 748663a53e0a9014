"""The scenes that a camera is known to show, and one that it is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from camserver.health.picture import Kind, Picture
from camserver.health.scene import Scene
from camserver.model import Look

MOST = 12
"""A camera has no more scenes. The one that was not seen for the longest time is dropped."""
LEARNING = 20
"""The first pictures of a camera are believed: each other scene is one of its own."""
STRUCTURE = 0.02
"""A picture with less contrast has no scene that could be told from another one."""
PASSING_S = 3600.0
"""An unknown scene that is seen for so long, and ends by itself, is known then."""
RETURNS, RETURN_S = 4, 6 * 3600.0
"""So is a shorter one when the camera has come back so often, each time within so long: it is on a
patrol.
"""


@dataclass(slots=True)
class Scenes:
    """All scenes of one camera. Moments are in seconds of a clock that nobody sets."""

    known: list[Scene] = field(default_factory=list)
    unknown: Scene | None = None
    """The scene that is seen instead of a known one."""
    unknown_since: float = 0.0
    pictures: int = 0
    """How many pictures have been learned from."""
    returns: int = 0
    """How often the camera came back from an unknown scene, the last time at `returned`."""
    returned: float = 0.0

    @property
    def is_learning(self) -> bool:
        """Whether too few pictures have been seen to tell one scene from another."""
        return self.pictures < LEARNING

    @property
    def cells(self) -> tuple[bytes, ...]:
        """What the next picture is compared with."""
        return tuple(scene.cells for scene in self._all())

    def _all(self) -> Iterator[Scene]:
        yield from self.known
        if self.unknown is not None:
            yield self.unknown

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
        """The most similar scene of the picture's kind that is as like as `least`."""
        kind = picture.kind
        alike = [
            (likeness, number)
            for number, likeness in enumerate(picture.look.likeness[: len(self.known)])
            if likeness >= least and self.known[number].kind == kind
        ]
        return self.known[max(alike)[1]] if alike else None

    def learn(self, picture: Picture, least: float) -> None:
        """Learn from a picture that looks well. `least` is how like a known scene is."""
        self._end_unknown(picture.now)
        self.pictures += 1
        scene = self.match(picture, least)
        if scene is not None:
            scene.learn(picture)
        elif picture.look.contrast >= STRUCTURE:
            self._add(Scene.first(picture))

    def see_unknown(self, picture: Picture, least: float) -> None:
        """Follow another scene. It may become known later."""
        look = picture.look
        is_same = (
            self.unknown is not None
            and self.unknown.kind == picture.kind
            and len(look.likeness) > len(self.known)
            and look.likeness[-1] >= least
        )
        if self.unknown is not None and is_same:
            self.unknown.learn(picture)
        else:
            self.unknown, self.unknown_since = Scene.first(picture), picture.now

    def accept(self) -> None:
        """Take the unknown scene as a known one."""
        if self.unknown is not None:
            self._add(self.unknown)
            self.unknown = None

    def _end_unknown(self, now: float) -> None:
        if self.unknown is None:
            return
        if self.unknown.pictures > 1:
            is_again = 0 <= now - self.returned < RETURN_S
            self.returns, self.returned = (self.returns + 1 if is_again else 1), now
            if now - self.unknown_since >= PASSING_S or self.returns >= RETURNS:
                self.accept()
        self.unknown = None

    def _add(self, scene: Scene) -> None:
        if len(self.known) >= MOST:
            self.known.remove(min(self.known, key=lambda known: known.seen))
        self.known.append(scene)
