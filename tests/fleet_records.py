"""Records of a fleet, for tests."""

from __future__ import annotations

from typing import Any

from camserver.fleet.records import HostRecord, HostState

DEFAULTS: dict[str, Any] = {
    "machine_id": "m",
    "boot_id": "b",
    "epoch": 1,
    "sequence": 0,
    "state": HostState.LIVE,
    "seen": 0,
    "url": "",
    "inventory": "",
    "weight": 1.0,
    "valid_s": 5.0,
}


def host_record(**changes: Any) -> HostRecord:
    """A live host's first record, with changes."""
    return HostRecord(**(DEFAULTS | changes))
