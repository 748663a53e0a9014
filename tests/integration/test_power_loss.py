"""What a daemon leaves when the power is lost: its calls to a disk, replayed up to any of them.

The daemon publishes to a FUSE file system, which notes each call. `power_loss` says what may be on
the disk after each of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path

import pytest
import simplejpeg
from house import House, StartFleet
from namespaced import daemon_in_namespace, in_namespace, result, until
from power_loss import Call, Disk, read_trace

from camserver.simulator.camera import SimulatedCamera
from camserver.storage.exif import captured_at

TRACED_DISK = Path(__file__).parent.parent / "traced_disk.py"
MARKS = 3
pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.W_OK) or os.geteuid() != 0, reason="needs root and /dev/fuse"
)


async def traced(house: House, folder: Path) -> tuple[list[Call], list[datetime]]:
    """The calls of a daemon that publishes, and which picture it gave before each mark in them.

    A mark is the folder /mark-N, which the test makes.
    """
    backing, mounted, trace = folder / "backing", folder / "disk", folder / "trace"
    backing.mkdir()
    mounted.mkdir()
    trace.touch()
    program = f"{sys.executable} {TRACED_DISK} {backing} {mounted} {trace}"
    mount = (
        f"{{ setpriv --pdeathsig=KILL {program} & }}"
        f" && while ! mountpoint -q {mounted}; do sleep 0.05; done"
    )
    more = 'fsync = true\nindex = "../index"'
    told: list[datetime] = []
    async with daemon_in_namespace(folder, house, str(mounted), mount, more) as (process, client):
        await until(lambda: result(client, "gate") == "ok")
        for number in range(MARKS):
            picture = await asyncio.to_thread(client.snapshot, "gate")
            in_namespace(process, f"mkdir {mounted}/mark-{number}")
            told.append(moment_of(picture.jpeg))
        process.terminate()
        assert await process.wait() == 0
    return read_trace(trace), told


@cache
def moment_of(jpeg: bytes) -> datetime:
    """When a whole picture was taken. Raises ValueError for one that is not whole."""
    simplejpeg.decode_jpeg(jpeg)
    moment = captured_at(jpeg)
    assert moment is not None
    return moment


def faults_of(files: dict[str, bytes], told: datetime | None) -> Iterator[str]:
    """What is wrong with the files of a camera after a loss.

    `told`: a program knows that a picture of this moment was published.
    """
    try:
        pictures = {path: moment_of(data) for path, data in files.items() if path.endswith(".jpg")}
        facts = json.loads(files.get("/gate/latest.json", b"{}"))
    except ValueError:
        yield "a file is not whole"
        return
    latest = pictures.pop("/gate/latest.jpg", None)
    if facts.get("captured_at"):
        described = datetime.fromisoformat(facts["captured_at"])
        if described not in (latest, *pictures.values()):
            yield "latest.json is of a picture that is not there"
        if latest is None or described > latest:
            yield "latest.json is newer than latest.jpg"
    if told and (latest is None or latest < told):
        yield "latest.jpg is older than what was told"
    if told and told not in pictures.values():
        yield "a picture that was told is not in the archive"


def faults(calls: list[Call], told: list[datetime]) -> set[str]:
    """Everything that may be wrong after a loss, at any moment."""
    disk, known, found = Disk(), None, set()
    for call in calls:
        name, arguments = call
        if name == "mkdir" and "/mark-" in arguments[0]:
            known = told[int(arguments[0].rpartition("-")[2])]
            continue  # the mark is the test's own
        disk.apply(call)
        if name == "write":
            continue  # half of it may be there: as if it had not been flushed
        for files in disk.after_loss("/gate"):
            found.update(faults_of(files, known))
    return found


async def test_whatever_the_disk_had_not_yet_pictures_are_whole_and_what_was_told_is_there(
    tmp_path: Path, fleet: StartFleet
) -> None:
    house = await fleet([SimulatedCamera("gate", "Gate", gop=2)])
    calls, told = await traced(house, tmp_path)
    assert sum(name == "rename" for name, _ in calls) >= 2 * MARKS
    assert faults(calls, told) == set()
    # The model finds what is missing: each flush is needed
    flushed = {call for call in calls if call[0] == "fsyncdir"}
    assert len(flushed) >= 5  # of the output, the camera, the year, the month and the day
    for flush in flushed:
        assert faults([call for call in calls if call != flush], told), flush
    without_contents = [call for call in calls if call[0] != "fsync"]
    assert "a file is not whole" in faults(without_contents, told)
