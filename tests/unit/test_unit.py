"""What systemd tells of the daemon's unit.

Commands that only read must not start a daemon that somebody has stopped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from camserver.host import unit

SOCKET = Path("/run/camserver/camserver.sock")


def shown(
    service: str, *, listening: str = "active", path: str = str(SOCKET), job: str = ""
) -> str:
    return f"Listen={path} (Stream)\nActiveState={listening}\n\nActiveState={service}\n" + (
        f"Job={job}\n" if job else ""
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (shown("inactive"), unit.Stopped.INACTIVE),
        (shown("failed"), unit.Stopped.FAILED),
        (shown("active"), None),
        (shown("activating"), None),  # it waits to be restarted
        (shown("deactivating"), None),
        (shown("inactive", job="123"), None),  # between the two halves of a restart
        # Nobody listens: a connection says so and starts nothing
        (shown("inactive", listening="inactive"), None),
        (shown("inactive", path="/run/other.sock"), None),  # the socket is not systemd's
        ("", None),
        ("nonsense\n\nnonsense\n\nnonsense", None),
    ],
)
def test_each_state_of_the_unit(text: str, expected: unit.Stopped | None) -> None:
    assert unit.parse(text, SOCKET) == expected


def test_the_socket_is_known_by_another_name(tmp_path: Path) -> None:
    """/var/run is /run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to(tmp_path / "run")
    text = shown("inactive", path=f"{tmp_path}/run/api.sock")
    assert unit.parse(text, tmp_path / "var/api.sock") == unit.Stopped.INACTIVE


@pytest.mark.parametrize("answer", ["exit 1", "kill -KILL $$", "printf 'ActiveState=inactive\\n'"])
def test_a_systemd_that_gives_no_answer_is_no_obstacle(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing is known, and the daemon is asked as it is on machines without systemd."""
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\n{answer}\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert unit.stopped(SOCKET, booted=tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert unit.stopped(SOCKET, booted=tmp_path) is None
    assert unit.stopped(SOCKET, booted=tmp_path / "no systemd") is None
