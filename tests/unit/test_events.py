"""docs/events.md lists every event there is, with its keys."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from camserver import events
from camserver.events import fleet

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
    modules = events, fleet
    kinds = {
        kind.EVENT: kind
        for module in modules
        for name in dir(module)
        if is_event(kind := getattr(module, name))
    }
    assert known.keys() == kinds.keys()
    for name, kind in kinds.items():
        assert known[name] - {"camera"} == {f.name for f in fields(kind)} - {"camera"}, name


def is_event(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, events.Event) and thing is not events.Event


def test_the_sentence_of_an_event_holds_its_facts() -> None:
    event = events.StreamRegistered(stream="gate", source="rtsp://10.0.0.7/{x}")
    assert event.text == "go2rtc: stream gate registered"
    assert events.as_data(event) == {
        "event": "go2rtc.registered",
        "level": "info",
        "stream": "gate",
        "source": "rtsp://10.0.0.7/{x}",
    }
