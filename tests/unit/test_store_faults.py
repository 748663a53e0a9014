"""What the store says when the disk refuses, hangs, or is not the one it was."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from stored import JPEG, MOMENT, stored_attempt

from camserver.config.output import OutputTable
from camserver.host.files import NotRegularFileError, read_regular
from camserver.host.threads import DaemonThreads, call_within
from camserver.model import Attempt, Result
from camserver.storage import SnapshotStore, publish
from camserver.storage.directory import OutputDirectory
from camserver.storage.outcomes import Outcomes, read_outcomes
from camserver.storage.publish import free_number, remove_temporary_files


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # real threads write real files


def facts(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "gate" / "latest.json").read_text())
    return content


@pytest.mark.parametrize("obstacle", ["file", "fifo", "dangling link"])
async def test_what_is_in_the_place_of_a_folder_is_named_and_heals(
    tmp_path: Path, obstacle: str
) -> None:
    """One camera fails with path and reason; another one publishes. Gone, the next is published."""
    place = tmp_path / "gate"
    {
        "file": place.touch,
        "fifo": lambda: os.mkfifo(place),
        "dangling link": lambda: place.symlink_to("x"),
    }[obstacle]()
    outcomes = Outcomes()
    store = SnapshotStore(OutputTable(directory=tmp_path), outcomes)
    first = await store.record(stored_attempt(), 2)
    assert first.attempt.result is Result.STORAGE
    assert str(place) in (first.attempt.error or "")
    known = outcomes.get("gate")
    assert known is not None
    assert known.attempt is not None
    assert (known.attempt.result, known.consecutive_failures) == ("storage", 3)
    assert (await store.record(stored_attempt(camera="yard"), 0)).attempt.ok
    place.unlink()
    assert (await store.record(stored_attempt(), 3)).attempt.ok


@pytest.mark.parametrize("obstacle", ["folder", "fifo", "link"])
async def test_what_is_in_the_place_of_latest_json(tmp_path: Path, obstacle: str) -> None:
    """A folder is named; a FIFO or a link is replaced, and nothing is written where it leads."""
    (tmp_path / "gate").mkdir()
    other = tmp_path / "other"
    other.write_text("a person's")
    place = tmp_path / "gate" / "latest.json"
    {
        "folder": place.mkdir,
        "fifo": lambda: os.mkfifo(place),
        "link": lambda: place.symlink_to(other),
    }[obstacle]()
    outcomes = Outcomes()
    store = SnapshotStore(OutputTable(directory=tmp_path), outcomes)
    attempt = (await store.record(stored_attempt(), 0)).attempt
    if obstacle == "folder":
        assert attempt.result is Result.STORAGE
        assert "does not take latest.json" in (attempt.error or "")
    else:
        assert attempt.ok
        assert facts(tmp_path)["captured_at"] == "2026-01-04T09:30:00.250Z"
    assert other.read_text() == "a person's"
    known = outcomes.get("gate")
    assert known is not None  # the picture is there all the same
    assert known.picture["captured_at"] == "2026-01-04T09:30:00.250Z"


async def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The facts of the last good picture stay known."""
    outcomes = Outcomes()
    store = SnapshotStore(OutputTable(directory=tmp_path), outcomes)
    await store.record(stored_attempt(), 0)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    attempt, disk_full = await store.record(stored_attempt(camera="gate"), 0)
    assert disk_full
    assert attempt.result is Result.STORAGE
    assert "No space left" in (attempt.error or "")
    known = outcomes.get("gate")
    assert known is not None
    assert known.picture["path"] == "2026/01/04/093000.250Z.jpg"
    assert known.attempt is not None
    assert known.attempt.result == "storage"


