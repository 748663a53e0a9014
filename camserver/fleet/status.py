"""The fleet as one host sees it, as JSON values."""

from __future__ import annotations

from collections import Counter

from camserver.fleet.member import FleetMember


def fleet_statistics(member: FleetMember, now: float) -> dict[str, float]:
    """The gauges of the metrics, by name. Times are in seconds."""
    host = member.host
    return {
        "members": 0 if host is None else sum(1 for _ in host.mirror.live()),
        "owned": 0 if host is None else len(host.devices.owned),
        "validity_seconds": 0.0 if host is None else max(0.0, host.validity.until - now),
        "hold_seconds": 0.0 if host is None else host.mirror.hold_s or 0.0,
        "store_up": int(not member.health.reason),
        "store_latency_seconds": member.health.latency_s,
    }


def fleet_view(member: FleetMember, now: float) -> dict[str, object]:
    """What this host knows of itself, its store, and all hosts. Times are in seconds."""
    view: dict[str, object] = {
        "fleet": member.identity.fleet,
        "host": member.identity.name,
        "waits_for": member.waits_for,
        "store": {
            "problem": member.health.reason,
            "latency_s": round(member.health.latency_s, 4),
        },
        "phase": "joining",
        "epoch": 0,
        "valid_s": 0.0,
        "owned": 0,
        "hosts": [],
        "drained": [],
        "hold_s": 0.0,
        "faults": [],
    }
    host = member.host
    if host is None:
        return view
    mirror = host.mirror
    owned = Counter(
        owner.host for device in mirror.owners if (owner := mirror.owner(device)) and owner.held
    )
    view |= {
        "phase": host.phase.value,
        "epoch": host.epoch,
        "valid_s": max(0.0, round(host.validity.until - now, 1)),
        "owned": len(host.devices.owned),
        "drained": sorted(mirror.drained),
        "hold_s": mirror.hold_s or 0.0,
        "faults": sorted(mirror.faults.values()),
        "hosts": [
            {
                "host": name,
                "state": record.state.value,
                "epoch": record.epoch,
                "owned": owned[name],
                "silent_s": round(host.silence.silent_s(name, now), 1),
                "weight": record.weight,
                "labels": list(record.labels),
                "inventory": record.inventory,
                "url": record.url,
            }
            for name in sorted(mirror.hosts)
            if (record := mirror.host(name)) is not None
        ],
    }
    return view
