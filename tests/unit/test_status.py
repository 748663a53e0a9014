"""`camserver status`.

Worst first, in plain words, from a daemon's answers or from the files alone.
"""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from camserver.cli.status import as_json, from_daemon, from_files, label, show
from camserver.config import load_inventory

NOW = datetime(2026, 1, 4, 9, 30, tzinfo=UTC)


def facts(
    camera: str, age_s: float | None, result: str = "ok", error: str | None = None, **polling: Any
) -> dict[str, Any]:
    at = None if age_s is None else (NOW - timedelta(seconds=age_s)).isoformat()
    latest = {
        "captured_at": at,
        "width": 640,
        "height": 360,
        "bytes": 20480,
        "capture_ms": 12.3,
        "lease_wait_ms": 0.4,
        "source": "rtsp",
        "consecutive_failures": 0 if result == "ok" else 3,
        "attempt": {"result": result, "error": error},
    }
    return {
        "id": camera,
        "name": camera,
        "interval_s": 10.0,
        "device": "box",
        "latest": latest,
        "polling": {"results": {"busy": 2, "full": 1}, "due_in_s": 4.2} | polling,
    }


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        ({"result": "ok", "error": None, "label": "ok"}, "ok"),
        ({"result": "auth", "error": "gate: rtsp: …", "label": "wrong password"}, "wrong password"),
        ({"result": "auth", "error": "of an older version"}, "of an older version"),
        ({"result": None}, "not polled yet"),
        ({}, "not polled yet"),
    ],
)
def test_the_label_is_shown_as_it_was_given(attempt: dict[str, Any], said: str) -> None:
    assert label({"attempt": attempt}, NOW) == said


@pytest.mark.parametrize(
    ("health", "said"),
    [
        (None, "ok"),
        ({"state": "ok", "since": NOW.isoformat(), "label": None}, "ok"),
        ({"state": "black", "label": "has been black", "since": None}, "an unknown time"),
        ({"state": "black", "label": "has been black", "since": "yesterday"}, "an unknown time"),
        ("strange", "ok"),
    ],
)
def test_a_suspect_picture_is_told(health: Any, said: str) -> None:
    assert label({"attempt": {"result": "ok"}, "health": health}, NOW).endswith(said)


def test_since_when_is_local_time_and_the_date_if_it_is_older() -> None:
    for ago, form in ((timedelta(minutes=5), "%H:%M"), (timedelta(days=3), "%d %b, %H:%M")):
        since = NOW - ago
        health = {"state": "frozen", "label": "has stood", "since": since.isoformat()}
        said = label({"attempt": {"result": "ok"}, "health": health}, NOW)
        assert said == f"ok, but has stood since {since.astimezone().strftime(form)}"
        failed = {"attempt": {"result": "auth", "label": "wrong password"}, "health": health}
        assert label(failed, NOW) == "wrong password"


def test_a_suspect_camera_stands_before_those_that_are_well() -> None:
    cameras = [facts("well", 3.0), facts("suspect", 2.0), facts("stale", 500.0)]
    health = {"state": "frozen", "since": NOW.isoformat(), "label": "has stood"}
    cameras[1]["latest"]["health"] = health
    statuses = from_daemon(cameras, NOW)
    assert [status.camera for status in statuses] == ["stale", "suspect", "well"]
    assert [status.health for status in statuses] == [None, "frozen", None]
    assert not statuses[1].needs_attention, "its pictures come"


def test_worst_first() -> None:
    """Never before stale before late before fresh; then who failed most, then the oldest."""
    cameras = [
        facts("fresh", 3.0),
        facts("late", 30.0),
        facts("never", None, "timeout", "x"),
        facts("stale", 600.0, "auth", "x"),
        facts("old", 4.0),
    ]
    found = from_daemon(cameras, NOW)
    assert [(s.camera, s.freshness) for s in found] == [
        ("never", "never"),
        ("stale", "stale"),
        ("late", "late"),
        ("old", "fresh"),
        ("fresh", "fresh"),
    ]
    assert found[-1].busy == 3
    text = io.StringIO()
    show(found, Console(file=text, width=200))
    lines = text.getvalue().splitlines()
    assert lines[1].split()[:2] == ["never", "never"]
    assert "640x360" in lines[1]
    assert "10 min" in lines[2]
    narrow = io.StringIO()
    show(found, Console(file=narrow, width=80))
    assert "CAPTURE" not in narrow.getvalue()
    assert len(narrow.getvalue().splitlines()) == len(lines)
    assert json.loads(as_json(found, daemon=True))["cameras"][0]["camera"] == "never"


def test_without_a_daemon_the_files_tell(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        f'[output]\ndirectory = "{tmp_path}/out"\n'
        + "".join(
            f'[[camera]]\nid = "{name}"\nurl = "rtsp://127.0.0.1/{name}"\n'
            for name in ("gate", "torn", "none", "zone")
        )
    )
    for name in ("gate", "torn"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out/gate/latest.json").write_text(json.dumps(facts("gate", 5.0)["latest"]))
    (tmp_path / "out/zone").mkdir()
    # Of no time zone
    (tmp_path / "out/zone/latest.json").write_text('{"captured_at": "2026-01-04T12:00:00"}')
    (tmp_path / "out/torn/latest.json").write_text("[1, ")
    found = from_files(load_inventory(config), NOW)
    assert [(s.camera, s.freshness, s.label, s.busy) for s in found] == [
        ("torn", "never", "not polled yet", None),
        ("none", "never", "not polled yet", None),
        ("zone", "never", "not polled yet", None),
        ("gate", "fresh", "ok", None),
    ]
