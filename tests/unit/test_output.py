"""A picture that the disk refuses because it is full makes the oldest ones go."""

from __future__ import annotations

import asyncio
import errno
import json
from pathlib import Path

import pytest
from inventories import load
from stored import MOMENT, stored_attempt

from camserver.model import Attempt, Result
from camserver.output import Output
from camserver.storage.publish import CameraFolder


def test_a_camera_that_left_is_not_shown_when_its_last_poll_ends(tmp_path: Path) -> None:
    """Its latest.json still says how that poll ended."""

    async def work() -> None:
        entry = '[[camera]]\nid = "{}"\nurl = "rtsp://127.0.0.1/"\n'
        table = f'[output]\ndirectory = "{tmp_path}/out"\n'
        output = Output(load(tmp_path, table + entry.format("gate")), lambda _: None)
        await output.deliver(stored_attempt(), 0)
        assert list(output.outcomes.ages_s()) == ["gate"]
        output.configure(load(tmp_path, table + entry.format("yard")))
        await output.deliver(stored_attempt(), 0)
        await output.deliver(Attempt("gate", MOMENT, Result.TIMEOUT, "gate: silent"), 0)
        assert (output.outcomes.ages_s(), output.outcomes.captured_at()) == ({}, {})
        await output.close(1.0)

    asyncio.run(work())
    latest = json.loads((tmp_path / "out" / "gate" / "latest.json").read_text())
    assert latest["attempt"]["result"] == "timeout"
    assert latest["captured_at"] is not None


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