async def test_a_disk_that_hangs_costs_the_limit_and_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that was given up still ends before the next one of its camera begins.

    The facts are written once: those of the newest attempt.
    """
    answers, waits = threading.Event(), threading.Event()
    replaced: list[str] = []
    outcomes = Outcomes()
    store = SnapshotStore(OutputTable(directory=tmp_path), outcomes, limit_s=0.05)
    real = os.replace

    def hangs(*arguments: str, **_: object) -> None:
        waits.set()
        answers.wait()
        real(*arguments)
        replaced.append(Path(arguments[1]).name)

    monkeypatch.setattr(os, "replace", hangs)
    late = (await store.record(stored_attempt(), 0)).attempt
    assert late.result is Result.STORAGE
    assert "has not taken the picture" in (late.error or "")
    busy = (await store.record(stored_attempt(), 1)).attempt
    assert "is busy with an earlier picture" in (busy.error or "")
    silent = Attempt("gate", MOMENT, Result.TIMEOUT, "gate: silent")
    assert (await store.record(silent, 2)).attempt == silent  # a camera's failure stays one
    assert waits.is_set()
    answers.set()
    await store.close(10.0)
    assert facts(tmp_path)["captured_at"] == "2026-01-04T09:30:00.250Z"
    assert facts(tmp_path)["attempt"]["result"] == "timeout"
    assert replaced == ["latest.jpg", "latest.json"]


async def test_a_disk_that_was_unmounted_takes_nothing(tmp_path: Path) -> None:
    """The folder below the mount point is on another file system: nothing is created there."""
    expected = [tmp_path.stat().st_dev]
    store = SnapshotStore(
        OutputTable(directory=tmp_path / "out"), Outcomes(), file_system=lambda: expected[0]
    )
    assert (await store.record(stored_attempt(), 0)).attempt.ok
    expected[0] += 1
    attempt = (await store.record(stored_attempt(camera="yard"), 0)).attempt
    assert attempt.result is Result.STORAGE
    assert "unmounted" in (attempt.error or "")
    assert not (tmp_path / "out" / "yard").exists()


async def test_new_folders_and_names_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By fsync: each new folder's parent, the archive's folder, the camera's folder after both."""
    flushed: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        flushed.append(str(path.relative_to(tmp_path)) if path.is_dir() else "file")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    store = SnapshotStore(OutputTable(directory=tmp_path), Outcomes())
    await store.record(stored_attempt(), 0)
    made = [".", "gate", "gate/2026", "gate/2026/01"]
    assert flushed == [made[0], "file", *made[1:], "gate/2026/01/04", "file", "gate"]
    flushed.clear()
    await store.record(stored_attempt(), 0)
    assert flushed == ["file", "gate/2026/01/04", "file", "gate"]
    flushed.clear()
    store = SnapshotStore(OutputTable(directory=tmp_path, fsync=False), Outcomes())
    await store.record(stored_attempt(), 0)
    assert flushed == []


async def test_an_earlier_run_is_remembered(tmp_path: Path) -> None:
    """Its picture, attempt and failures, as long as there is nothing newer."""
    store = SnapshotStore(OutputTable(directory=tmp_path), Outcomes())
    await store.record(stored_attempt(), 0)
    await store.record(Attempt("gate", MOMENT, Result.TIMEOUT, "gate: silent", label="silent"), 4)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "latest.json").write_text("{")
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo" / "latest.json")
    for odd in ("5", "[]", '"yesterday"', "null"):
        (tmp_path / "odd").mkdir(exist_ok=True)
        (tmp_path / "odd" / "latest.json").write_text(f'{{"captured_at": {odd}}}')
        assert read_outcomes(tmp_path, ["odd"])["odd"].captured_at is None
    found = read_outcomes(tmp_path, ["gate", "torn", "fifo", "never"])
    assert list(found) == ["gate"]
    assert found["gate"].latest("gate") == facts(tmp_path)
    outcomes = Outcomes(wall=lambda: MOMENT.timestamp() + 30)
    outcomes.attempted(Attempt("gate", MOMENT, Result.AUTH, "gate: no"), 1)
    outcomes.remember(found)
    known = outcomes.get("gate")
    assert known is not None
    assert known.attempt is not None
    assert known.attempt.result == "auth"


def test_an_age_does_not_follow_a_clock_that_is_set() -> None:
    """A picture of this run ages by the clock that nobody can set; an earlier one by the wall."""
    wall, boot = [MOMENT.timestamp() + 2], [1000.0]
    outcomes = Outcomes(wall=lambda: wall[0], boot=lambda: boot[0])
    outcomes.published("gate", {"captured_at": "2026-01-04T09:30:00.250Z"}, MOMENT)
    assert outcomes.age_s("gate") == pytest.approx(2)
    wall[0] += 3600
    boot[0] += 10
    assert outcomes.age_s("gate") == pytest.approx(12)
    assert outcomes.ages_s() == {"gate": pytest.approx(12)}
    assert outcomes.age_s("yard") is None


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"x"
    with pytest.raises(NotRegularFileError, match="not a regular file"):
        read_regular(tmp_path / "fifo")
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nothing")


async def test_a_call_that_hangs_is_given_up() -> None:
    ends = threading.Event()
    with pytest.raises(TimeoutError, match="the disk: no answer"):
        await call_within(0.05, ends.wait, "the disk")
    ends.set()
    assert await call_within(60, lambda: 7, "the disk") == 7


def test_threads_are_used_again_and_no_more_than_allowed() -> None:
    threads, gate = DaemonThreads(2, "few"), threading.Event()
    waiting = [threads.submit(gate.wait)]
    assert len(threads._threads) == 2  # all of them start with the first call
    waiting.append(threads.submit(gate.wait))
    queued = threads.submit(threading.current_thread)
    assert not queued.done()
    gate.set()
    assert all(f.result() for f in waiting)
    assert queued.result().daemon
    threads.shutdown()
    assert len(threads._threads) == 2
    with pytest.raises(RuntimeError):
        threads.submit(print)


def test_a_free_number_is_found_in_few_steps() -> None:
    """Also when old pictures were deleted: any free number will do."""
    asked = []

    def taken(number: int) -> bool:
        asked.append(number)
        return number < 8640

    assert free_number(taken, 0) == 8640
    assert len(asked) < 30
    assert free_number(lambda number: number in {0, 1, 2, 5}, 0) == 3
    assert free_number(lambda _: False, 4) == 4


