"""The deletions of one pass of retention, step by step, from the index. Calls block.

A pass deletes by age first, then what is too much for a camera, for the archive, for the disk. Each
batch is deleted before the next one is asked for. A dry run asks for all batches and deletes none.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from camserver.archive.database import (
    FIRST_MS,
    LAST_MS,
    ArchiveDatabase,
    ArchivedPicture,
    thinned_prefix,
)
from camserver.archive.policy import FULL_DISK_FILES, Policy, Reason, Rules, Thinning, thin_out

BATCH = 200
FUTURE_MS = 3_600_000
"""Pictures of a time further ahead than this come from a wrong clock."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures that are deleted for one reason.

    `thinned`: what was decided when they are gone, as (fact of the index, time in ms).
    """

    reason: Reason
    pictures: list[ArchivedPicture]
    thinned: tuple[str, int] | None = None


class Plan:
    """The pass of one moment. All methods raise sqlite3.Error."""

    def __init__(
        self, database: ArchiveDatabase, policy: Policy, now_ms: int, *, dry_run: bool = False
    ) -> None:
        self._database = database
        self._policy = policy
        self._now_ms = now_ms
        self._future_ms = now_ms + FUTURE_MS
        # In a dry run the index still has the pictures that earlier steps would have deleted
        self._gone: set[tuple[str, str]] | None = set() if dry_run else None
        self._gone_bytes: dict[str, int] = {}
        self._chosen = 0
        self._freed_bytes = 0

    def counts_by_time(self) -> dict[str, tuple[int, int]]:
        """For each camera: how many pictures `by_time` deletes, of how many that may be deleted.

        Those that two steps thin out count twice.
        """
        counts = {}
        for camera, totals in self._database.totals().items():
            rules, end_ms = self._policy.rules(camera), self._end_ms(camera)
            old_ms = min(end_ms, self._old_ms(rules))
            deletes = self._database.count_between(camera, FIRST_MS, old_ms)
            for thinning in rules.thinning:
                first_ms = max(old_ms, self._thinned_to(camera, thinning))
                last_ms = thinning.end_ms(self._now_ms, end_ms)
                deletes += self._database.count_between(camera, first_ms, last_ms)
                deletes -= self._database.count_marks(camera, first_ms, last_ms, thinning.every_ms)
            counts[camera] = deletes, max(0, totals.pictures - rules.keep_last)
        return counts

    def by_time(self) -> Iterator[Batch]:
        """What is too old, and what is thinned out."""
        for camera in self._database.totals():
            rules, end_ms = self._policy.rules(camera), self._end_ms(camera)
            old_ms = min(end_ms, self._old_ms(rules))
            yield from self._batches(Reason.AGE, self._database.oldest(camera, FIRST_MS, old_ms))
            for thinning in rules.thinning:
                yield from self._thin_out(camera, thinning, old_ms, end_ms)

    def by_size(self, free_bytes: int, *, disk_full: bool) -> Iterator[Batch]:
        """What is too much for a camera, for the archive, or for the disk.

        `free_bytes` is the space before the first batch of this plan.
        """
        for camera, totals in self._database.totals().items():
            limit = self._policy.rules(camera).max_bytes
            if limit is not None:
                excess = totals.bytes - self._gone_bytes.get(camera, 0) - limit
                oldest = self._database.oldest(camera, FIRST_MS, self._end_ms(camera))
                yield from self._batches(Reason.CAMERA_BYTES, oldest, excess)
        if self._policy.max_bytes is not None:
            total = sum(totals.bytes for totals in self._database.totals().values())
            excess = total - sum(self._gone_bytes.values()) - self._policy.max_bytes
            yield from self._batches(Reason.TOTAL_BYTES, self._oldest_of_all(), excess)
        if self._policy.min_free is not None:
            lacking = self._policy.min_free - free_bytes - self._freed_bytes
            yield from self._batches(Reason.FREE_SPACE, self._oldest_of_all(), lacking)
        if disk_full and self._chosen < FULL_DISK_FILES:
            few = islice(self._oldest_of_all(), FULL_DISK_FILES - self._chosen)
            yield from self._batches(Reason.FULL_DISK, few)

    def _old_ms(self, rules: Rules) -> int:
        return FIRST_MS if rules.max_age_ms is None else self._now_ms - rules.max_age_ms

    def _end_ms(self, camera: str) -> int:
        """The time from which on the pictures of a camera are protected by keep_last.

        Pictures of the future, which a wrong clock has made, do not count as the newest ones.
        """
        kept_from = self._database.kept_from(
            camera, self._policy.rules(camera).keep_last, self._future_ms
        )
        return FIRST_MS if kept_from is None else kept_from

    def _oldest_of_all(self) -> Iterator[ArchivedPicture]:
        """The pictures of all cameras that are not protected, oldest first.

        Pictures of the future come last: a full disk must not be full of them for ever.
        """
        cameras = list(self._database.totals())
        yield from self._merged(
            self._database.oldest(camera, FIRST_MS, self._end_ms(camera)) for camera in cameras
        )
        yield from self._merged(
            self._database.oldest(camera, self._future_ms + 1, LAST_MS) for camera in cameras
        )

    @staticmethod
    def _merged(each: Iterable[Iterator[ArchivedPicture]]) -> Iterator[ArchivedPicture]:
        return heapq.merge(*each, key=lambda picture: picture.taken_ms)

    def _batches(
        self,
        reason: Reason,
        pictures: Iterator[ArchivedPicture],
        enough_bytes: int | None = None,
    ) -> Iterator[Batch]:
        """Batches of pictures, until they have `enough_bytes` (None: all of them)."""
        freed = 0
        while enough_bytes is None or freed < enough_bytes:
            batch = []
            for picture in pictures:
                if self._is_gone(picture):
                    continue
                batch.append(picture)
                freed += picture.bytes
                if len(batch) == BATCH or (enough_bytes is not None and freed >= enough_bytes):
                    break
            if not batch:
                return
            self._note(batch)
            yield Batch(reason, batch)

    def _thin_out(
        self, camera: str, thinning: Thinning, first_ms: int, kept_from_ms: int
    ) -> Iterator[Batch]:
        fact = thinned_fact(camera, thinning)
        first_ms = max(first_ms, self._thinned_to(camera, thinning))
        end_ms = thinning.end_ms(self._now_ms, kept_from_ms)
        if end_ms <= first_ms:
            return
        pictures = (
            picture
            for picture in self._database.oldest(camera, first_ms, end_ms)
            if not self._is_gone(picture)
        )
        batch: list[ArchivedPicture] = []
        for picture, decided_ms in thin_out(pictures, thinning):
            batch.append(picture)
            if len(batch) == BATCH:
                self._note(batch)
                yield Batch(Reason.THINNED, batch, (fact, max(first_ms, decided_ms)))
                batch = []
        self._note(batch)
        yield Batch(Reason.THINNED, batch, (fact, end_ms))

    def _thinned_to(self, camera: str, thinning: Thinning) -> int:
        thinned_to = self._database.fact(thinned_fact(camera, thinning))
        return FIRST_MS if thinned_to is None else int(thinned_to)

    def _is_gone(self, picture: ArchivedPicture) -> bool:
        return self._gone is not None and (picture.camera, picture.path) in self._gone

    def _note(self, batch: list[ArchivedPicture]) -> None:
        self._chosen += len(batch)
        self._freed_bytes += sum(picture.bytes for picture in batch)
        for picture in batch:
            if self._gone is not None:
                self._gone.add((picture.camera, picture.path))
                self._gone_bytes[picture.camera] = (
                    self._gone_bytes.get(picture.camera, 0) + picture.bytes
                )


def thinned_fact(camera: str, thinning: Thinning) -> str:
    """The name of the fact that says up to where the pictures of a camera are thinned out."""
    return f"{thinned_prefix(camera)}{thinning.after_ms} {thinning.every_ms}"
