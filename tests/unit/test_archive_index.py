"""The index of the archive: rows, scans of real files, damage, a full disk, a kill."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stored import JPEG, MOMENT

from camserver.archive import index as index_module
from camserver.archive.database import ArchiveDatabase, ArchivedPicture
from camserver.archive.index import ArchiveIndex, IndexUnavailable
from camserver.archive.listing import ArchiveListing
from camserver.archive.scan import ArchiveScan, ScanPosition, oldest_files, walk
from camserver.config.output import OutputTable
from camserver.events import Event
from camserver.storage.exif import with_exif
from camserver.storage.naming import ArchiveNames, archive_name

PATTERN = "%Y/%m/%d/%H%M%S.%LZ.jpg"
NAMES = ArchiveNames(PATTERN, "UTC")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # real threads and files


def row(camera: str, second: int, size: int = 10) -> ArchivedPicture:
    moment = MOMENT + timedelta(seconds=second)
    return ArchivedPicture(
        camera, archive_name(PATTERN, moment), round(moment.timestamp() * 1000), size
    )


def write(directory: Path, pictures: list[ArchivedPicture]) -> None:
    """Empty files of the right size, as published pictures."""
    for picture in pictures:
        path = directory / picture.camera / picture.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(picture.bytes))
        (directory / picture.camera / "latest.json").touch()


def rows_of(database: ArchiveDatabase, camera: str) -> list[ArchivedPicture]:
    return list(database.oldest(camera, 0, 2**62))


def test_rows_and_totals(tmp_path: Path) -> None:
    database = ArchiveDatabase(tmp_path / "index")
    pictures = [row("gate", n, n) for n in range(2000)] + [row("yard", 5, 7)]
    assert database.add(pictures) == 2001
    assert database.add(pictures[:3]) == 0
    assert database.totals() == {"gate": (2000, sum(range(2000))), "yard": (1, 7)}
    assert rows_of(database, "gate") == pictures[:2000]
    assert database.between("gate", row("gate", 10).taken_ms, row("gate", 20).taken_ms, 3) == [
        row("gate", n, n) for n in (17, 18, 19)
    ]
    assert database.count_between("gate", row("gate", 10).taken_ms, row("gate", 20).taken_ms) == 10
    assert database.kept_from("gate", 10) == row("gate", 1990).taken_ms
    assert database.kept_from("yard", 2) is None
    database.remove([*pictures[:1999], row("nobody", 1)])
    assert database.totals() == {"gate": (1, 1999), "yard": (1, 7)}
    database.close()
    again = ArchiveDatabase(tmp_path / "index", read_only=True)
    assert again.totals()["gate"].pictures == 1
    with pytest.raises(sqlite3.OperationalError):
        again.add([row("gate", 1)])


def test_the_question_for_the_oldest_reads_no_other_rows(tmp_path: Path) -> None:
    """Cost in proportion to the answer: every question of a pass uses an index alone."""
    database = ArchiveDatabase(tmp_path / "index")
    asked: list[str] = []
    database._db.set_trace_callback(asked.append)
    database.add([row("gate", 1), row("gate", 2)])
    list(database.oldest("gate", 0, 2**62))
    database.kept_from("gate", 1)
    database.count_between("gate", 0, 1)
    database.between("gate", 0, 1, 1)
    database.sizes("gate", "", None)
    database.remove([row("gate", 1)])
    database._db.set_trace_callback(None)
    questions = [text for text in asked if "picture" in text and not text.startswith("INSERT")]
    assert len(questions) >= 6
    for text in questions:
        plan = [step[3] for step in database._db.execute(f"EXPLAIN QUERY PLAN {text}")]
        assert plan
        assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step], text


def scan(directory: Path, database: ArchiveDatabase, **options: Any) -> tuple[int, int]:
    steps = list(ArchiveScan(directory, NAMES, **options).steps(database))
    return sum(step.added for step in steps), sum(step.removed for step in steps)


def test_a_scan_makes_the_index_from_the_files(tmp_path: Path) -> None:
    """It takes names of the pattern only, below folders of cameras only, and follows no link."""
    pictures = [row("gate", n * 3600) for n in range(2500)] + [row("yard", 1)]
    write(tmp_path, pictures)
    for foreign in ("gate/holiday.jpg", "gate/latest.jpg", "gate/2026/01/04/mine.jpg"):
        (tmp_path / foreign).write_bytes(b"x")
    (tmp_path / "gate/2026/01/04/120000.000Z.jpg").symlink_to("mine.jpg")
    (tmp_path / "gate/2027").symlink_to("2026")
    strange = tmp_path / "My Holiday" / pictures[0].path
    strange.parent.mkdir(parents=True)
    strange.write_bytes(b"x")
    database = ArchiveDatabase(tmp_path / "index")
    assert scan(tmp_path, database) == (2501, 0)
    assert rows_of(database, "gate") == pictures[:2500]
    assert scan(tmp_path, database) == (0, 0)
    # What a person deletes or brings back is found; a picture that is published meanwhile stays
    (tmp_path / "gate" / pictures[7].path).unlink()
    database.remove([pictures[2000]])
    database.add([row("yard", 99)])
    (tmp_path / "yard" / row("yard", 99).path).write_bytes(b"x")
    assert scan(tmp_path, database) == (1, 1)
    assert len(rows_of(database, "gate")) == 2499
    assert len(rows_of(database, "yard")) == 2


def test_a_scan_goes_on_where_it_was(tmp_path: Path) -> None:
    pictures = [row(camera, n * 3600) for camera in ("gate", "yard") for n in range(1500)]
    write(tmp_path, pictures)
    database = ArchiveDatabase(tmp_path / "index")
    steps = ArchiveScan(tmp_path, NAMES).steps(database)
    position = [next(steps).position for _ in range(3)][-1]
    assert position.camera == "yard"
    assert sum(totals.pictures for totals in database.totals().values()) == 2500
    assert scan(tmp_path, database, position=position) == (500, 0)
    assert scan(tmp_path, database, position=ScanPosition("zoo", "")) == (0, 0)
    assert [*rows_of(database, "gate"), *rows_of(database, "yard")] == pictures


def test_times_come_from_name_exif_or_file(tmp_path: Path) -> None:
    """In this order: a restored archive has new times of modification."""
    names = ArchiveNames("%Y-%m-%d.jpg", "UTC")
    folder = tmp_path / "gate"
    folder.mkdir()
    (folder / "latest.json").touch()
    (folder / "2026-01-04.jpg").write_bytes(with_exif(JPEG, "gate", MOMENT))
    (folder / "2026-01-04-1.jpg").write_bytes(b"no JPEG")
    os.utime(folder / "2026-01-04-1.jpg", (5, 5))
    database = ArchiveDatabase(tmp_path / "index")
    list(ArchiveScan(tmp_path, names).steps(database))
    assert [(p.path, p.taken_ms) for p in rows_of(database, "gate")] == [
        ("2026-01-04-1.jpg", 5000),
        ("2026-01-04.jpg", round(MOMENT.timestamp() * 1000)),
    ]


def test_paths_are_in_the_order_of_the_index(tmp_path: Path) -> None:
    """A folder sorts by its name and the slash, as in whole paths."""
    names = ArchiveNames("%Y%p/%m-%d.jpg", "UTC")
    for path in ("2026-x/01-01.jpg", "2026/01-02.jpg", "2026.y/01-01.jpg", "2026/01-02-1.jpg"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    found = list(walk(tmp_path, names))
    assert found == sorted(found)
    assert len(found) == 4
    for number, path in enumerate(found):
        assert list(walk(tmp_path, names, path)) == found[number + 1 :]


def test_the_oldest_files_without_an_index(tmp_path: Path) -> None:
    pictures = [row("gate", n) for n in range(20)] + [row("yard", n) for n in (3, 30, 31)]
    write(tmp_path, pictures)
    oldest = list(oldest_files(tmp_path, NAMES, {"gate": 17, "yard": 2}.__getitem__))
    assert [(p.camera, p) for p in oldest] == [
        (p.camera, p) for p in (row("gate", 0), row("gate", 1), row("gate", 2), row("yard", 3))
    ]
    assert not list(oldest_files(tmp_path, ArchiveNames("%Y-%m-%d.jpg", "UTC"), lambda _: 1))


class Running:
    """An index with its jobs, on `directory`."""

    def __init__(self, directory: Path) -> None:
        self.events: list[Event] = []
        self.index = ArchiveIndex(directory / "index", directory, NAMES, self.events.append)
        self._job: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ArchiveIndex:
        self._job = asyncio.create_task(self.index.run())
        return self.index

    async def __aexit__(self, *_: object) -> None:
        assert self._job is not None
        self._job.cancel()
        await asyncio.wait({self._job})
        await self.index.close(60)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "FLUSH_S", 0.01)
    monkeypatch.setattr(index_module, "RETRY_S", 0.01)
    monkeypatch.setattr(index_module, "CHECK_SHARE", 0.5)


def names_of(events: list[Event]) -> list[str]:
    return [event.EVENT for event in events]


async def test_an_index_completes_itself_and_takes_what_is_published(tmp_path: Path) -> None:
    """After a clean end nothing is scanned; after a kill what was published is found."""
    write(tmp_path, [row("gate", n) for n in range(30)])
    first = Running(tmp_path)
    async with first as index:
        await until(lambda: index.scan.complete)
        published = row("gate", 100)
        write(tmp_path, [published])
        moment = datetime.fromtimestamp(published.taken_ms / 1000, MOMENT.tzinfo)
        index.published("gate", published.path, moment, published.bytes)
        assert (await index.ask(lambda db: db.totals()))["gate"].pictures == 31
    assert names_of(first.events) == ["index.scanned"]
    second = Running(tmp_path)
    async with second as index:
        await until(lambda: index.scan.complete)
        assert (await index.ask(lambda db: db.totals()))["gate"].pictures == 31
    assert names_of(second.events) == []
    killed = ArchiveDatabase(tmp_path / "index")
    killed.set_fact("clean", value=False)
    killed.remove([published])
    killed.close()
    third = Running(tmp_path)
    async with third as index:
        await until(lambda: third.events)
        assert (await index.ask(lambda db: db.totals()))["gate"].pictures == 31
    assert names_of(third.events) == ["index.scanned"]


@pytest.mark.parametrize("damage", ["garbage", "torn", "other version", "a FIFO's name"])
async def test_a_damaged_index_is_made_again(tmp_path: Path, damage: str) -> None:
    write(tmp_path, [row("gate", n) for n in range(3000)])
    async with Running(tmp_path) as index:
        await until(lambda: index.scan.complete)
    path = tmp_path / "index"
    if damage == "garbage":
        path.write_bytes(b"no database at all" * 1000)
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:8192] + bytes(16384))
    elif damage == "other version":
        other = sqlite3.connect(path)
        other.execute("PRAGMA user_version = 99")
        other.close()
    else:
        path.unlink()
        path.mkdir()
    again = Running(tmp_path)
    async with again as index:
        if damage == "a FIFO's name":
            await until(lambda: "index.lost" in names_of(again.events))
            with pytest.raises(IndexUnavailable):
                await index.ask(lambda db: db.totals())
            path.rmdir()
        await until(lambda: index.scan.complete and index.is_up)
        assert (await index.ask(lambda db: db.totals()))["gate"].pictures == 3000
        assert len(await index.ask(lambda db: rows_of(db, "gate"))) == 3000
    assert names_of(again.events)[:2] == ["index.lost", "index.back"]


async def test_pictures_wait_for_an_index_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: questions are answered, so that retention can delete; nothing is lost."""
    write(tmp_path, [row("gate", n) for n in range(3)])
    full = [False]
    real = ArchiveDatabase.add

    def add(database: ArchiveDatabase, pictures: list[ArchivedPicture]) -> int:
        if full[0]:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return real(database, pictures)

    monkeypatch.setattr(ArchiveDatabase, "add", add)
    running = Running(tmp_path)
    async with running as index:
        await until(lambda: index.scan.complete)
        full[0] = True
        index.add(row("gate", 9))
        await until(lambda: "index.lost" in names_of(running.events))
        assert (await index.ask(lambda db: db.totals()))["gate"].pictures == 3
        full[0] = False
        await until(lambda: index.is_up)
        assert (await index.ask(lambda db: db.totals()))["gate"].pictures == 4


