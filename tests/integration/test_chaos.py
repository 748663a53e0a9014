"""A short chaos run; `make chaos ARGS="--minutes 30"` is the long one."""

from __future__ import annotations

from pathlib import Path

from chaos import run


def test_no_camera_sees_too_many_sessions_or_one_too_soon(tmp_path: Path) -> None:
    """Pollers, recorders, viewers and waiters on four cameras.

    Workers, wrappers and the daemon are killed meanwhile.

    Judged by the cameras' record: no session over a budget, none inside a cool-down; no lease is
    lost, nobody starves, freshness comes back.
    """
    done, wrong = run(tmp_path, 25, 4)
    print(done)
    assert wrong == [], (tmp_path / "log").read_text()[-5000:]
    assert done["sessions"] > 20
