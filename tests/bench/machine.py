"""What was measured on: a machine, and the versions of what took part."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("av", "simplejpeg", "opencv-python-headless", "aio-rtsp-toolkit")


def machine(folder: Path) -> dict[str, str]:
    """Facts by name, as text. `folder` is where pictures were written."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "camserver": _said("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"),
        "processor": cpu[1] if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "?",
        "kernel": platform.release(),
        "file system": _said("stat", "-f", "-c", "%T", str(folder)),
        "Python": platform.python_version(),
        "ffmpeg": _version(_said("ffmpeg", "-version")),
        "GStreamer": _version(_said("gst-launch-1.0", "--version")),
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not there"
    return facts


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not there"
    return done.stdout.strip() or "?"


def _version(said: str) -> str:
    found = re.search(r"version (\d[^\s-]*)", said)
    return found[1] if found else said
