"""The unit under a real systemd, booted in namespaces of its own (boot.sh)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXPECTED = {
    "verify": "0",
    "start": "0",
    "user": "camserver",
    "picture": "ffd8",
    "status": "1 cameras: 1 fresh",
    "refused": "active same",
    "reload_refused": "1",
    "socket": "660 camserver camserver",
    "leases": "1",
    "reload": "0",
    "holder": "1",
    "holder_uid": "1",
    "refused_meanwhile": "0",
    "lease_kept": "1 0",
    "restarted": "1",
    "fresh_again": "1",
    "stop": "success 0",
    "sealed": "1",
    "unsealed": "0",
    "sessions_left": "0",
    "sessions_max": "1",
    "temporary": "0",
    "bad_start": "78 0",
}


def booted(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command beside a systemd of its own."""
    if os.geteuid() != 0:
        pytest.skip("booting a systemd in namespaces needs root")
    run = subprocess.run(
        [HERE / "boot.sh", sys.prefix, HERE.parents[1], *command],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if run.returncode == 125:
        pytest.skip(f"this machine does not let a systemd boot in namespaces: {run.stderr[-200:]}")
    return run


@pytest.mark.timeout(900)
def test_the_documents_run_as_printed() -> None:
    """Each command of README.md and docs/sharing.md, in order, in a fresh clone.

    An upgrade, a stop, and what they leave.
    """
    run = booted("/usr/bin/python3", "tests/systemd/docs.py")
    assert (run.returncode, run.stdout) == (0, ""), run.stdout + run.stderr


@pytest.mark.timeout(900)
def test_the_unit_does_what_it_says() -> None:
    """Start, READY, journal, refused reload, kill -9, restart, clean stop, 78; hardened."""
    run = booted("bash", "tests/systemd/service.sh")
    said = dict(line.split("=", 1) for line in run.stdout.splitlines() if "=" in line)
    assert run.returncode == 0, run.stderr
    assert "timeout" not in said, said
    assert float(said["exposure"]) <= 1.5
    assert int(said["journal"]) >= 1
    assert int(said["lease"]) >= 1
    said["status"] = said["status"].partition(",")[0]
    assert {key: said[key] for key in EXPECTED} == EXPECTED


FAULTS = {
    "credential": "1",
    "start": "0",
    "ready": "1",
    "picture": "ffd8",
    "probe": "18 tried: ",
    "secret": "0",
    "after_stop": "1",
    "after_hang": "2",
    "limit": "failed",
    "whole": "ffd9",
}


@pytest.mark.timeout(900)
def test_a_daemon_that_hangs_or_dies_and_the_sandbox() -> None:
    """The watchdog ends a stopped process and a hung loop. A start limit ends what only dies."""
    run = booted("bash", "tests/systemd/faults.sh")
    said = dict(line.split("=", 1) for line in run.stdout.splitlines() if "=" in line)
    assert run.returncode == 0, run.stderr
    assert "timeout" not in said, said
    assert int(said["watchdog"]) >= 2
    assert {key: said.get(key) for key in FAULTS} == FAULTS, said
