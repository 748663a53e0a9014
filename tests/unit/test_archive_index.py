"""The index of the archive: rows, questions, and scans of real files."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from archived import NAMES, row, rows_of, scan, write
from stored import JPEG, MOMENT

from camserver.archive.database import ArchiveDatabase
from camserver.archive.scan import ArchiveScan, ScanPosition, oldest_files, walk
from camserver.storage.exif import with_exif
from camserver.storage.naming import ArchiveNames


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # real threads and files


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
    assert database.kept_from("gate", 10, 2**62) == row("gate", 1990).taken_ms
    assert database.kept_from("yard", 2, 2**62) is None
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
    database.kept_from("gate", 1, 2**62)
    database.count_between("gate", 0, 1)
    database.between("gate", 0, 1, 1)
    database.sizes("gate", "", None, 9)
    database.remove([row("gate", 1)])
    database._db.set_trace_callback(None)
    questions = [text for text in asked if "picture" in text and not text.startswith("INSERT")]
    assert len(questions) >= 6
    for text in questions:
        plan = [step[3] for step in database._db.execute(f"EXPLAIN QUERY PLAN {text}")]
        assert plan
        assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step], text


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
