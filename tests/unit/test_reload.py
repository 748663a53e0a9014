"""Inventory files as people really change them: editors, git, rsync, Kubernetes, slow copies."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from camserver import reload as reload_module
from camserver.config import Inventory, load_inventory
from camserver.errors import InventoryError
from camserver.events import CamerasRemoved, Event, InventoryLoaded, InventoryRefused
from camserver.reload import InventoryReloader


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # real files, and the kernel that tells of them


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload_module, "SETTLE_S", 0.02)
    monkeypatch.setattr(reload_module, "REMOVAL_S", 0.05)


def entry(*cameras: str) -> str:
    return "".join(f'[[camera]]\nid = "{c}"\nurl = "rtsp://127.0.0.1/{c}"\n' for c in cameras)


class Watched:
    """A reloader that watches the inventory `cameras.toml`, which includes cameras.d/*.toml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.main = folder / "cameras.toml"
        self.included = folder / "cameras.d"
        self.included.mkdir(exist_ok=True)
        self.events: list[Event] = []

    def write(self, *cameras: str, **included: str) -> None:
        self.main.write_text('include = ["cameras.d/*.toml"]\n' + entry(*cameras))
        for name, camera in included.items():
            (self.included / f"{name}.toml").write_text(entry(camera))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def apply(_: Inventory, __: Inventory) -> None:
            return None

        self.reloader = InventoryReloader(
            self.main, load_inventory(self.main), apply, self.events.append
        )
        jobs = [asyncio.create_task(job) for job in (self.reloader.run(), self.reloader.watch())]
        try:
            yield
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs)

    def cameras(self) -> list[str]:
        return [camera.id for camera in self.reloader.inventory.cameras]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def test_collections_of_garbage_are_paused_while_an_inventory_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would look through all that is read, again and again."""
    watched, seen = Watched(tmp_path), list[bool]()
    watched.write("a")

    def read(path: Path) -> Inventory:
        seen.append(gc.isenabled())
        return load_inventory(path)

    async with watched.running():
        monkeypatch.setattr(reload_module, "load_inventory", read)
        await watched.reloader.reload()
    assert set(seen) == {False}
    assert gc.isenabled()


async def test_a_folder_that_is_removed_and_made_again(tmp_path: Path) -> None:
    """As git does between two commits. Several times: each new folder is watched, too."""
    watched = Watched(tmp_path)
    watched.write("a", b="b")
    async with watched.running():
        for number in range(3):
            shutil.rmtree(watched.included)
            await watched.until(lambda: watched.cameras() == ["a"])
            watched.included.mkdir()
            watched.write("a", **{f"x{number}": f"x{number}"})
            wanted = ["a", f"x{number}"]
            await watched.until(lambda w=wanted: watched.cameras() == w)  # type: ignore[misc]
            (watched.included / "late.toml").write_text(entry("late"))
            await watched.until(lambda: "late" in watched.cameras())
            (watched.included / "late.toml").unlink()
            await watched.until(lambda: "late" not in watched.cameras())


async def test_a_folder_that_is_swapped(tmp_path: Path) -> None:
    """By mv, and by a link that leads elsewhere, as configuration management does."""
    watched = Watched(tmp_path)
    watched.write("a", b="b")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.toml").write_text(entry(name))
    async with watched.running():
        watched.included.rename(tmp_path / "old")
        (tmp_path / "one").rename(watched.included)
        await watched.until(lambda: watched.cameras() == ["a", "one"])
        watched.included.rename(tmp_path / "one")
        watched.included.symlink_to("two")
        await watched.until(lambda: watched.cameras() == ["a", "two"])
        (tmp_path / "link").symlink_to("one")
        (tmp_path / "link").replace(watched.included)
        await watched.until(lambda: watched.cameras() == ["a", "one"])
        (tmp_path / "one" / "d.toml").write_text(entry("d"))
        await watched.until(lambda: watched.cameras() == ["a", "one", "d"])


async def test_a_config_map_of_kubernetes(tmp_path: Path) -> None:
    """cameras.toml -> ..data/cameras.toml, ..data -> ..2026_1: only ..data is replaced."""
    for number in (1, 2):
        (tmp_path / f"..2026_{number}").mkdir()
        (tmp_path / f"..2026_{number}" / "cameras.toml").write_text(entry(f"v{number}"))
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "cameras.toml").symlink_to("..data/cameras.toml")
    watched = Watched(tmp_path)
    async with watched.running():
        assert watched.cameras() == ["v1"]
        (tmp_path / "..tmp").symlink_to("..2026_2")
        (tmp_path / "..tmp").replace(tmp_path / "..data")
        await watched.until(lambda: watched.cameras() == ["v2"])


async def test_a_change_that_no_one_tells_of_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rsync --inplace --times on a network file system: same size, same time, no inotify."""
    monkeypatch.setattr(reload_module, "LOOK_S", 0.05)

    async def nothing(*_: object) -> None:
        await asyncio.sleep(0.05)

    monkeypatch.setattr(reload_module, "_something_changes", nothing)
    watched = Watched(tmp_path)
    watched.write("a")
    before = watched.main.stat()
    async with watched.running():
        watched.write("b")
        os.utime(watched.main, ns=(before.st_atime_ns, before.st_mtime_ns))
        await watched.until(lambda: watched.cameras() == ["b"])


@pytest.mark.parametrize("content", ["", "# all cameras are gone\n", "[output]\nquality = 80\n"])
async def test_an_empty_file_removes_no_camera(tmp_path: Path, content: str) -> None:
    watched = Watched(tmp_path)
    watched.write("a", b="b")
    async with watched.running():
        for path in (watched.included / "b.toml", watched.main):
            path.write_text(content if path == watched.main else "")
        await watched.until(lambda: watched.told(InventoryRefused))
        assert "no [[camera]] entry any more" in watched.told(InventoryRefused)[-1].fault
        assert "a" in watched.cameras()
        watched.write("a", b="c")
        await watched.until(lambda: watched.cameras() == ["a", "c"])


async def test_cameras_that_leave_are_named(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.write(*(f"cam{n}" for n in range(30)), b="b")
    async with watched.running():
        watched.write("new")
        (watched.included / "b.toml").write_text("")
        await watched.until(lambda: watched.cameras() == ["new"])
        (event,) = [e for e in watched.told(CamerasRemoved) if "more" in e.cameras]
        assert event.cameras.startswith("cam0, cam1, ")
        assert event.level if hasattr(event, "level") else event.LEVEL == "warning"


async def test_a_file_that_is_being_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first half is a valid inventory with fewer cameras: it is never applied."""
    watched = Watched(tmp_path)
    watched.write("a", "b", "c")
    whole = entry("a", "b", "d")
    real, reads = load_inventory, [0]

    def slow(path: Path) -> Inventory:
        """Reads, and the writer goes on before the second look."""
        inventory = real(path)
        reads[0] += 1
        if reads[0] == 1:
            watched.main.write_text(whole)
        return inventory

    async with watched.running():
        monkeypatch.setattr(reload_module, "load_inventory", slow)
        watched.main.write_text(entry("a"))
        await watched.until(lambda: watched.cameras() == ["a", "b", "d"])
    assert [event.cameras for event in watched.told(CamerasRemoved)] == ["c"]
    assert all(event.cameras == 3 for event in watched.told(InventoryLoaded))


async def test_a_file_that_changes_all_the_time_is_refused_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path)
    watched.write("a")
    real = load_inventory

    def restless(path: Path) -> Inventory:
        inventory = real(path)
        watched.write("a")
        return inventory

    async with watched.running():
        monkeypatch.setattr(reload_module, "SETTLE_S", 0.0)
        monkeypatch.setattr(reload_module, "SETTLE_LIMIT_S", 0.2)
        monkeypatch.setattr(reload_module, "load_inventory", restless)
        (fault,) = await watched.reloader.reload()
        assert "changes all the time" in fault


async def test_what_was_refused_is_read_again_when_it_is_mended(tmp_path: Path) -> None:
    """Also when the fault is in a file that only the refused inventory includes."""
    watched = Watched(tmp_path)
    watched.write("a")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.toml").write_text("[[camera]]\nid = ")
    async with watched.running():
        watched.main.write_text('include = ["more/*.toml"]\n' + entry("a"))
        await watched.until(lambda: watched.told(InventoryRefused))
        (tmp_path / "more" / "c.toml").write_text(entry("c"))
        await watched.until(lambda: watched.cameras() == ["a", "c"])


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "cameras.toml"
    path.write_bytes(b"\xef\xbb\xbf" + entry("a").encode())
    assert [camera.id for camera in load_inventory(path).cameras] == ["a"]


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://viewer:p@ss/word@host/x",
        "rtsp://viewer:p@ss?word@host/x",
        "rtsp://viewer:p@ss/w?rd@host/x",
        "rtsp://viewer:p/ss@host",
        "rtsp://viewer:p?ss@host",
    ],
)
def test_a_password_that_hides_the_host_is_refused(tmp_path: Path, url: str) -> None:
    """It would be looked up as a host name. The fault says how to write it, without the URL."""
    path = tmp_path / "cameras.toml"
    path.write_text(f'[[camera]]\nid = "a"\nurl = "{url}"\n')
    with pytest.raises(InventoryError) as refused:
        load_inventory(path)
    (fault,) = refused.value.faults
    assert 'password = "…"' in fault
    assert "ss" not in fault.replace("password", "").replace("address", "")


async def test_a_copy_that_stalls_removes_no_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cameras are removed only by a file that is some seconds old. Others come at once."""
    monkeypatch.setattr(reload_module, "REMOVAL_S", 1000.0)
    monkeypatch.setattr(reload_module, "SETTLE_LIMIT_S", 0.2)
    watched = Watched(tmp_path)
    watched.write("a", "b")
    async with watched.running():
        watched.write("a")  # the first half
        (fault,) = await watched.reloader.reload()
        assert "changes all the time" in fault
        watched.write("a", "b", "c")
        await watched.until(lambda: watched.cameras() == ["a", "b", "c"])
    assert not watched.told(CamerasRemoved)


async def test_links_that_lead_in_a_circle_are_a_fault_and_no_end(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.write("a")
    async with watched.running():
        watched.main.unlink()
        watched.main.symlink_to("cameras.toml")
        await watched.until(lambda: watched.told(InventoryRefused))
        watched.main.unlink()
        watched.write("a", "b")
        await watched.until(lambda: watched.cameras() == ["a", "b"])


async def test_a_new_password_in_a_file_is_taken(tmp_path: Path) -> None:
    """With the line ends of any system, and a mark at its beginning."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"\xef\xbb\xbfold\r\nrest")
    watched = Watched(tmp_path)
    watched.main.write_text(entry("a") + 'username = "viewer"\npassword_file = "secret"\n')

    def password() -> str:
        return watched.reloader.inventory.cameras[0].password

    async with watched.running():
        assert password() == "old"
        secret.write_bytes(b"new\rrest")
        await watched.until(lambda: password() == "new")


async def test_unchanged_cameras_stay_the_same_objects(tmp_path: Path) -> None:
    """Also what does not count when cameras are compared is a change: retention, health."""
    watched = Watched(tmp_path)
    rules = 'retention = { max_age = "1d", keep = [{ after = "1h", every = "1m" }] }\n'
    watched.main.write_text(entry("a", "b", "c", "d") + rules + entry("e") + "retention = {}\n")
    async with watched.running():
        a, b, c, d, e = watched.reloader.inventory.cameras
        changed = (
            entry("a", "b")
            + "health = { black_below = 0.01 }\n"
            + entry("c", "d")
            + rules
            + entry("e")
            + "retention = { keep_last = 10 }\n"
        )
        watched.main.write_text(changed.replace("127.0.0.1/c", "127.0.0.1/d"))
        await watched.until(lambda: watched.reloader.inventory.cameras[2].url != c.url)
        new_a, new_b, new_c, new_d, new_e = watched.reloader.inventory.cameras
    assert new_a is a
    assert new_d.retention == d.retention
    assert new_e.retention is not None
    assert e.retention is not None
    assert new_e.retention.model_fields_set != e.retention.model_fields_set
    assert new_b.health != b.health
    assert new_c.url != c.url
