"""The index of the archive: an SQLite database with one row for each archived picture.

The files are the truth. The index only makes questions cheap: which pictures are the oldest, how
many bytes there are, which pictures are of one day. When it is missing or damaged, it is made again
from the files (scan.py). Calls block; the methods are for one thread.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

VERSION = 1
APPLICATION = 0x63616D73
"""The application_id of an SQLite file that belongs to camserver ("cams")."""
CACHE_KB = 4096
BUSY_S = 5.0
FIRST_MS, LAST_MS = -(2**62), 2**62
"""No picture was taken before or after them."""
LAST_PATH = "\U0010ffff"
"""No path of a picture comes after it."""
FIRST_PAGE, LAST_PAGE = 16, 512
"""Rows of one question for the oldest pictures of a camera. With many cameras few are needed."""

_SCHEMA = f"""
CREATE TABLE camera (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    pictures INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE picture (
    camera INTEGER NOT NULL, path TEXT NOT NULL, taken_ms INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (camera, path)
) WITHOUT ROWID;
CREATE INDEX picture_by_time ON picture (camera, taken_ms, path, bytes);
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""


class DamagedIndexError(Exception):
    """Raised when a file is an index of camserver, but can't be used."""


class ArchivedPicture(NamedTuple):
    """One picture of the archive. `path` is below the camera's folder, `taken_ms` since 1970."""

    camera: str
    path: str
    taken_ms: int
    bytes: int


class CameraTotals(NamedTuple):
    """The number and the size of a camera's archived pictures."""

    pictures: int
    bytes: int


class ArchiveDatabase:
    """An open index. All methods raise sqlite3.Error."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the index, or create it.

        Raises DamagedIndexError for an index of another version, OSError for the file of another
        program.
        """
        self.path = path
        if read_only:
            # Without a writer there is no -wal file, and SQLite could not create one
            mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
            uri = f"{path.absolute().as_uri()}?{mode}"
        else:
            uri = path.absolute().as_uri()
        self._db = sqlite3.connect(
            uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._set_up(read_only=read_only)
        except BaseException:
            self._db.close()
            raise
        stat = path.stat()
        self._identity = stat.st_dev, stat.st_ino
        self._ids: dict[str, int] = dict(self._db.execute("SELECT name, id FROM camera"))

    def _set_up(self, *, read_only: bool) -> None:
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION and (tables or version):
            raise OSError(f"{self.path} is a database of another program")
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA journal_size_limit = 4194304")
        if version == 0 and not read_only:
            self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        elif version != VERSION:
            raise DamagedIndexError(f"it is an index of version {version}, not {VERSION}")

    @property
    def is_at_its_path(self) -> bool:
        """Whether the file is still there. A person may remove an index at any time."""
        try:
            stat = self.path.stat()
        except OSError:
            return False
        return (stat.st_dev, stat.st_ino) == self._identity

    def close(self) -> None:
        """Close the database. The last one that closes it merges the write-ahead log."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Apply the changes of the block together, or none of them."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            self._ids = {}  # a camera that was added may be gone again
            raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Answer all questions of the block from one state."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    # ---- pictures

    def add(self, pictures: Iterable[ArchivedPicture]) -> int:
        """Add pictures. Returns how many were not known yet."""
        added = 0
        with self.transaction():
            for picture in pictures:
                camera = self._id(picture.camera, create=True)
                changed = self._db.execute(
                    "INSERT OR IGNORE INTO picture VALUES (?, ?, ?, ?)",
                    (camera, picture.path, picture.taken_ms, picture.bytes),
                ).rowcount
                if changed:
                    added += 1
                    self._count(camera, 1, picture.bytes)
        return added

    def remove(self, pictures: Iterable[ArchivedPicture]) -> None:
        """Remove pictures, also some that are not known."""
        with self.transaction():
            for picture in pictures:
                camera = self._id(picture.camera)
                row = self._db.execute(
                    "DELETE FROM picture WHERE camera = ? AND path = ? RETURNING bytes",
                    (camera, picture.path),
                ).fetchone()
                if row is not None:
                    self._count(camera, -1, -row[0])

    def totals(self) -> dict[str, CameraTotals]:
        """The totals of each camera that ever had a picture."""
        rows = self._db.execute("SELECT name, pictures, bytes FROM camera ORDER BY name")
        return {name: CameraTotals(pictures, size) for name, pictures, size in rows}

    def between(self, camera: str, first_ms: int, end_ms: int, most: int) -> list[ArchivedPicture]:
        """The pictures from `first_ms` until before `end_ms`, the newest `most`, oldest first."""
        rows = self._db.execute(
            "SELECT path, taken_ms, bytes FROM picture"
            " WHERE camera = ? AND taken_ms >= ? AND taken_ms < ? ORDER BY taken_ms DESC LIMIT ?",
            (self._id(camera), first_ms, end_ms, most),
        )
        return [ArchivedPicture(camera, *row) for row in rows][::-1]

    def count_between(self, camera: str, first_ms: int, end_ms: int) -> int:
        """The number of pictures from `first_ms` until before `end_ms`."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM picture WHERE camera = ? AND taken_ms >= ? AND taken_ms < ?",
            (self._id(camera), first_ms, end_ms),
        ).fetchone()
        return int(count)

    def count_marks(self, camera: str, first_ms: int, end_ms: int, every_ms: int) -> int:
        """The number of marks, multiples of `every_ms`, that have pictures near them."""
        (count,) = self._db.execute(
            "SELECT count(DISTINCT (taken_ms + ?) / ?) FROM picture"
            " WHERE camera = ? AND taken_ms >= ? AND taken_ms < ?",
            (every_ms // 2, every_ms, self._id(camera), first_ms, end_ms),
        ).fetchone()
        return int(count)

    def oldest(self, camera: str, first_ms: int, end_ms: int) -> Iterator[ArchivedPicture]:
        """Yield the pictures from `first_ms` until before `end_ms`, oldest first.

        It reads page by page, so pictures that were yielded may be removed meanwhile.
        """
        page, after = FIRST_PAGE, (first_ms, "")
        while True:
            rows = self._db.execute(
                "SELECT path, taken_ms, bytes FROM picture WHERE camera = ?"
                " AND (taken_ms, path) > (?, ?) AND taken_ms < ? ORDER BY taken_ms, path LIMIT ?",
                (self._id(camera), *after, end_ms, page),
            ).fetchall()
            for row in rows:
                yield ArchivedPicture(camera, *row)
            if len(rows) < page:
                return
            after = rows[-1][1], rows[-1][0]
            page = min(2 * page, LAST_PAGE)

    def kept_from(self, camera: str, keep_last: int, until_ms: int) -> int | None:
        """The time of the `keep_last`-th newest picture until `until_ms`. None: there are fewer."""
        row = self._db.execute(
            "SELECT taken_ms FROM picture WHERE camera = ? AND taken_ms <= ?"
            " ORDER BY taken_ms DESC LIMIT 1 OFFSET ?",
            (self._id(camera), until_ms, keep_last - 1),
        ).fetchone()
        return None if row is None else int(row[0])

    def sizes(self, camera: str, after: str, last: str | None, most: int) -> dict[str, int]:
        """The sizes of the pictures whose paths come after `after`, up to `last` (None: the end).

        They are in the order of the paths, and at most `most`.
        """
        rows = self._db.execute(
            "SELECT path, bytes FROM picture WHERE camera = ? AND path > ? AND path <= ?"
            " ORDER BY path LIMIT ?",
            (self._id(camera), after, LAST_PATH if last is None else last, most),
        )
        return dict(rows.fetchall())

    # ---- facts, which parts of this package store

    def fact(self, name: str) -> Any:
        """A stored value. None when there is none."""
        row = self._db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def set_fact(self, name: str, value: Any) -> None:
        """Store a value that JSON can express."""
        self._db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, json.dumps(value)))

    def forget_facts(self, prefix: str) -> None:
        """Remove the facts whose names begin with `prefix`."""
        self._db.execute(
            "DELETE FROM fact WHERE name >= ? AND name < ?", (prefix, prefix + LAST_PATH)
        )

    def _id(self, camera: str, *, create: bool = False) -> int:
        known = self._ids.get(camera)
        if known is not None:
            return known
        if create:
            self._db.execute("INSERT OR IGNORE INTO camera (name) VALUES (?)", (camera,))
        row = self._db.execute("SELECT id FROM camera WHERE name = ?", (camera,)).fetchone()
        if row is None:
            return -1  # no row has it
        self._ids[camera] = int(row[0])
        return int(row[0])

    def _count(self, camera: int, pictures: int, size: int) -> None:
        self._db.execute(
            "UPDATE camera SET pictures = pictures + ?, bytes = bytes + ? WHERE id = ?",
            (pictures, size, camera),
        )


def thinned_prefix(camera: str) -> str:
    """The beginning of the names of the facts that say how far a camera is thinned out."""
    return f"thinned {camera} "


def put_aside(path: Path) -> None:
    """Rename a damaged index to NAME.damaged, and remove its log. Raises OSError."""
    if path.exists():
        path.replace(path.with_name(path.name + ".damaged"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
