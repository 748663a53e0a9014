"""Pictures on disk: never partial, facts beside them, what is kept and what goes."""

from __future__ import annotations

import asyncio
import io
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stored import MOMENT, stored_attempt

from camserver.config.model import OutputTable, RetentionTable
from camserver.model import Attempt, Result
from camserver.storage import Janitor, SnapshotStore
from camserver.storage.naming import archive_name, archive_regex, numbered
from camserver.storage.outcomes import Outcomes
from camserver.storage.retention import Archived, choose


def store(folder: Path, **output: object) -> SnapshotStore:
    return SnapshotStore(
        OutputTable(directory=folder, **output),  # type: ignore[arg-type]
        Outcomes(),
        clock=lambda: MOMENT + timedelta(seconds=1),
    )


def test_one_write_two_names(tmp_path: Path) -> None:
    """latest.jpg and the archive are one file.

    Facts and EXIF say when and what; no temporary file stays.
    """
    asyncio.run(store(tmp_path).record(stored_attempt(), 0))
    latest = tmp_path / "gate" / "latest.jpg"
    facts = json.loads((tmp_path / "gate" / "latest.json").read_text())
    assert facts["path"] == "2026/01/04/093000.250Z.jpg"
    assert latest.samefile(tmp_path / "gate" / facts["path"])
    assert facts | {"path": ""} == {
        "camera": "gate",
        "captured_at": "2026-01-04T09:30:00.250Z",
        "published_at": "2026-01-04T09:30:01.250Z",
        "source": "rtsp",
        "width": 32,
        "height": 16,
        "bytes": latest.stat().st_size,
        "codec": "h264",
        "path": "",
        "camera_clock_offset_s": None,
        "capture_ms": 140.0,
        "lease_wait_ms": 1.5,
        "engine": "native",
        "attempt": {"at": "2026-01-04T09:30:00.250Z", "result": "ok", "error": None, "label": "ok"},
        "consecutive_failures": 0,
    }
    with Image.open(io.BytesIO(latest.read_bytes())) as image:
        image.load()
        exif = image.getexif()
        details = exif.get_ifd(0x8769)
    # UTF-8, as Exif readers take it today; Pillow reads ASCII fields as Latin-1
    assert (
        exif[0x010E].encode("latin-1").decode(),
        details[0x9003],
        details[0x9291],
        details[0x9011],
    ) == ("Tür ü", "2026:01:04 09:30:00", "250", "+00:00")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_failure_keeps_the_last_good_picture_and_its_facts(tmp_path: Path) -> None:
    """Also across a restart of the store."""
    asyncio.run(store(tmp_path).record(stored_attempt(), 0))
    failed = Attempt("gate", MOMENT + timedelta(hours=1), Result.TIMEOUT, "gate: silent")
    asyncio.run(store(tmp_path).record(failed, 4))
    facts = json.loads((tmp_path / "gate" / "latest.json").read_text())
    assert facts["captured_at"] == "2026-01-04T09:30:00.250Z"
    assert facts["attempt"] == {
        "at": "2026-01-04T10:30:00.250Z",
        "result": "timeout",
        "error": "gate: silent",
        "label": "gate: silent",
    }
    assert facts["consecutive_failures"] == 5
    assert (tmp_path / "gate" / "latest.jpg").exists()


def test_two_pictures_of_one_moment_both_stay(tmp_path: Path) -> None:
    s = store(tmp_path)

    async def twice() -> None:
        await s.record(stored_attempt(), 0)
        await s.record(stored_attempt(), 0)

    asyncio.run(twice())
    assert sorted(p.name for p in (tmp_path / "gate/2026/01/04").iterdir()) == [
        "093000.250Z-1.jpg",
        "093000.250Z.jpg",
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.integers(1, 100), st.sampled_from("abc")), max_size=60
    ),
    st.none() | st.integers(0, 1000),
    st.none() | st.integers(0, 3000),
    st.none() | st.integers(0, 3000),
    st.integers(1, 5),
)
def test_retention_keeps_the_newest_and_meets_the_limits(
    rows: list[tuple[int, int, str]],
    age: int | None,
    most: int | None,
    free: int | None,
    keep: int,
) -> None:
    """keep_last is never touched.

    Every other limit is met or nothing more could go; the oldest go first.
    """
    files = [Archived(t, b, c, Path(f"{i}")) for i, (t, b, c) in enumerate(rows)]
    policy = RetentionTable(max_age=age, max_bytes=most, min_free=free, keep_last=keep)
    gone = choose(files, policy, now=1000, free_bytes=1000)
    kept = sorted(set(files) - set(gone))
    for c in "abc":
        newest = sorted(f for f in files if f.camera == c)[-keep:]
        assert set(newest) <= set(kept)
    spare = [
        f
        for f in kept
        if f not in [n for c in "abc" for n in sorted(f for f in files if f.camera == c)[-keep:]]
    ]
    if spare:
        assert age is None or all(1000 - f.taken_at <= age for f in spare)
        assert most is None or sum(f.bytes for f in kept) <= most
        assert free is None or 1000 + sum(f.bytes for f in gone) >= free
        assert not gone or max(gone) <= min(spare)


def test_the_janitor_deletes_only_what_the_pattern_could_have_named(tmp_path: Path) -> None:
    output = OutputTable(directory=tmp_path)
    day = tmp_path / "gate" / "2026" / "01" / "04"
    day.mkdir(parents=True)
    for name in ("090000.000Z.jpg", "100000.000Z.jpg", "holiday.jpg"):
        (day / name).write_bytes(b"x")
        os.utime(day / name, (0, 0))
    (tmp_path / "gate" / "latest.json").write_text("{}")
    strange = tmp_path / "My Holiday" / "2026" / "01" / "04"
    strange.mkdir(parents=True)
    for name in ("090000.000Z.jpg", "100000.000Z.jpg"):
        (strange / name).write_bytes(b"x")
        os.utime(strange / name, (0, 0))
    for name in ("latest.jpg", "mine.jpg"):
        (tmp_path / "gate" / name).write_bytes(b"x")
        os.utime(tmp_path / "gate" / name, (0, 0))
    janitor = Janitor(
        output, RetentionTable(max_age=60, min_free=None, keep_last=1), lambda _: None
    )
    assert janitor.sweep(now=10_000) == (1, 1)
    assert len(list(strange.iterdir())) == 2
    assert sorted(p.name for p in (tmp_path / "gate").rglob("*.jpg")) == [
        "100000.000Z.jpg",
        "holiday.jpg",
        "latest.jpg",
        "mine.jpg",
    ]


@pytest.mark.parametrize(
    "pattern", ["%Y/%m/%d/%H%M%S.%LZ.jpg", "%Y%m%d-%H%M%S.jpg", "%A/100%%-%s.jpg"]
)
def test_a_name_is_known_again(pattern: str) -> None:
    regex = archive_regex(pattern)
    for number in (0, 3):
        assert regex.fullmatch(numbered(archive_name(pattern, MOMENT), number))
    assert not regex.fullmatch("latest.jpg")
