"""Which pictures retention chooses: rules, limits, thinning, order."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored import MOMENT

from camserver.archive.database import ArchiveDatabase, ArchivedPicture
from camserver.archive.plan import Plan
from camserver.archive.policy import Policy, Reason, Rules, Thinning, thin_out
from camserver.config import Inventory, load_inventory
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
            count = sum(deletes for deletes, _ in plan.counts_by_time().values())
            before = len(all_of(database))
            carry_out(database, Plan(database, policy, now), 0)
            assert count == before - len(all_of(database))
        kept = {p.taken_ms for p in all_of(database)}
        assert not list(Plan(database, policy, 13_500).by_time())
    newest = max(taken, default=0)
    for mark in {thinning.mark(t) for t in taken}:
        of_mark = [t for t in taken if thinning.mark(t) == mark]
        end_ms = mark * every - every // 2 + every
        if end_ms <= 13_500 - after and end_ms <= newest:
            stays = [t for t in of_mark if t in kept]
            assert stays == [min(of_mark, key=lambda t: (abs(t - mark * every), t))]
        else:  # too young, or the mark of the newest one, which is not complete
            assert set(of_mark) <= kept


def test_marks_are_multiples_from_1970() -> None:
    hourly = Thinning(0, 3_600_000)
    pictures = [ArchivedPicture("a", str(m), m * 60_000, 1) for m in (-29, -3, 4, 31, 58, 62)]
    decided = [(p.path, decided_ms) for p, decided_ms in thin_out(pictures, hourly)]
    assert decided == [("-29", -1_800_000), ("4", -1_800_000), ("31", 1_800_000), ("62", 1_800_000)]


def test_keep_last_does_not_keep_a_mark_open() -> None:
    """A picture a day, keep = one a week: one for each whole week stays, not three."""
    week = 7 * DAY_MS
    policy = Policy(Rules(None, None, 10, (Thinning(week, week),)), {}, None, None)
    with fresh_database() as database:
        for day in range(100):
            database.add([ArchivedPicture("a", f"{day:03}", day * DAY_MS, 1)])
            carry_out(database, Plan(database, policy, day * DAY_MS), 0)
        marks = Counter(Thinning(week, week).mark(p.taken_ms) for p in all_of(database))
    assert all(count == 1 for mark, count in marks.items() if mark <= 11)


def test_a_long_mark_is_thinned_out_in_small_batches() -> None:
    policy = Policy(Rules(None, None, 1, (Thinning(0, 30 * DAY_MS),)), {}, None, None)
    with fresh_database() as database:
        database.add(ArchivedPicture("a", f"{n:06}", n * 1000, 1) for n in range(5000))
        database.add([ArchivedPicture("a", "last", 90 * DAY_MS, 1)])
        batches = list(Plan(database, policy, 100 * DAY_MS).by_time())
    assert max(len(batch.pictures) for batch in batches) == 200
    assert sum(len(batch.pictures) for batch in batches) == 4999


def test_pictures_of_the_future_do_not_unprotect_the_newest() -> None:
    """A wrong clock has made them. They go when the disk is full, after all others."""
    now = 10 * DAY_MS
    policy = Policy(Rules(None, None, 3, ()), {}, None, None)
    with fresh_database() as database:
        database.add(ArchivedPicture("a", f"f{n}", now + (30 + n) * DAY_MS, 1) for n in range(5))
        database.add(ArchivedPicture("a", f"r{n}", now - n * 1000, 1) for n in range(6))
        gone = [
            p.path
            for batch in Plan(database, policy, now).by_size(0, disk_full=True)
            for p in batch.pictures
        ]
    assert gone == ["r5", "r4", "r3", "f0", "f1", "f2", "f3", "f4"]


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
