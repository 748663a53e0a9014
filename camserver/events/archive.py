"""Events of the archive: its index, and what retention deletes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from camserver.events.base import Event, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionDeleted(Event):
    """Old pictures were deleted."""

    EVENT: ClassVar[str] = "retention.deleted"
    TEXT: ClassVar[str] = "{files} pictures ({bytes} bytes) deleted"
    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionFailed(Event):
    """Some pictures could not be deleted."""

    EVENT: ClassVar[str] = "retention.failed"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "some pictures cannot be deleted: {reason}"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionHeld(Event):
    """Nothing is deleted by age, because the clock may be wrong.

    `by_s` is the difference that was found. It ends after `hours`, or when a person confirms it.
    """

    EVENT: ClassVar[str] = "retention.held"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = (
        "nothing is deleted by age: {doubt}; it goes on after {hours:.0f} hours without another"
        " doubt, or with `camserver retention --confirm`"
    )
    doubt: str
    by_s: float
    hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionResumed(Event):
    """Pictures are deleted by age again."""

    EVENT: ClassVar[str] = "retention.resumed"
    TEXT: ClassVar[str] = "the clock is believed: pictures are deleted by age again"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionImpossible(Event):
    """The disk is smaller than [retention] min_free, so that limit is ignored."""

    EVENT: ClassVar[str] = "retention.impossible"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = (
        "[retention]: min_free: {min_free} bytes are more than the disk has ({total}): it is"
        " ignored"
    )
    min_free: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexLost(Event):
    """The archive's index can't be used. Nothing is deleted but for a full disk."""

    EVENT: ClassVar[str] = "index.lost"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{path}: the index of the archive cannot be used: {reason}"
    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexBack(Event):
    """The archive's index can be used again."""

    EVENT: ClassVar[str] = "index.back"
    TEXT: ClassVar[str] = "{path}: the index of the archive is used again"
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveScanned(Event):
    """The index was compared with the files, and is complete."""

    EVENT: ClassVar[str] = "index.scanned"
    TEXT: ClassVar[str] = (
        "the index of the archive is complete: {added} pictures added, {removed} removed in"
        " {took_s:.0f} s"
    )
    added: int
    removed: int
    took_s: float
