"""`camserver fleet`: certificates, and what an operator is told."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from camserver.cli.fleet_command import problems


def ca(folder: Path, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "camserver", "fleet", "ca", *words, "--dir", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


def test_an_authority_and_certificates_are_made(tmp_path: Path) -> None:
    assert ca(tmp_path, "issue", "a")[0] == 1, "there is no authority yet"
    assert ca(tmp_path, "init")[0] == 0
    assert "is there already" in ca(tmp_path, "init")[1], "it is not replaced: hosts rely on it"
    assert ca(tmp_path, "issue", "site-a-1")[0] == 0
    assert ca(tmp_path, "issue", "site-a-1")[0] == 0, "a certificate is made anew"
    for key in ("ca.key", "site-a-1.key"):
        assert stat.S_IMODE((tmp_path / key).stat().st_mode) == 0o600
    verified = subprocess.run(
        ["openssl", "verify", "-CAfile", tmp_path / "ca.pem", tmp_path / "site-a-1.pem"],
        capture_output=True,
        check=False,
    )
    assert verified.returncode == 0
    assert ca(tmp_path, "issue", "../a")[0] == 2
    assert ca(tmp_path, "renew")[0] == 2
    before = (tmp_path / "ca.pem").read_bytes()
    (tmp_path / "etcd-ca.pem").write_text("of etcd")
    for name in ("ca", "etcd-ca"):
        assert "is not replaced" in ca(tmp_path, "issue", name)[1]
    assert (tmp_path / "ca.pem").read_bytes() == before
    assert (tmp_path / "etcd-ca.pem").read_text() == "of etcd"


def view(**changes: Any) -> dict[str, Any]:
    store = {"problem": "", "latency_s": 0.01}
    healthy: dict[str, Any] = {"host": "a", "waits_for": "", "valid_s": 4.2, "store": store}
    return healthy | {"faults": [], "hold_s": 0.0} | changes


def test_what_is_wrong_is_said() -> None:
    assert problems(view()) == []
    assert problems(view(waits_for="the store", valid_s=0.0)) == [
        "a is not in the fleet yet: the store"
    ]
    away = {"problem": "no answer within 2 s", "latency_s": 0.0}
    assert problems(view(valid_s=0.0, store=away)) == [
        "a may not have sessions now: no renewal gets through",
        "the store cannot be used: no answer within 2 s",
    ]
    (hold,) = problems(view(hold_s=600.0))
    assert "replaced after 600 s" in hold
    assert problems(view(faults=["x: bad"])) == ["a record cannot be read: x: bad"]
