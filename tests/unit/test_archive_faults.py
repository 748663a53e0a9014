"""The index of the archive and what happens to it: a kill, damage, a full or silent disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from archived import NAMES, Running, names_of, row, rows_of, scan, until, write
from stored import MOMENT

from camserver.archive import index as index_module
from camserver.archive.database import ArchiveDatabase, ArchivedPicture
from camserver.archive.index import ArchiveIndex, IndexUnavailable
from camserver.archive.listing import ArchiveListing
from camserver.archive.scan import ArchiveScan, ScanPosition
from camserver.config.output import OutputTable
from camserver.events import Event
from camserver.storage.naming import ArchiveNames, archive_name


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # real threads and files


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "FLUSH_S", 0.01)
    monkeypatch.setattr(index_module, "RETRY_S", 0.01)
    monkeypatch.setattr(index_module, "CHECK_SHARE", 0.5)


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


async def test_an_outage_while_a_scan_sleeps_damages_nothing(tmp_path: Path) -> None:
    """The scan goes on with the index that was opened again."""
    write(tmp_path, [row("gate", n) for n in range(2500)])
    expected = [tmp_path.stat().st_dev]
    events: list[Event] = []
    index = ArchiveIndex(
        tmp_path / "index", tmp_path, NAMES, events.append, file_system=lambda: expected[0]
    )
    steps = index_module._Steps(tmp_path, NAMES, ScanPosition())
    await index.ask(lambda database: index._step(database, steps))
    await index.ask(lambda database: database.set_fact("mine", 7))
    expected[0] += 1
    with pytest.raises(IndexUnavailable):
        await index.ask(lambda database: database.totals())
    expected[0] -= 1
    with pytest.raises(IndexUnavailable, match="opened again"):
        await index.ask(lambda database: index._step(database, steps))
    assert await index.ask(lambda database: database.fact("mine")) == 7
    await index._scan(NAMES)
    assert (await index.ask(lambda database: database.totals()))["gate"].pictures == 2500
    await index.close(60)


@pytest.mark.parametrize("other", ["text", "database"])
async def test_the_file_of_another_program_is_not_touched(tmp_path: Path, other: str) -> None:
    path = tmp_path / "index"
    if other == "text":
        path.write_bytes(b"a person's notes" * 100)
    else:
        database = sqlite3.connect(path)
        database.executescript("CREATE TABLE notes (x); PRAGMA user_version = 7;")
        database.close()
    content = path.read_bytes()
    index = ArchiveIndex(path, tmp_path, NAMES, lambda _: None)
    with pytest.raises(IndexUnavailable):
        await index.ask(lambda database: database.totals())
    kept = path if other == "database" else tmp_path / "index.damaged"
    assert kept.read_bytes() == content
    await index.close(60)


async def test_an_index_that_a_person_removes_is_made_again_at_once(tmp_path: Path) -> None:
    write(tmp_path, [row("gate", n) for n in range(30)])
    running = Running(tmp_path)
    async with running as index:
        await until(lambda: index.scan.complete)
        (tmp_path / "index").unlink()
        assert await index.ask(lambda db: db.totals()) == {}
        await until(lambda: index.scan.complete)
        assert (await index.ask(lambda db: db.totals()))["gate"].pictures == 30


async def test_the_index_of_another_directory_is_not_used(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, [row("gate", n) for n in range(3)])
    (tmp_path / "two/gate" / row("gate", 0).path).unlink()
    for name, pictures in (("one", 3), ("two", 2)):
        index = ArchiveIndex(tmp_path / "index", tmp_path / name, NAMES, lambda _: None)
        with contextlib.suppress(IndexUnavailable):
            await index.ask(lambda _: None)
        await index._scan(NAMES)
        assert (await index.ask(lambda db: db.totals()))["gate"].pictures == pictures
        await index.close(60)


def test_a_camera_whose_folder_is_gone_leaves_the_index(tmp_path: Path) -> None:
    """And many rows without files cost many small steps, not a long one."""
    database = ArchiveDatabase(tmp_path / "index")
    database.add([row("gone", n) for n in range(10_000)])
    write(tmp_path, [row("gate", 1)])
    steps = list(ArchiveScan(tmp_path, NAMES).steps(database))
    assert max(step.removed for step in steps) <= 4000
    assert {name: t.pictures for name, t in database.totals().items() if t.pictures} == {"gate": 1}


def test_a_folder_that_cannot_be_read_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [row(camera, n) for camera in ("gate", "yard") for n in range(5)]
    write(tmp_path, pictures)
    database = ArchiveDatabase(tmp_path / "index")
    assert scan(tmp_path, database) == (10, 0)
    (tmp_path / "yard" / row("yard", 0).path).unlink()
    real = os.scandir

    def refuses(path: Any = ".") -> Any:
        if "gate" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuses)
    assert scan(tmp_path, database) == (0, 1)
    assert len(rows_of(database, "gate")) == 5


def test_strange_files_cost_nothing_but_themselves(tmp_path: Path) -> None:
    """Digits beyond all time, a folder that is no UTF-8, a picture of absurd size."""
    names = ArchiveNames("%B/%s.jpg", "UTC")
    folder = tmp_path / "gate" / "March"
    folder.mkdir(parents=True)
    (folder / "99999999999999999999.jpg").touch()
    (folder / "1767519000.jpg").touch()
    os.mkdir(os.fsencode(tmp_path / "gate") + b"/M\xe4rz")  # noqa: PTH102
    Path(os.fsdecode(os.fsencode(tmp_path / "gate") + b"/M\xe4rz/1767519001.jpg")).touch()
    database = ArchiveDatabase(tmp_path / "index")
    (tmp_path / "gate/latest.json").touch()
    list(ArchiveScan(tmp_path, names).steps(database))
    assert len(rows_of(database, "gate")) == 2
    huge = bytes.fromhex("ffd8ffc0001108ffdcffdc03012200021101031101") + b"\xff\xd9"
    (tmp_path / "gate/2026-01-04.jpg").write_bytes(huge)
    list(ArchiveScan(tmp_path, ArchiveNames("%Y-%m-%d.jpg", "UTC")).steps(database))
    assert any(p.path == "2026-01-04.jpg" for p in rows_of(database, "gate"))


async def test_what_this_process_has_published_says_nothing_of_the_clock(tmp_path: Path) -> None:
    index = ArchiveIndex(tmp_path / "index", tmp_path, NAMES, lambda _: None)
    index._started_ms = row("gate", 50).taken_ms
    write(tmp_path, [row("gate", 10), row("gate", 99)])
    await index._scan(NAMES)
    assert index.scan.newest_ms == row("gate", 10).taken_ms
    await index.close(60)


async def test_a_question_that_is_given_up_loses_no_picture(tmp_path: Path) -> None:
    index = ArchiveIndex(tmp_path / "index", tmp_path, NAMES, lambda _: None)
    goes_on = threading.Event()
    first = asyncio.create_task(index.ask(lambda _: goes_on.wait()))
    await asyncio.sleep(0)
    index.add(row("gate", 1))
    second = asyncio.create_task(index.ask(lambda db: db.totals()))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})
    goes_on.set()
    await first
    assert (await index.ask(lambda db: db.totals()))["gate"].pictures == 1
    await index.close(60)
    with pytest.raises(IndexUnavailable, match="closed"):
        await index.ask(lambda db: db.totals())


async def test_a_disk_that_does_not_answer_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "ANSWER_S", 0.05)
    running = Running(tmp_path)
    goes_on = threading.Event()
    with pytest.raises(IndexUnavailable, match="did not answer"):
        await running.index.ask(lambda _: goes_on.wait())
    assert names_of(running.events) == ["index.lost"]
    goes_on.set()
    monkeypatch.setattr(index_module, "ANSWER_S", 60)
    await running.index.ask(lambda _: None)
    assert running.index.is_up
    await running.index.close(60)
