"""Pictures on disk: never partial, facts beside them, what is kept and what goes."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image
from stored import MOMENT, stored_attempt

from camserver.config.output import OutputTable
from camserver.model import Attempt, Result
from camserver.storage import SnapshotStore
from camserver.storage.naming import archive_name, archive_regex, numbered
from camserver.storage.outcomes import Outcomes


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
        "health": None,
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


@pytest.mark.parametrize(
    "pattern", ["%Y/%m/%d/%H%M%S.%LZ.jpg", "%Y%m%d-%H%M%S.jpg", "%A/100%%-%s.jpg"]
)
def test_a_name_is_known_again(pattern: str) -> None:
    regex = archive_regex(pattern)
    for number in (0, 3):
        assert regex.fullmatch(numbered(archive_name(pattern, MOMENT), number))
    assert not regex.fullmatch("latest.jpg")
