"""An inventory on a disk that does not answer: the wait is told of, and has an end."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from camserver import config
from camserver.cli import check, inventory
from camserver.cli.main import main
from camserver.errors import InventoryUnreadable


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The disk answers when this is set. What is read is 7."""
    event = threading.Event()

    def read(*_: Any, **__: Any) -> Any:
        event.wait()
        return 7

    monkeypatch.setattr(config, "load_inventory", read)
    monkeypatch.setattr(inventory, "SAY_S", 0.01)
    return event


def test_a_wait_without_end_is_told_and_given_up(
    answers: threading.Event, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inventory, "LIMIT_S", 0.02)
    with pytest.raises(SystemExit) as ended:
        check.load(Path("/srv/cameras.toml"))
    answers.set()
    assert ended.value.code == os.EX_TEMPFAIL
    waits, gives_up = capsys.readouterr().err.splitlines()
    assert waits.startswith("camserver: waiting for the disk of /srv/cameras.toml")
    assert gives_up == "camserver: /srv/cameras.toml: its disk gave no answer in 0.02 s"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["run"], os.EX_TEMPFAIL),
        (["doctor", "gate"], os.EX_TEMPFAIL),
        (["doctor", "--fleet"], os.EX_TEMPFAIL),
        (["status"], os.EX_UNAVAILABLE),  # no daemon answers, and the files can't be found
    ],
)
def test_every_command_gives_up(
    command: list[str],
    status: int,
    answers: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(inventory, "LIMIT_S", 0.02)
    monkeypatch.setenv("CAMSERVER_SOCKET", "/nonexistent/api.sock")
    monkeypatch.setattr(sys, "argv", ["camserver", *command, "--config", "/srv/cameras.toml"])
    with pytest.raises(SystemExit) as ended:
        main()
    answers.set()
    assert ended.value.code == status
    assert "its disk gave no answer in 0.02 s" in capsys.readouterr().err


def test_a_disk_that_answers_late_is_used(
    answers: threading.Event, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "print", lambda *_, **__: answers.set(), raising=False)
    found: Any = check.load(Path("/srv/cameras.toml"))
    assert found == 7
    assert capsys.readouterr().err == ""


def test_what_reading_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any, **__: Any) -> Any:
        raise InventoryUnreadable(("gone",))

    monkeypatch.setattr(config, "load_inventory", read)
    assert check.load(Path("/srv/cameras.toml")) is None
