"""The daemon on a disk that fails: a FUSE file system that returns errors, or does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from house import House, StartFleet
from namespaced import daemon_in_namespace, outcome, result, until

from camserver.client import SyncLeaseClient
from camserver.simulator.camera import SimulatedCamera
from camserver.storage.publish import remove_temporary_files

FAULTY_DISK = Path(__file__).parent.parent / "faulty_disk.py"
CHANGES = "create,write,truncate,fsync,fsyncdir,rename,unlink,mkdir,rmdir,link"
pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.W_OK) or os.geteuid() != 0, reason="needs root and /dev/fuse"
)


@pytest.fixture
async def house(fleet: StartFleet) -> House:
    return await fleet([SimulatedCamera(c, c, gop=2) for c in ("gate", "yard")])


class Disk:
    """A faulty disk that is mounted when the daemon of the test starts, and ends with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.backing, self.mounted = folder / "backing", folder / "disk"
        for path in (self.backing, self.mounted):
            path.mkdir()
        self._faults = folder / "faults"
        places = f"{self.backing} {self.mounted} {self._faults}"
        self.mount = (
            f"{{ setpriv --pdeathsig=KILL {sys.executable} {FAULTY_DISK} {places} & }}"
            f" && while ! mountpoint -q {self.mounted}; do sleep 0.05; done"
        )

    @contextlib.asynccontextmanager
    async def daemon(
        self, house: House, more: str = ""
    ) -> AsyncIterator[tuple[asyncio.subprocess.Process, SyncLeaseClient]]:
        """A daemon that publishes to this disk. At the end the disk has no faults."""
        async with daemon_in_namespace(
            self._folder, house, str(self.mounted), self.mount, more
        ) as (process, client):
            try:
                await both(client, "ok")
                yield process, client
                self.fails()
                await both(client, "ok")
                process.terminate()
                assert await process.wait() == 0
            finally:
                self.fails()  # otherwise the daemon could not end

    def fails(self, *lines: str) -> None:
        """From now on the disk has these faults."""
        beside = self._faults.with_suffix(".new")
        beside.write_text("\n".join(lines))
        beside.replace(self._faults)

    def is_whole(self, camera: str) -> bool:
        """Whether latest.jpg on the disk itself is a whole picture."""
        data = (self.backing / camera / "latest.jpg").read_bytes()
        return data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")

    def leftovers(self) -> list[Path]:
        return list(self.backing.glob("*/.camserver-*.tmp"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


async def both(client: SyncLeaseClient, wanted: str) -> None:
    await until(lambda: result(client, "gate") == result(client, "yard") == wanted)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("write EIO", "Input/output error"),
        ("fsync EIO", "Input/output error"),
        ("rename EIO", "Input/output error"),
        ("create,link EIO", "Input/output error"),
        ("link EIO", "Input/output error"),
        (f"{CHANGES} EROFS", "Read-only file system"),
        ("getattr EIO", "Input/output error"),
    ],
)
async def test_a_disk_with_errors(fault: str, said: str, house: House, disk: Disk) -> None:
    """What was published stays and is whole; the error is named; it goes on when the disk does."""
    async with disk.daemon(house, 'fsync = true\nindex = "../index"') as (_, client):
        disk.fails(fault)
        await both(client, "storage")
        assert said in outcome(client, "gate")["attempt"]["error"]
        assert disk.is_whole("gate")
        assert disk.is_whole("yard")
    # A file that the disk did not let go is removed at the next start
    assert len(disk.leftovers()) <= 2
    remove_temporary_files(disk.backing)
    assert not disk.leftovers()
    for camera in ("gate", "yard"):
        facts = json.loads((disk.backing / camera / "latest.json").read_text())
        assert facts["attempt"]["result"] == "ok"
        archived = list((disk.backing / camera).rglob("*.jpg"))
        assert archived
        assert all(path.read_bytes().endswith(b"\xff\xd9") for path in archived)


async def test_errors_of_one_folder_cost_one_camera(house: House, disk: Disk) -> None:
    async with disk.daemon(house, 'index = "../index"') as (_, client):
        disk.fails("write,create,open,getattr EIO gate")
        await until(lambda: result(client, "gate") == "storage")
        before = outcome(client, "yard")["captured_at"]
        await until(lambda: outcome(client, "yard")["captured_at"] > before)
        assert result(client, "yard") == "ok"


async def test_a_disk_that_hangs_delays_no_answer(house: House, disk: Disk) -> None:
    """Calls wait in the kernel and cannot be ended. The daemon answers, and says what it waits for.

    When the disk answers again, pictures are published again.
    """
    async with disk.daemon(house, 'index = "../index"') as (_, client):
        disk.fails("write,create,rename hang")
        await both(client, "storage")
        assert (
            "has not taken the picture, after 10 s" in outcome(client, "gate")["attempt"]["error"]
        )
        assert disk.is_whole("gate")


async def test_errors_below_the_index_cost_no_picture(
    tmp_path: Path, house: House, disk: Disk
) -> None:
    async with disk.daemon(house) as (_, client):
        disk.fails("read,write,fsync EIO .camserver-index")
        await until(lambda: "index.lost" in (tmp_path / "log").read_text())
        before = outcome(client, "gate")["captured_at"]
        await until(lambda: outcome(client, "gate")["captured_at"] > before)
        assert result(client, "gate") == "ok"
