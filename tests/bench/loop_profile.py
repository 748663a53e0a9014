"""On what the event loop of a running daemon spends its CPU, by py-spy."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

WORK = {
    "session": ("rtsp", "capture", "http", "go2rtc", "snapshots"),
    "workers": ("workers",),
    "publish": ("storage", "archive", "output", "health", "jpeg_file"),
    "leases": ("leases",),
    "schedule": ("polling",),
    "events": ("events", "event_log", "api", "summary"),
}
"""The packages of camserver by the kind of work. What belongs to none is the rest."""
ASYNCIO = ("camserver/cli/", "camserver/host/loop", "camserver/host/kernel_timer")
"""What runs the event loop: below it there is only asyncio."""


def loop_shares(daemon: int, seconds: float) -> dict[str, float] | None:
    """The share of each kind of work. None when the process cannot be read.

    A sample belongs to the innermost frame of camserver: what the standard library does for a
    package counts there.
    """
    command = [
        *(str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(daemon)),
        *("--duration", str(round(seconds)), "--rate", "200", "--format", "raw", "--threads"),
        *("--output", "/dev/stdout"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    found: Counter[str] = Counter()
    for line in done.stdout.splitlines():
        stack, _, count = line.rpartition(" ")
        if "MainThread" in stack and count.isdigit():
            found[_kind(stack)] += int(count)
    total = found.total()
    return {kind: count / total for kind, count in found.items()} if total else None


def _kind(stack: str) -> str:
    files = re.findall(r"camserver/[\w/]+", stack)
    if not files or files[-1].startswith(ASYNCIO):
        return "asyncio itself"
    package = files[-1].split("/")[1]
    return next((kind for kind, own in WORK.items() if package in own), "rest")
