"""The state of the daemon's systemd units.

It says whether systemd owns a socket, and whether the daemon behind that socket is stopped.

A connection to a socket of systemd starts the daemon. So commands that only read must check here
first.
"""

from __future__ import annotations

import os
import subprocess
from enum import StrEnum
from pathlib import Path

BOOTED = Path("/run/systemd/system")
"""This directory exists when systemd runs this machine (sd_booted(3))."""
NAME = "camserver"
ANSWER_S = 5.0


class Stopped(StrEnum):
    """Why the daemon does not run, in the words of systemd (ActiveState)."""

    INACTIVE = "inactive"
    FAILED = "failed"


def stopped(socket: Path, *, booted: Path = BOOTED) -> Stopped | None:
    """Why the daemon behind `socket` does not run.

    None when it runs or is about to run, when systemd does not own the socket, and when systemd
    can't be asked.
    """
    if not booted.is_dir():
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - no argument comes from outside
            [  # noqa: S607 - systemctl is found in PATH
                "systemctl",
                "show",
                "--property=Listen,ActiveState,Job",
                f"{NAME}.socket",
                f"{NAME}.service",
            ],
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse(answer.stdout, socket)


def _same(listen: str, socket: Path) -> bool:
    """Whether systemd listens on `socket`. Paths may differ by a link: /var/run is /run."""
    return os.path.realpath(listen.removesuffix(" (Stream)")) == os.path.realpath(socket)


def parse(text: str, socket: Path) -> Stopped | None:
    """Parse the output of `systemctl show` for the socket and the service, as in `stopped`."""
    units = [
        dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
        for unit in text.strip().split("\n\n")
    ]
    if len(units) != 2:
        return None
    listening, service = units
    if listening.get("ActiveState") != "active" or not _same(listening.get("Listen", ""), socket):
        return None
    state = service.get("ActiveState", "")
    # During a restart the state is "inactive" for a moment, and a job is queued
    if state not in set(Stopped) or service.get("Job", "0") not in ("", "0"):
        return None
    return Stopped(state)
