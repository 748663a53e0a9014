"""The daemon and disks that refuse, hang, fill up or are taken away; a real tmpfs where it can be.

Mounts are made in a mount namespace of the test's own (unshare), which ends with the daemon.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from house import House, StartFleet
from namespaced import (
    NEEDS_ROOT,
    daemon_in_namespace,
    in_namespace,
    metrics,
    outcome,
    result,
    until,
)

from camserver.leases.journal import load as load_journal
from camserver.simulator.camera import SimulatedCamera

pytestmark = NEEDS_ROOT


@pytest.fixture
async def house(fleet: StartFleet) -> House:
    return await fleet([SimulatedCamera(c, c, gop=2) for c in ("gate", "yard")])


async def test_a_full_disk_is_told_by_every_door(tmp_path: Path, house: House) -> None:
    """Result, failures and exit status come from memory; the last good picture stays served."""
    async with daemon_in_namespace(
        tmp_path,
        house,
        f"{tmp_path}/disk",
        f"mkdir {tmp_path}/disk && mount -t tmpfs -o size=2m none {tmp_path}/disk",
        more='archive = ""\n[retention]\nmin_free = "0B"',
    ) as (process, client):
        await until(lambda: result(client, "gate") == result(client, "yard") == "ok")
        captured_at = outcome(client, "gate")["captured_at"]
        in_namespace(process, f"cat /dev/zero > {tmp_path}/disk/filler 2>/dev/null || true")
        await until(lambda: result(client, "gate") == result(client, "yard") == "storage")
        told = outcome(client, "gate")
        assert "No space left" in told["attempt"]["error"]
        assert told["captured_at"] >= captured_at
        await until(lambda: outcome(client, "gate")["consecutive_failures"] >= 2)
        status = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "camserver", "status", "--json"),
            *("--config", str(tmp_path / "c.toml")),
            stdout=asyncio.subprocess.PIPE,
        )
        said = json.loads((await status.communicate())[0])["cameras"]
        assert {camera["result"] for camera in said} == {"storage"}
        assert all(camera["failures"] for camera in said)
        assert status.returncode == 1
        in_namespace(process, f"rm {tmp_path}/disk/filler")
        await until(lambda: result(client, "gate") == result(client, "yard") == "ok")
        process.terminate()
        assert await process.wait() == 0


async def test_fifos_everywhere_cost_one_camera_and_no_stop(tmp_path: Path, house: House) -> None:
    """In the place of latest.json, latest.jpg, a folder, the journal, an include; then SIGTERM."""
    out = tmp_path / "out"
    for fifo in ("out/gate/latest.json", "out/gate/latest.jpg", "out/yard", "run/api.leases"):
        (tmp_path / fifo).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / fifo)
    async with daemon_in_namespace(tmp_path, house, str(out)) as (process, client):
        await until(lambda: result(client, "gate") == "ok")
        await until(lambda: result(client, "yard") == "storage")
        assert f"{out}/yard" in outcome(client, "yard")["attempt"]["error"]
        os.mkfifo(tmp_path / "fifo.toml")
        config = tmp_path / "c.toml"
        config.write_text('include = ["*.toml"]\n' + config.read_text())
        await until(lambda: "fifo.toml" in (tmp_path / "log").read_text())
        started = asyncio.get_running_loop().time()
        process.terminate()
        assert await process.wait() == 0
        assert asyncio.get_running_loop().time() - started < 10
    assert "fifo.toml: cannot be read: it is not a regular file" in (tmp_path / "log").read_text()


async def test_a_lock_that_is_a_fifo_is_named(tmp_path: Path, house: House) -> None:
    """The daemon polls without it, and takes the lock when it can."""
    out = tmp_path / "out"
    out.mkdir()
    os.mkfifo(out / ".camserver.lock")
    async with daemon_in_namespace(tmp_path, house, str(out)) as (process, client):
        await until(lambda: result(client, "gate") == "ok")
        log = (tmp_path / "log").read_text()
        assert f"{out} cannot be locked: it is not a regular file" in log
        (out / ".camserver.lock").unlink()
        await until(lambda: "can be used again" in (tmp_path / "log").read_text())
        process.terminate()
        assert await process.wait() == 0


async def test_a_disk_that_is_unmounted_takes_nothing_below(tmp_path: Path, house: House) -> None:
    """Nothing is written to the disk below; mounted again, pictures go there again."""
    elsewhere, disk = tmp_path / "elsewhere", tmp_path / "disk"
    disk.mkdir()
    elsewhere.mkdir()
    # The mount is moved away and back: the same file system, as a disk that is mounted again
    mount = f"mount --make-rprivate / && mount -t tmpfs none {disk} && mkdir {disk}/out"
    async with daemon_in_namespace(tmp_path, house, f"{disk}/out", mount) as (process, client):
        await until(lambda: result(client, "gate") == result(client, "yard") == "ok")
        in_namespace(process, f"mount --move {disk} {elsewhere}")
        await until(lambda: result(client, "gate") == result(client, "yard") == "storage")
        assert "unmounted" in outcome(client, "gate")["attempt"]["error"]
        assert not list(disk.iterdir())
        await until(lambda: "is on another file system" in (tmp_path / "log").read_text())
        assert "camserver_disk_up 0.0" in metrics(tmp_path)
        in_namespace(process, f"mount --move {elsewhere} {disk}")
        await until(lambda: result(client, "gate") == result(client, "yard") == "ok")
        await until(lambda: "can be used again" in (tmp_path / "log").read_text())
        process.terminate()
        assert await process.wait() == 0


JOURNAL = """
import errno, os, sys
from pathlib import Path
from camserver.leases.journal import JournalState, LeaseJournal, load
from camserver.leases.ticket import SessionEntry
path = Path(sys.argv[1]) / "api.leases"
journal = LeaseJournal(path, lambda event: print(event.EVENT, flush=True))
journal.rewrite(JournalState())
filler = os.open(path.parent / "filler", os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(filler, bytes(4096))
except OSError as error:
    assert error.errno == errno.ENOSPC
for number in range(int(sys.argv[2])):
    journal.session(SessionEntry("d", number + 1, external=False, cooling_until=None))
    if journal.is_due:
        journal.rewrite(load(path))
if sys.argv[3] == "room again":
    os.ftruncate(filler, 0)
    while not journal.is_written:
        if journal.is_due:
            journal.rewrite(JournalState())
os._exit(9)  # as kill -9: nothing is closed
"""


@pytest.mark.parametrize(
    ("lines", "then", "said", "kept"),
    [
        (500, "", "", 500),
        (5000, "", "journal.failed\n", None),
        (5000, "room again", "journal.failed\njournal.back\n", 0),
    ],
)
def test_the_journal_has_its_space_in_advance(
    tmp_path: Path, lines: int, then: str, said: str, kept: int | None
) -> None:
    """On a full /run the next lines are written all the same; when no space is left, it is said."""
    script = tmp_path / "journal.py"
    script.write_text(JOURNAL)
    (tmp_path / "run").mkdir()
    copy = f"; cp {tmp_path}/run/api.leases {tmp_path}/copy"
    command = f"{sys.executable} {script} {tmp_path}/run {lines} '{then}'{copy}"
    answer = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f"mount -t tmpfs -o size=1m none {tmp_path}/run && {command}",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert answer.stdout == said
    if kept is not None:
        assert len(load_journal(tmp_path / "copy").sessions) == kept
