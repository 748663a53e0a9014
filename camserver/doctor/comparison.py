"""Whether a camera's snapshot URL can take the place of its stream. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from camserver.config.model import SOURCES

SHOTS, APART_S = 3, 1.0
"""How many pictures are taken from a snapshot URL, and how long after each other."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture of a snapshot URL. `digest` is equal for equal pictures."""

    width: int
    height: int
    jpeg_bytes: int
    took_s: float
    digest: bytes
    kind: str = "JPEG"

    @property
    def size(self) -> str:
        """The size in pixels, as text."""
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class StreamSeen:
    """What the doctor saw of the stream. `changes`: two keyframes differed; None: only one came."""

    width: int
    height: int
    took_s: float
    changes: bool | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The sentence for a person, and the `sources` to write into the inventory, if any."""

    text: str
    sources: tuple[str, ...] | None = None


def repeats(shots: Sequence[Shot]) -> bool:
    """Whether a snapshot URL gave the same picture each time."""
    return len(shots) > 1 and len({shot.digest for shot in shots}) == 1


def described(shots: Sequence[Shot]) -> str:
    """The pictures of a snapshot URL, in a line for a person. `shots` must not be empty."""
    each = "the same picture each time" if repeats(shots) else "another picture each time"
    return f"{shots[0].size}, {shots[0].jpeg_bytes // 1024} KB, {each} ({len(shots)} tried)"


def compare(
    shots: Sequence[Shot], stream: StreamSeen, sources: tuple[str, ...], *, has_sub: bool
) -> Comparison:
    """Compare a snapshot URL with the stream. `shots` must not be empty."""
    shot, is_first = shots[0], sources[0] == "http"
    took = f"{shot.took_s * 1000:.0f} ms instead of {stream.took_s * 1000:.0f} ms"
    why_not = ""
    if repeats(shots) and stream.changes:
        why_not = f"it gave the same picture {len(shots)} times while the stream changed"
    elif shot.width < stream.width:
        why_not = f"it is smaller: {shot.size}, and the stream is {stream.width}x{stream.height}"
    elif repeats(shots):
        why_not = f"it gave the same picture {len(shots)} times: whether it is fresh is not known"
    if why_not:
        return Comparison(
            f"the stream is the better source: {why_not}",
            tuple(s for s in SOURCES if s != "rtsp-sub" or has_sub) if is_first else None,
        )
    text = f"the snapshot URL is as large as the stream and as fresh, and needs no session ({took})"
    first = ("http", *(s for s in SOURCES if s != "http" and (s != "rtsp-sub" or has_sub)))
    return Comparison(text, None if is_first else first)
