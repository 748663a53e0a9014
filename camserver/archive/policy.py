"""Which pictures retention deletes: the rules of each camera, and the order of deletion. Pure.

The rules come from [retention] and from the `retention` of cameras and profiles. A rule never
touches the newest `keep_last` pictures of a camera.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from camserver.archive.database import ArchivedPicture
from camserver.config import Inventory
from camserver.config.output import CameraRetention, RetentionTable, ThinningTable

FULL_DISK_FILES = 200
"""At least so many pictures go after a disk was full, although it says that it has space: perhaps
inodes or a quota are used up.
"""


class Reason(StrEnum):
    """Why a picture is deleted."""

    AGE = "older than max_age"
    THINNED = "thinned out"
    CAMERA_BYTES = "its camera has more than its max_bytes"
    TOTAL_BYTES = "the archive has more than max_bytes"
    FREE_SPACE = "the disk has less than min_free"
    FULL_DISK = "the disk was full"


@dataclass(frozen=True, slots=True)
class Thinning:
    """Of the pictures older than `after_ms`, one for each `every_ms` stays."""

    after_ms: int
    every_ms: int

    def mark(self, taken_ms: int) -> int:
        """The number of the mark that is nearest to a moment. Marks count from 1970, UTC."""
        return (taken_ms + self.every_ms // 2) // self.every_ms

    def before(self, moment_ms: int) -> int:
        """The end of the last mark that ends until `moment_ms`: only whole marks are decided."""
        return self.mark(moment_ms) * self.every_ms - self.every_ms // 2

    def end_ms(self, now_ms: int, kept_from_ms: int) -> int:
        """The end of the last mark whose pictures are all old enough, and not protected."""
        return self.before(min(now_ms - self.after_ms, kept_from_ms))


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one camera."""

    max_age_ms: int | None
    max_bytes: int | None
    keep_last: int
    thinning: tuple[Thinning, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of all cameras, and the limits of the whole archive."""

    default: Rules
    cameras: dict[str, Rules]
    max_bytes: int | None
    min_free: int | None

    @classmethod
    def of(cls, inventory: Inventory) -> Policy:
        """The policy of an inventory. Cameras that left it have the rules of [retention]."""
        table = inventory.retention
        return cls(
            _rules(table, None),
            {
                camera.id: _rules(table, camera.retention)
                for camera in inventory.cameras
                if camera.retention is not None
            },
            table.max_bytes,
            table.min_free,
        )

    def is_possible(self, disk_bytes: int) -> bool:
        """Whether a disk of this size can have `min_free`. If not, that limit is ignored."""
        return self.min_free is None or self.min_free < disk_bytes

    def rules(self, camera: str) -> Rules:
        """The rules of one camera."""
        return self.cameras.get(camera, self.default)

    @property
    def shortest_age_s(self) -> float:
        """The shortest age by which a rule deletes, in seconds. Infinite without such a rule."""
        ages = [
            age_ms / 1000
            for rules in (self.default, *self.cameras.values())
            for age_ms in (rules.max_age_ms, *(t.after_ms for t in rules.thinning))
            if age_ms is not None
        ]
        return min(ages, default=float("inf"))


def _rules(table: RetentionTable, own: CameraRetention | None) -> Rules:
    """The rules of a camera. A key that it does not give is as in [retention]."""
    given = {} if own is None else own.model_dump(exclude_unset=True)
    keep = own.keep if own is not None and "keep" in given else table.keep
    max_age = given.get("max_age", table.max_age)
    return Rules(
        None if max_age is None else round(max_age * 1000),
        given.get("max_bytes"),
        given.get("keep_last", table.keep_last),
        tuple(_thinning(each) for each in keep),
    )


def _thinning(table: ThinningTable) -> Thinning:
    return Thinning(round(table.after * 1000), round(table.every * 1000))


def thin_out(
    pictures: Iterable[ArchivedPicture], thinning: Thinning
) -> Iterator[tuple[ArchivedPicture, int]]:
    """Yield each picture to delete, and the time until which all marks before its own end.

    `pictures` are sorted by time. The picture nearest to each mark stays. Of two that are as near,
    the earlier one stays.
    """
    best: ArchivedPicture | None = None
    for picture in pictures:
        mark_ms = thinning.mark(picture.taken_ms) * thinning.every_ms
        decided_ms = mark_ms - thinning.every_ms // 2
        if best is None or best.taken_ms < decided_ms:
            best = picture
        elif abs(picture.taken_ms - mark_ms) < abs(best.taken_ms - mark_ms):
            yield best, decided_ms
            best = picture
        else:
            yield picture, decided_ms
