"""When the wall clock is believed, so that pictures are deleted by age."""

from __future__ import annotations

import pytest

from camserver.archive.clock_guard import (
    AGREEMENT_S,
    ClockRecord,
    Clocks,
    Doubt,
    confirmed,
    done,
    judge,
    look,
)


def clocks(wall_s: float, boot_s: float, boot: str = "one") -> Clocks:
    return Clocks(wall_s, boot_s, boot)


DAY = 86400.0


def test_a_clock_that_agrees_is_believed() -> None:
    """Also over a restart, over a night off, and while a time server corrects a little."""
    record = look(None, clocks(0, 0), None)
    record = look(record, clocks(300, 300), None)
    record = look(record, clocks(1100, 900), None)
    record = look(record, clocks(1100 + 8 * 3600, 5, "two"), None)
    assert record.doubt is None
    assert look(None, clocks(DAY, 0), DAY - 50).doubt is None


@pytest.mark.parametrize(
    ("now", "doubt", "by_s"),
    [
        (clocks(1000 + 30 * DAY, 100), Doubt.SET, 30 * DAY),
        (clocks(1000 - 3600, 100), Doubt.SET, -3600),
        (clocks(1000 + 30 * DAY, 5, "two"), Doubt.GAP, 30 * DAY),
        (clocks(1000 - 3600, 5, "two"), Doubt.GAP, -3600),
    ],
)
def test_a_clock_that_was_set_is_doubted_for_a_day(now: Clocks, doubt: Doubt, by_s: float) -> None:
    record = look(ClockRecord(1000, 100, "one"), now, None)
    assert (record.doubt, record.by_s) == (doubt, by_s)
    # Over restarts, and over a reboot, whose time does not count
    record = ClockRecord.load(record.stored()) or record
    boot = now.boot_s
    for step in range(1, 289):
        assert record.doubt is doubt
        at = clocks(now.wall_s + 300 * step, boot + 300 * step, now.boot_id)
        record = look(record, at, None)
    assert record.doubt is None
    assert record.confirmed
    assert AGREEMENT_S == 288 * 300


def test_a_reboot_keeps_the_doubt_and_its_time_does_not_count() -> None:
    record = look(ClockRecord(0, 0, "one"), clocks(30 * DAY, 0), None)
    record = look(record, clocks(30.5 * DAY, DAY / 2), None)
    assert record.left_s == DAY / 2
    record = look(record, clocks(31 * DAY, 5, "two"), None)
    assert record.left_s == DAY / 2
    record = look(record, clocks(31.5 * DAY, 5 + DAY / 2, "two"), None)
    assert record.doubt is None


def test_without_a_record_the_newest_picture_stands_in() -> None:
    assert look(None, clocks(40 * DAY, 5), 10 * DAY).doubt is Doubt.GAP
    assert ClockRecord.load(None) is None
    assert ClockRecord.load({"wall_s": 1}) is None


def test_nearly_everything_needs_a_confirmation() -> None:
    """Of one camera, too: a typing error in its own rule."""
    record = ClockRecord(0, 0, "one")
    nearly = [(0, 9000), (412, 422)]
    assert judge(record, nearly).doubt is Doubt.NEARLY_ALL
    assert judge(record, [(300, 422)]).doubt is None
    assert judge(record, [(9, 9)]).doubt is None
    assert judge(record, []).doubt is None
    allowed = confirmed(judge(record, nearly))
    assert judge(allowed, nearly).doubt is None
    assert judge(done(allowed), nearly).doubt is Doubt.NEARLY_ALL


def test_small_steps_add_up() -> None:
    """590 s before each pass: the second one is doubted. Corrections of seconds never are."""
    record, wall = look(None, clocks(0, 0), None), 0.0
    for step in range(1, 4):
        wall += 300 + 290
        record = look(record, clocks(wall, 300.0 * step), None)
    assert record.doubt is Doubt.SET
    record = look(None, clocks(0, 0), None)
    for day in range(1, 366):
        record = look(record, clocks(day * (DAY + 30), day * DAY), None)
    assert record.doubt is None


def test_a_boot_that_begins_again_is_another_boot() -> None:
    """The file that stands for a boot may survive a reboot."""
    assert look(ClockRecord(1000, 500, "one"), clocks(2000, 5, "one"), None).doubt is None