async def test_pictures_of_one_coarse_name_cost_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One link for each picture, also for the hundredth of the day."""
    links = []
    real = os.link
    monkeypatch.setattr(os, "link", lambda *a: (links.append(a), real(*a)))
    for _ in range(2):  # the second store is that of the next start
        store = SnapshotStore(OutputTable(directory=tmp_path, archive="%Y-%m-%d.jpg"), Outcomes())
        for _ in range(50):
            assert (await store.record(stored_attempt(), 0)).attempt.ok
    assert len(links) == 100
    assert len(list((tmp_path / "gate").glob("2026-01-04*.jpg"))) == 100
    assert facts(tmp_path)["path"] == "2026-01-04-99.jpg"


def test_temporary_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / ".camserver-1-2.tmp").write_bytes(JPEG[:9])
    (tmp_path / "gate" / "mine.tmp").write_bytes(b"a person's")
    assert remove_temporary_files(tmp_path) == 1
    assert [p.name for p in (tmp_path / "gate").iterdir()] == ["mine.tmp"]


async def test_the_stop_waits_for_a_write(tmp_path: Path) -> None:
    store = SnapshotStore(OutputTable(directory=tmp_path), Outcomes())
    poll = asyncio.create_task(store.record(stored_attempt(), 0))
    while not store._writing:
        await asyncio.sleep(0)
    poll.cancel()
    await store.close(60)
    assert facts(tmp_path)["captured_at"] == "2026-01-04T09:30:00.250Z"


@pytest.mark.parametrize(
    "strange", ['{"consecutive_failures": Infinity}', "[" * 100_000, " " * 10**6]
)
async def test_a_strange_latest_json_costs_nothing(tmp_path: Path, strange: str) -> None:
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate/latest.json").write_text(strange)
    assert read_outcomes(tmp_path, ["gate"]) == {}
    store = SnapshotStore(OutputTable(directory=tmp_path), Outcomes())
    assert (await store.record(stored_attempt(), 0)).attempt.ok


async def test_a_picture_that_is_not_published_is_not_archived(tmp_path: Path) -> None:
    """A folder in the place of latest.jpg: otherwise each poll would leave a file."""
    (tmp_path / "gate/latest.jpg").mkdir(parents=True)
    store = SnapshotStore(OutputTable(directory=tmp_path), Outcomes())
    assert (await store.record(stored_attempt(), 0)).attempt.result is Result.STORAGE
    assert not [path for path in tmp_path.rglob("*.jpg") if path.is_file()]


async def test_the_own_lock_is_not_another_daemons(tmp_path: Path) -> None:
    """After one look that failed, as on a network file system."""
    events: list[str] = []
    directory = OutputDirectory(tmp_path / "out", lambda event: events.append(event.EVENT))
    assert await directory.take()
    assert await directory.take()
    other = OutputDirectory(tmp_path / "out", lambda event: events.append(event.EVENT))
    assert not await other.take()
    directory.release()
    assert await other.take()
    other.release()
    assert events == ["daemon.locked"]


async def test_a_lock_that_hangs_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network disk may not answer flock(2), although it is asked not to wait."""
    answers = threading.Event()
    flock = fcntl.flock

    def hanging(file: object, how: int) -> None:
        answers.wait(60)
        flock(file, how)  # type: ignore[arg-type]

    events: list[str] = []
    directory = OutputDirectory(tmp_path / "out", lambda event: events.append(event.EVENT))
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", hanging)
        patched.setattr("camserver.host.lock.DISK_S", 0.2)
        assert await directory.take()  # polling may begin
    assert events == ["output.lost"]
    assert not directory.is_usable
    answers.set()
    while not directory.is_usable:  # until the late call has freed its file
        assert await directory.take()
    directory.release()


async def test_a_folder_whose_name_was_not_flushed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next picture would be told, and be lost with the power."""
    flushed: list[Path] = []

    def fails_once(folder: Path) -> None:
        flushed.append(folder)
        if flushed.count(folder) == 1 and folder.name == "2026":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(publish, "fsync_folder", fails_once)
    store = SnapshotStore(OutputTable(directory=tmp_path), Outcomes())
    assert (await store.record(stored_attempt(), 0)).attempt.result is Result.STORAGE
    assert (await store.record(stored_attempt(), 1)).attempt.ok
    assert flushed.count(tmp_path / "gate/2026") == 2


async def test_a_picture_that_was_not_published_has_no_name_in_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotStore(OutputTable(directory=tmp_path), Outcomes())
    assert (await store.record(stored_attempt(), 0)).attempt.ok

    def fails(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(publish, "fsync_folder", fails)
    later = MOMENT + timedelta(seconds=10)
    assert (await store.record(stored_attempt(later), 0)).attempt.result is Result.STORAGE
    assert [path.name for path in tmp_path.rglob("0*.jpg")] == ["093000.250Z.jpg"]
    assert not list(tmp_path.rglob("*.tmp"))
