"""The published form of a snapshot: the JPEG with its EXIF, and the facts beside it.

It is the same for every output. The code is pure.
"""

from __future__ import annotations

import contextlib
import json
from datetime import datetime
from typing import Any

from camserver.events import SnapshotPublished
from camserver.host.clock import rfc3339
from camserver.model import Snapshot
from camserver.storage.exif import captured_at, size, with_exif

FACTS = (
    "captured_at",
    "published_at",
    "source",
    "width",
    "height",
    "bytes",
    "codec",
    "path",
    "camera_clock_offset_s",
    "capture_ms",
    "lease_wait_ms",
    "engine",
    "health",
)
"""The keys of latest.json that describe the picture. The others describe the newest attempt."""


def jpeg_of(snapshot: Snapshot) -> bytes:
    """The JPEG with our EXIF."""
    return with_exif(snapshot.still.jpeg, snapshot.name, snapshot.captured_at)


def facts_of(
    snapshot: Snapshot, size: int, *, published_at: datetime | None = None, path: str | None = None
) -> dict[str, Any]:
    """The facts of a picture of `size` bytes. `path` is its name in the archive, or None."""
    return {
        "captured_at": rfc3339(snapshot.captured_at),
        "published_at": published_at and rfc3339(published_at),
        "source": snapshot.source.value,
        "engine": snapshot.engine,
        "width": snapshot.still.width,
        "height": snapshot.still.height,
        "bytes": size,
        "codec": snapshot.still.codec,
        "path": path,
        "camera_clock_offset_s": snapshot.camera_clock_offset_s,
        "capture_ms": round(snapshot.capture_ms, 1),
        "lease_wait_ms": round(snapshot.lease_wait_ms, 1),
        "health": _health_of(snapshot),
    }


def _health_of(snapshot: Snapshot) -> dict[str, Any] | None:
    """Whether the picture looks well, and its numbers; None when it was not measured."""
    look, health = snapshot.still.look, snapshot.health
    if look is None:
        return None
    return {
        "state": health and health.state,
        "since": health and rfc3339(health.since),
        "label": health and (health.label or None),
        "brightness": round(look.brightness, 4),
        "contrast": round(look.contrast, 4),
        "sharpness": round(look.sharpness, 4),
        "change": None if look.change is None else round(look.change, 4),
        "hash": look.hash,
    }


def facts_beside(jpeg: bytes, latest_json: bytes) -> dict[str, Any] | None:
    """The facts of a published picture, from the latest.json beside it.

    None when latest.json describes another picture.
    """
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        known = json.loads(latest_json)
        if datetime.fromisoformat(known["captured_at"]) == captured_at(jpeg):
            return {key: known.get(key) for key in FACTS}
    return None


def facts_within(jpeg: bytes) -> dict[str, Any]:
    """The facts that one of our pictures contains itself."""
    taken_at = captured_at(jpeg)
    width, height = size(jpeg)
    return dict.fromkeys(FACTS) | {
        "captured_at": taken_at and rfc3339(taken_at),
        "width": width,
        "height": height,
        "bytes": len(jpeg),
    }


def published_event(snapshot: Snapshot, store_s: float) -> SnapshotPublished:
    """The event for a picture that took `store_s` seconds to write."""

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else seconds * 1000

    still, phases, health = snapshot.still, snapshot.phases, snapshot.health
    return SnapshotPublished(
        camera=snapshot.camera,
        source=snapshot.source,
        engine=snapshot.engine or "",
        width=still.width,
        height=still.height,
        bytes=len(still.jpeg),
        codec=still.codec,
        captured_at=rfc3339(snapshot.captured_at),
        capture_ms=snapshot.capture_ms,
        lease_wait_ms=snapshot.lease_wait_ms,
        open_ms=ms(phases.open),
        keyframe_ms=ms(phases.keyframe),
        decode_ms=ms(phases.decode),
        encode_ms=ms(phases.encode),
        store_ms=ms(store_s),
        cpu_ms=ms(phases.cpu),
        camera_clock_offset_s=snapshot.camera_clock_offset_s,
        health=health.state if health else None,
        health_since=rfc3339(health.since) if health else None,
        health_label=(health.label or None) if health else None,
    )
