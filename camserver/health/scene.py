"""What a camera usually shows: its scenes, each learned slowly from pictures that look well.

A camera has more than one scene: by day and in infrared, in another picture size, at the presets of
a patrol. What is usual in a scene depends on its light.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import Base64Bytes

from camserver.health.picture import Kind, Picture

SCENE_S = 1800.0
"""How slowly a scene follows light and shadows."""
SCENE_STEP_S = 60.0
"""How often it follows."""
USUAL_S = 3 * 86_400.0
"""How slowly the usual contrast and sharpness follow."""
FEW = 16
"""The first pictures weigh more; and no picture weighs more than one of so many."""
KNOWN_LIGHT = 10
"""A light is known after so many pictures."""
MOTION_FALLS, MOTION_RISES = 0.3, 0.002
"""The usual motion is the least one: it falls quickly and rises slowly."""
MOTION_GAP_S = 600.0


@dataclass(slots=True)
class Light:
    """What is usual in one scene at one level of light. `seen_s` is for how long it was seen.

    `coded_bytes` is the size of a picture as the camera sends it.
    """

    pictures: int = 0
    seen_s: float = 0.0
    sharpness: float = 0.0
    coded_bytes: float = 0.0
    motion: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether enough pictures have been seen."""
        return self.pictures >= KNOWN_LIGHT

    def learn(self, picture: Picture, elapsed_s: float) -> None:
        """Learn from a picture, `elapsed_s` seconds after the one before."""
        look = picture.look
        self.pictures += 1
        self.seen_s += min(elapsed_s, MOTION_GAP_S)
        weight = _weight(self.pictures, elapsed_s)
        self.sharpness += weight * (look.sharpness - self.sharpness)
        self.coded_bytes += weight * (picture.coded_bytes - self.coded_bytes)
        if look.motion is None:
            return
        if self.motion is None:
            self.motion = look.motion
        falls = look.motion < self.motion
        self.motion += (MOTION_FALLS if falls else MOTION_RISES) * (look.motion - self.motion)


@dataclass(slots=True)
class Scene:
    """One scene. Moments are in seconds of a clock that nobody sets."""

    kind: Kind
    cells: Base64Bytes
    contrast: float
    seen: float
    """When it was seen last."""
    blended: float
    """When `cells` followed last."""
    pictures: int = 1
    lights: dict[int, Light] = field(default_factory=dict)
    visits: int = 0
    """How often it was seen instead of a known scene, the last time until `visited`."""
    visited: float = 0.0
    visit_pictures: int = 0
    """In how many pictures it was seen since a known scene was."""
    shown_s: float = 0.0
    """For how long it was seen instead of a known scene. Gaps do not count."""

    @classmethod
    def first(cls, picture: Picture) -> Scene:
        """A scene that is seen for the first time."""
        look, now = picture.look, picture.now
        scene = cls(picture.kind, look.cells, look.contrast, now, now)
        scene._learn_light(picture, 0.0)
        return scene

    def light_of(self, picture: Picture) -> Light:
        """What is usual in the light of this picture."""
        return self.lights.get(picture.level, Light())

    def _learn_light(self, picture: Picture, elapsed_s: float) -> None:
        self.lights.setdefault(picture.level, Light()).learn(picture, elapsed_s)

    def learn(self, picture: Picture) -> None:
        """Follow a picture that looks well."""
        look, now = picture.look, picture.now
        elapsed_s, self.seen = max(0.0, now - self.seen), now
        self.pictures += 1
        self.contrast += _weight(self.pictures, elapsed_s) * (look.contrast - self.contrast)
        self._learn_light(picture, elapsed_s)
        since_s = max(0.0, now - self.blended)
        if self.pictures <= FEW or since_s >= SCENE_STEP_S or now < self.blended:
            weight = max(1 / self.pictures, min(1 / FEW, since_s / SCENE_S))
            self.cells = blend(self.cells, look.cells, weight)
            self.blended = now


def _weight(pictures: int, elapsed_s: float) -> float:
    """The weight of a new picture in a slow mean: of all pictures first, then of USUAL_S."""
    return max(1 / pictures, min(1 / FEW, elapsed_s / USUAL_S))


def blend(cells: bytes, newer: bytes, weight: float) -> bytes:
    """Cells that are nearer to the newer ones by `weight`, from 0 to 1.

    Raises ValueError when they are not as many.
    """
    if len(cells) != len(newer):
        raise ValueError("the pictures have different numbers of cells")
    new = round(weight * 256)
    mean = _number(cells) * (256 - new) + _number(newer) * new  # 256 times the mean of each cell
    wide = mean.to_bytes(2 * len(cells), "little")
    blended = bytearray(len(cells))
    blended[0::2], blended[1::2] = wide[1::4], wide[2::4]
    return bytes(blended)


def _number(cells: bytes) -> int:
    """All cells as one large number, so that Python's arithmetic needs no loop over them.

    Each cell has four bytes of it: two are free for what a multiplication by 256 adds.
    """
    wide = bytearray(2 * len(cells))
    wide[0::4], wide[1::4] = cells[0::2], cells[1::2]
    return int.from_bytes(wide, "little")
