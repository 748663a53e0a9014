"""What retention deletes: rules, thinning, order; a clock that lies; files that are in the way."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored import MOMENT

from camserver.archive import retention as retention_module
from camserver.archive.clock_guard import Clocks
from camserver.archive.database import ArchiveDatabase, ArchivedPicture
from camserver.archive.index import ArchiveIndex
from camserver.archive.plan import Plan
from camserver.archive.policy import Policy, Reason, Rules, Thinning, thin_out
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


def all_of(database: ArchiveDatabase) -> list[ArchivedPicture]:
    return [p for camera in database.totals() for p in database.oldest(camera, -(2**62), 2**62)]


def carry_out(database: ArchiveDatabase, plan: Plan, free: int, *, full: bool = False) -> list[Any]:
    """Delete what a plan says, in the index. Returns (reason, picture) in order."""
    deleted: list[Any] = []
    for step in (plan.by_time, lambda: plan.by_size(free, disk_full=full)):
        for batch in step():
            database.remove(batch.pictures)
            if batch.thinned is not None:
                database.set_fact(*batch.thinned)
            deleted += [(batch.reason, p) for p in batch.pictures]
    return deleted


@contextlib.contextmanager
def fresh_database() -> Iterator[ArchiveDatabase]:
    """An empty index for one example of hypothesis."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        database = ArchiveDatabase(Path(folder) / "index")
        yield database
        database.close()


times = st.integers(0, 1000)
limits = st.none() | st.integers(0, 3000)


@given(
    st.lists(st.tuples(times, st.integers(1, 100), st.sampled_from("abc")), max_size=60),
    st.none() | times,
    limits,
    limits,
    limits,
    st.integers(1, 5),
    st.booleans(),
)
def test_every_limit_is_met_and_the_newest_stay(
    rows: list[tuple[int, int, str]],
    age: int | None,
    own_bytes: int | None,
    total: int | None,
    free: int | None,
    keep: int,
    full: bool,
) -> None:
    """keep_last is never touched. Every other limit is met, or nothing more could go.

    A dry run names the same pictures, and changes nothing.
    """
    files = [ArchivedPicture(c, f"{i:03}", t, b) for i, (t, b, c) in enumerate(rows)]
    rules = Rules(age, None, keep, ())
    policy = Policy(rules, {"a": Rules(age, own_bytes, keep, ())}, total, free)
    with fresh_database() as database:
        database.add(files)
        dry = Plan(database, policy, 1000, dry_run=True)
        batches = [*dry.by_time(), *dry.by_size(1000, disk_full=full)]
        would = [(batch.reason, p) for batch in batches for p in batch.pictures]
        assert sorted(all_of(database)) == sorted(files)
        deleted = carry_out(database, Plan(database, policy, 1000), 1000, full=full)
        kept = all_of(database)
    gone = [p for _, p in deleted]
    assert sorted(gone) == sorted(p for _, p in would)
    assert sorted(kept + gone) == sorted(files)

    def is_spare(p: ArchivedPicture) -> bool:
        newest = sorted(f.taken_ms for f in files if f.camera == p.camera)[-keep:]
        return len(newest) == keep and p.taken_ms < newest[0]

    assert all(is_spare(p) for p in gone)
    spare = [p for p in kept if is_spare(p)]
    if spare:
        assert age is None or all(1000 - p.taken_ms <= age for p in spare)
        assert total is None or sum(p.bytes for p in kept) <= total
        freed = sum(p.bytes for p in gone)
        assert free is None or 1000 + freed >= free
        assert not full
        for_all = [p for r, p in deleted if r in (Reason.TOTAL_BYTES, Reason.FREE_SPACE)]
        assert not for_all or max(p.taken_ms for p in for_all) <= min(p.taken_ms for p in spare)
    if own_bytes is not None and any(p.camera == "a" for p in spare):
        assert sum(p.bytes for p in kept if p.camera == "a") <= own_bytes


