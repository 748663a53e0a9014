"""A crash at any step of publishing: what is on the disk then is whole, and was flushed before.

Each operation on the disk is followed by a look at all files, as the next start would find them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
from stored import MOMENT, stored_attempt

from camserver.config.output import OutputTable
from camserver.storage import SnapshotStore
from camserver.storage.exif import captured_at
from camserver.storage.outcomes import Outcomes


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # real files


class Disk:
    """Looks at the folder `top` after each operation, and knows what was flushed."""

    def __init__(self, top: Path, patch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.steps: list[str] = []
        self._flushed: set[tuple[int, int]] = set()  # (inode, size)
        self._described: list[datetime] = []
        patch.setattr(os, "fsync", self._fsync(os.fsync))
        patch.setattr(os, "mkdir", self._noted("mkdir", os.mkdir))
        for name in ("link", "replace"):
            real = getattr(os, name)
            patch.setattr(os, name, self._named(name, real))

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(fd: int) -> None:
            real(fd)
            stat = os.fstat(fd)
            self._flushed.add((stat.st_ino, stat.st_size))
            self.look("fsync")

        return fsync

    def _noted(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            real(*arguments, **options)
            self.look(name)

        return call

    def _named(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(source: Path, target: Path, **options: Any) -> None:
            stat = os.stat(source)  # noqa: PTH116
            assert (stat.st_ino, stat.st_size) in self._flushed, f"{target} was not flushed"
            real(source, target, **options)
            self.look(f"{name} {target.name}")

        return call

    def look(self, step: str) -> None:
        """What a start after a crash at this moment would find."""
        self.steps.append(step)
        pictures = [path for path in self.top.rglob("*.jpg") if path.is_file()]
        for path in pictures:
            simplejpeg.decode_jpeg(path.read_bytes())
        latest, facts = self.top / "gate/latest.jpg", self.top / "gate/latest.json"
        if not facts.exists():
            return
        described = datetime.fromisoformat(json.loads(facts.read_text())["captured_at"])
        shown = captured_at(latest.read_bytes())
        assert shown is not None
        # latest.json is of this picture, or of the one before, and tells which by the time
        assert described <= shown
        if described != shown:
            assert any(captured_at(path.read_bytes()) == described for path in pictures)


async def test_a_crash_at_any_step_leaves_whole_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path, monkeypatch)
    store = SnapshotStore(OutputTable(directory=tmp_path), Outcomes())
    for number in range(3):
        moment = MOMENT + timedelta(days=number)
        assert (await store.record(stored_attempt(moment), 0)).attempt.ok
    assert [step for step in disk.steps if step.startswith(("link", "replace"))] == [
        "link 093000.250Z.jpg",
        "replace latest.jpg",
        "replace latest.json",
    ] * 3
    assert disk.steps.count("fsync") > 3 * 4


async def test_without_fsync_nothing_is_flushed_but_all_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look fails for a file that was not flushed: so the test above can fail."""
    disk = Disk(tmp_path, monkeypatch)
    store = SnapshotStore(OutputTable(directory=tmp_path, fsync=False), Outcomes())
    with pytest.raises(AssertionError, match="was not flushed"):
        await store.record(stored_attempt(), 0)
    assert "fsync" not in disk.steps
