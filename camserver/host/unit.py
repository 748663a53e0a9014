"""The daemon's systemd unit, as systemd tells it.

Whether a socket is systemd's, and whether its daemon is stopped.

A connection to a socket that systemd keeps starts the daemon. Commands that only read must ask here
first.
"""

from __future__ import annotations

import os
import subprocess
from enum import StrEnum
from pathlib import Path

BOOTED = Path("/run/systemd/system")
"""It is there when systemd runs this machine (sd_booted(3))."""
NAME = "camserver"
ANSWER_S = 5.0


class Stopped(StrEnum):
    """Why the daemon does not run: systemd's words for it (ActiveState)."""

    INACTIVE = "inactive"
    FAILED = "failed"


def stopped(socket: Path, *, booted: Path = BOOTED) -> Stopped | None:
    """Why the daemon behind `socket` does not run.

    None when it runs or is about to, when the socket is not systemd's, and when systemd can't be
    asked.
    """
    if not booted.is_dir():
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - no word of it comes from outside
            [  # noqa: S607 - the one in PATH
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
    """Whether systemd listens there, by whatever name: /var/run is /run."""
    return os.path.realpath(listen.removesuffix(" (Stream)")) == os.path.realpath(socket)


def parse(text: str, socket: Path) -> Stopped | None:
    """The same from what `systemctl show` printed of the socket and the service."""
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
    # A restart passes through "inactive"
    if state not in set(Stopped) or service.get("Job", "0") not in ("", "0"):
        return None
    return Stopped(state)