@given(
    st.lists(st.integers(0, 10_000), unique=True, max_size=80),
    st.integers(1, 700),
    st.integers(0, 3000),
)
def test_thinning_keeps_the_nearest_to_each_mark(taken: list[int], every: int, after: int) -> None:
    """Whatever the steps in which time passes: for each mark of old pictures, the nearest stays."""
    thinning = Thinning(after, every)
    policy = Policy(Rules(None, None, 1, (thinning,)), {}, None, None)
    files = [ArchivedPicture("a", f"{t:06}", t, 1) for t in taken]
    with fresh_database() as database:
        database.add(files)
        for now in range(0, 14_000, 1500):
            plan = Plan(database, policy, now)
            count, before = plan.count_by_time(), len(all_of(database))
            carry_out(database, Plan(database, policy, now), 0)
            assert count == before - len(all_of(database))
        kept = {p.taken_ms for p in all_of(database)}
        assert not list(Plan(database, policy, 13_500).by_time())
    newest = max(taken, default=0)
    for mark in {thinning.mark(t) for t in taken}:
        of_mark = [t for t in taken if thinning.mark(t) == mark and t < newest]
        old = mark * every - every // 2 + every <= 13_500 - after
        if old and of_mark:
            stays = [t for t in of_mark if t in kept]
            assert stays == [min(of_mark, key=lambda t: (abs(t - mark * every), t))]
        elif not old:
            assert set(of_mark) <= kept


def test_marks_are_multiples_from_1970() -> None:
    hourly = Thinning(0, 3_600_000)
    pictures = [ArchivedPicture("a", str(m), m * 60_000, 1) for m in (-29, -3, 4, 31, 58, 62)]
    decided = list(thin_out(pictures, hourly))
    assert [[p.path for p in gone] for gone, _ in decided] == [["-29", "4"], ["31", "62"]]
    assert [end for _, end in decided] == [1_800_000, 5_400_000]


def test_two_steps_of_thinning_and_what_a_day_costs(tmp_path: Path) -> None:
    """Keep 1 h after 7 days and 1 day after 90: a later pass looks only at what came of age."""
    policy = Policy(
        Rules(None, None, 10, (Thinning(7 * DAY_MS, 3_600_000), Thinning(90 * DAY_MS, DAY_MS))),
        {},
        None,
        None,
    )
    database = ArchiveDatabase(tmp_path / "index")
    start = round(NOW_S * 1000) // DAY_MS * DAY_MS
    database.add(ArchivedPicture("a", f"{n:06}", start - n * 600_000, 1) for n in range(144 * 100))
    carry_out(database, Plan(database, policy, start), 0)
    ages = [(start - p.taken_ms) / DAY_MS for p in all_of(database)]
    assert sum(age > 91 for age in ages) == 9
    assert sum(7.1 < age < 90 for age in ages) == pytest.approx(24 * 82.9, abs=26)
    assert sum(age < 6.9 for age in ages) == pytest.approx(144 * 6.9, abs=2)
    asked: list[str] = []
    database._db.set_trace_callback(asked.append)
    day = list(Plan(database, policy, start + DAY_MS).by_time())
    assert sum(len(b.pictures) for b in day) == pytest.approx(5 * 24 + 23, abs=8)
    assert len(asked) < 60


def inventory_at(folder: Path, text: str) -> Inventory:
    path = folder / "cameras.toml"
    path.write_text(f'[output]\ndirectory = "{folder}/out"\n{text}')
    return load_inventory(path)


def test_rules_of_cameras_profiles_and_all_others(tmp_path: Path) -> None:
    inventory = inventory_at(
        tmp_path,
        '[retention]\nmax_age = "7d"\nkeep_last = 3\nmax_bytes = "1GB"\n'
        'keep = [{after = "1d", every = "1h"}]\n'
        '[profiles.long]\nretention = {max_age = "90d", keep = []}\n'
        '[[camera]]\nid = "a"\nurl = "rtsp://x/"\n'
        '[[camera]]\nid = "b"\nurl = "rtsp://y/"\nprofile = "long"\n'
        '[[camera]]\nid = "c"\nurl = "rtsp://z/"\nretention = {max_bytes = "1MB", keep_last = 1}\n',
    )
    policy = Policy.of(inventory)
    hourly = (Thinning(DAY_MS, 3_600_000),)
    assert policy.rules("a") == policy.rules("left") == Rules(7 * DAY_MS, None, 3, hourly)
    assert policy.rules("b") == Rules(90 * DAY_MS, None, 3, ())
    assert policy.rules("c") == Rules(7 * DAY_MS, 1_000_000, 1, hourly)
    assert policy.max_bytes == 10**9
    assert policy.shortest_age_s == 86400


def clocks(wall_s: float, boot_s: float, boot: str = "one") -> Clocks:
    return Clocks(wall_s, boot_s, boot)


DAY = 86400.0


# ---- with files


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
