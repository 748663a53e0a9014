"""docs/events.md lists every event there is, with its keys."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from camserver import events

ROOT = Path(__file__).parents[2]


def documented() -> dict[str, set[str]]:
    found = {}
    for line in (ROOT / "docs/events.md").read_text().splitlines():
        if line.startswith("| `"):
            _, names, keys, *_ = line.split("|")
            for name in re.findall(r"`([a-z0-9.]+)`", names):
                found[name] = set(re.findall(r"[a-z_0-9]+", keys))
    return found


def test_every_event_is_documented_with_its_keys() -> None:
    known = documented()
    for kind in events.Event.__subclasses__():
        if kind.__name__ != "Notice":
            assert known[kind.EVENT] == {field.name for field in fields(kind)}, kind.EVENT
    notices = set()
    for path in (ROOT / "camserver").rglob("*.py"):
        notices |= set(
            re.findall(r'(?:Notice\(\s*name=|_note\(\s*)"([a-z0-9]+\.[a-z]+)"', path.read_text())
        )
    assert len(notices) > 10
    assert notices <= known.keys(), notices - known.keys()
