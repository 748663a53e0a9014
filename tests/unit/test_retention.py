"""Retention on real files: a clock that lies, a full disk, files that are in the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from stored import MOMENT

from camserver.archive import retention as retention_module
from camserver.archive.clock_guard import Clocks
from camserver.archive.database import ArchivedPicture
from camserver.archive.index import ArchiveIndex
from camserver.archive.retention import Retention
from camserver.config import Inventory, load_inventory
from camserver.events import Event
from camserver.storage.naming import ArchiveNames, archive_name

PATTERN = "%Y/%m/%d/%H%M%S.%LZ.jpg"
NAMES = ArchiveNames(PATTERN, "UTC")
NOW_S = MOMENT.timestamp()
DAY_MS = 86_400_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # real threads and files


def picture(camera: str, age_s: float, size: int = 10) -> ArchivedPicture:
    moment = MOMENT - timedelta(seconds=age_s)
    return ArchivedPicture(
        camera, archive_name(PATTERN, moment), round(moment.timestamp() * 1000), size
    )


def inventory_at(folder: Path, text: str) -> Inventory:
    path = folder / "cameras.toml"
    path.write_text(f'[output]\ndirectory = "{folder}/out"\n{text}')
    return load_inventory(path)


def clocks(wall_s: float, boot_s: float, boot: str = "one") -> Clocks:
    return Clocks(wall_s, boot_s, boot)


DAY = 86400.0


class Archive:
    """An archive on disk, with retention at a clock of the test."""

    def __init__(self, folder: Path, text: str) -> None:
        self.inventory = inventory_at(folder, text)
        self.directory = self.inventory.output.directory
        self.events: list[Event] = []
        self.clocks = clocks(NOW_S, 1000.0)
        self.index = ArchiveIndex(
            self.directory / "index", self.directory, NAMES, self.events.append
        )
        self.retention = Retention(
            self.index, self.inventory, self.events.append, lambda: self.clocks
        )

    def write(self, pictures: list[ArchivedPicture]) -> None:
        for each in pictures:
            path = self.directory / each.camera / each.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(each.bytes))
            (path.parents[3] / "latest.json").touch()

    async def make_pass(self, *, full: bool = False) -> list[str]:
        if not self.index.scan.complete:
            await self.index._scan(NAMES)
        self.events.clear()
        await self.retention._pass(disk_full=full)
        return [event.EVENT for event in self.events]

    def files(self, camera: str = "gate") -> int:
        return len(list((self.directory / camera).rglob("*Z.jpg")))


async def test_old_pictures_go_and_nothing_else(tmp_path: Path) -> None:
    """Folders that become empty go, too; files of a person stay."""
    archive = Archive(tmp_path, '[retention]\nmax_age = "1d"\nkeep_last = 1\nmin_free = "0B"')
    archive.write([picture("gate", age * 3600) for age in range(40)])
    archive.write([picture("yard", 40 * 3600)])
    holiday = archive.directory / "gate/2026/01/02/holiday.jpg"
    holiday.parent.mkdir(exist_ok=True)
    holiday.touch()
    (archive.directory / "gate/latest.jpg").touch()
    assert await archive.make_pass() == ["retention.deleted"]
    assert archive.files() == 25
    assert archive.files("yard") == 1
    assert holiday.exists()
    assert (archive.directory / "gate/latest.jpg").exists()
    assert archive.retention.totals == (26, 260)
    assert await archive.make_pass() == []


async def test_a_start_with_the_clock_30_days_ahead_deletes_nothing(tmp_path: Path) -> None:
    """The attack of 2026-11-25: 412 pictures went. A person confirms, or the day passes."""
    archive = Archive(tmp_path, '[retention]\nmax_age = "7d"\nmin_free = "0B"')
    archive.write([picture("gate", age * 60) for age in range(422)])
    assert await archive.make_pass() == []
    archive.clocks = clocks(NOW_S + 30 * DAY, 1010.0)
    assert await archive.make_pass() == ["retention.held"]
    assert archive.files() == 422
    assert archive.retention.held is not None
    again = Archive(tmp_path, '[retention]\nmax_age = "7d"\nmin_free = "0B"')  # a restart
    again.clocks = clocks(NOW_S + 30 * DAY + 60, 1070.0)
    assert await again.make_pass() == ["retention.held"]
    assert await again.retention.confirm() == "the clock was set"
    assert await again.retention.confirm() is None
    assert await again.make_pass() == ["retention.resumed", "retention.deleted"]
    assert again.files() == 10


async def test_a_clock_that_is_set_before_the_first_pass_deletes_nothing(tmp_path: Path) -> None:
    """As on a host without a clock of its own, which gets the time soon after it starts."""
    archive = Archive(tmp_path, '[retention]\nmax_age = "30min"\nmin_free = "0B"')
    archive.write([picture("gate", age) for age in range(8)])
    archive.clocks = clocks(NOW_S + 3600, 1010.0)
    assert await archive.make_pass() == ["retention.held"]
    assert archive.files() == 8


async def test_a_new_rule_that_takes_nearly_everything_waits(tmp_path: Path) -> None:
    archive = Archive(tmp_path, '[retention]\nmax_age = "1h"\nmin_free = "0B"')
    archive.write([picture("gate", age * 600) for age in range(422)])
    assert await archive.make_pass() == ["retention.held"]
    archive.clocks = clocks(NOW_S + DAY, 1000 + DAY)
    assert await archive.make_pass() == ["retention.resumed", "retention.deleted"]
    assert archive.files() == 10


@pytest.mark.parametrize("index", [True, False])
async def test_a_full_disk_loses_the_oldest_whatever_it_says(tmp_path: Path, index: bool) -> None:
    """Also without an index, which can't be made on a full disk. Never the newest."""
    archive = Archive(tmp_path, "[retention]\nkeep_last = 30\nmin_free = 0")
    archive.write([picture("gate", age) for age in range(0, 600, 2)])
    archive.write([picture("yard", age) for age in range(1, 31, 2)])
    if not index:
        (archive.directory / "index").mkdir()
        await archive.retention._pass(disk_full=True)
    else:
        await archive.make_pass(full=True)
    assert archive.files() == 100
    assert archive.files("yard") == 15
    await archive.retention._pass(disk_full=True)
    assert archive.files() == 30
    await archive.retention._pass(disk_full=True)
    assert archive.files() == 30


