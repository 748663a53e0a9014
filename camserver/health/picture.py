"""One picture as it is judged, and its kind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from camserver.model import Look

GREY_BELOW = 0.012
"""Less colour than this is an infrared picture."""

LEVELS = 10
"""How many levels of light are told apart."""


class Kind(NamedTuple):
    """Pictures of different kinds differ in contrast and sharpness, also of the same scene.

    `is_grey` is None when colours are not known. Sizes are in pixels.
    """

    is_grey: bool | None
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, as it is judged.

    `at` is its capture time. `now` is in seconds of a clock that nobody sets. `coded_bytes` is its
    size as the camera sent it. `interval_s` is the time between the camera's pictures. `offset_s`
    is the camera's clock minus ours, if it told.
    """

    look: Look
    width: int
    height: int
    coded_bytes: int
    at: datetime
    now: float
    interval_s: float
    offset_s: float | None = None

    @property
    def level(self) -> int:
        """The level of light, from 0."""
        return min(LEVELS - 1, int(self.look.brightness * LEVELS))

    @property
    def kind(self) -> Kind:
        """The kind of the picture."""
        colour = self.look.colour
        return Kind(None if colour is None else colour < GREY_BELOW, self.width, self.height)