async def test_a_disk_that_was_unmounted_empties_no_index(tmp_path: Path) -> None:
    write(tmp_path, [row("gate", n) for n in range(3)])
    expected = [tmp_path.stat().st_dev]
    index = ArchiveIndex(
        tmp_path / "index", tmp_path, NAMES, lambda _: None, file_system=lambda: expected[0]
    )
    await index.ask(lambda db: db.add([row("gate", 1)]))
    expected[0] += 1
    with pytest.raises(IndexUnavailable, match="unmounted"):
        await index.ask(lambda db: db.totals())
    expected[0] -= 1
    assert (await index.ask(lambda db: db.totals()))["gate"].pictures == 1
    await index.close(60)


@pytest.mark.parametrize("complete", [True, False])
async def test_a_day_is_listed_with_and_without_the_index(tmp_path: Path, complete: bool) -> None:
    """The same list; days are those of the archive's time zone."""
    output = OutputTable(directory=tmp_path, timezone="Asia/Tokyo")
    names = ArchiveNames(output.archive, output.timezone)
    for hour in range(0, 72, 3):
        moment = (MOMENT + timedelta(hours=hour)).astimezone(names._zone)
        path = tmp_path / "gate" / archive_name(output.archive, moment)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (5, 5))
    (tmp_path / "gate/latest.json").touch()
    index = ArchiveIndex(tmp_path / "index", tmp_path, names, lambda _: None)
    listing = ArchiveListing(output, index)
    day = (MOMENT + timedelta(days=1)).date()
    assert await listing.indexed("gate", day) is None
    found = listing.walked("gate", day)
    assert [p.path for p in found] == [
        f"2026/01/05/{hour:02}3000.250Z.jpg" for hour in range(0, 24, 3)
    ]
    if complete:
        await index._scan(names)
        assert await listing.indexed("gate", day) == found
        assert await listing.indexed("nobody", day) == []
    await index.close(60)
