"""A picture that the disk refuses because it is full makes the oldest ones go."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from inventories import load
from stored import stored_attempt

from camserver.output import Output
from camserver.storage.publish import CameraFolder


@pytest.mark.parametrize(
    ("number", "kicked"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False), (None, False)],
)
def test_a_full_disk_kicks_the_retention(
    number: int | None, kicked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> bool:
        camera = '[[camera]]\nid = "gate"\nurl = "rtsp://127.0.0.1/"'
        inventory = load(tmp_path, f'[output]\ndirectory = "{tmp_path}/out"\n{camera}')
        output = Output(inventory, lambda _: None)
        kicks: list[bool] = []
        monkeypatch.setattr(output.archive.retention, "kick", lambda: kicks.append(True))
        if number is not None:

            def refuse(*_: object, **__: object) -> str:
                raise OSError(number, "no")

            monkeypatch.setattr(CameraFolder, "publish", refuse)
        await output.deliver(stored_attempt(), 0)
        await output.close(1.0)
        return bool(kicks)

    assert asyncio.run(work()) is kicked