async def test_a_limit_that_the_disk_can_never_meet_is_ignored(tmp_path: Path) -> None:
    archive = Archive(tmp_path, '[retention]\nmin_free = "1000000GB"\nkeep_last = 1')
    archive.write([picture("gate", age) for age in range(30)])
    assert await archive.make_pass() == ["retention.impossible"]
    assert await archive.make_pass() == []
    assert archive.files() == 30


async def test_a_file_that_cannot_be_deleted_is_named_and_stops_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path, '[retention]\nmax_age = "1h"\nkeep_last = 1\nmin_free = 0')
    archive.write([picture("gate", age * 3600) for age in range(10)])
    blocked = archive.directory / "gate" / picture("gate", 9 * 3600).path
    await archive.index._scan(NAMES)
    blocked.unlink()
    blocked.mkdir()
    assert await archive.make_pass() == ["retention.deleted", "retention.failed"]
    assert archive.files() == 3  # two young ones, and the folder
    assert str(blocked) in archive.events[-1].text


async def test_a_picture_that_a_person_deleted_is_no_fault(tmp_path: Path) -> None:
    archive = Archive(tmp_path, '[retention]\nmax_age = "1h"\nkeep_last = 1\nmin_free = 0')
    archive.write([picture("gate", age * 3600) for age in range(10)])
    await archive.index._scan(NAMES)
    (archive.directory / "gate" / picture("gate", 9 * 3600).path).unlink()
    assert await archive.make_pass() == ["retention.deleted"]
    assert archive.retention.totals.pictures == 2


async def test_a_short_age_makes_passes_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each pass would delete nearly everything, and wait for a confirmation."""
    archive = Archive(tmp_path, '[retention]\nmax_age = "8s"\nmin_free = 0')
    waits: list[float] = []
    passes = 0

    async def one(_: Retention, *, disk_full: bool) -> None:
        nonlocal passes
        passes += 1

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if passes == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(Retention, "_pass", one)
    monkeypatch.setattr(retention_module.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await archive.retention.run()
    assert waits == [retention_module.FULL_DISK_PAUSE_S] * 3


async def test_the_doubt_survives_the_index(tmp_path: Path) -> None:
    """The index may be deleted at any time. The clock's file is beside it."""
    text = '[retention]\nmax_age = "7d"\nmin_free = "0B"'
    archive = Archive(tmp_path, text)
    archive.write([picture("gate", age * 60) for age in range(422)])
    await archive.make_pass()
    archive.clocks = clocks(NOW_S + 30 * DAY, 1010.0)
    assert await archive.make_pass() == ["retention.held"]
    for file in archive.directory.glob("index*"):
        if not file.name.endswith(".clock"):
            file.unlink()
    again = Archive(tmp_path, text)
    again.clocks = clocks(NOW_S + 30 * DAY + 60, 1070.0)
    assert await again.make_pass() == ["retention.held"]
    assert again.files() == 422


async def test_what_was_refused_is_thinned_out_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(
        tmp_path, '[retention]\nmin_free = 0\nkeep_last = 1\nkeep = [{after = "1d", every = "1h"}]'
    )
    archive.write([picture("gate", 2 * DAY + age * 600) for age in range(40)])
    archive.write([picture("gate", 0)])
    real = Path.unlink

    def refuses(path: Path, *, missing_ok: bool = False) -> None:
        if path.suffix == ".jpg":
            raise PermissionError(13, "Permission denied")
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuses)
        assert await archive.make_pass() == ["retention.failed"]
    assert archive.files() == 41
    assert await archive.make_pass() == ["retention.deleted"]
    assert archive.files() <= 10
