"""Checks of all cameras together. Pure: cameras in, sentences out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping

from camserver.config.fleet import FleetTable
from camserver.config.inventory import Camera
from camserver.config.model import Go2rtcTable, PollingTable
from camserver.config.urls import host_of

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
STAND_INS: Mapping[str, object] = {
    "id": "x",
    "url": "rtsp://x/",
    "snapshot_url": "http://x/",
    "name": "x",
    "etcd": ["http://x"],
}
"""Valid values of keys, with which the rest of a table is checked when its own are wrong."""


def rate_warning(cameras: Iterable[Camera], polling: PollingTable) -> str:
    """The warning that intervals need more pictures a second than open_rate allows.

    Empty when open_rate is sufficient.
    """
    a_second = sum(1 / camera.interval_s for camera in cameras)
    if a_second <= polling.open_rate:
        return ""
    return (
        f"[polling]: open_rate: {a_second:.0f} pictures a second are asked for, but only"
        f" {polling.open_rate:g} sessions are opened: pictures will come later than their intervals"
        " say"
    )


def device_faults(cameras: Iterable[Camera]) -> Iterator[str]:
    """The faults of cameras that share a device but have different settings for its sessions."""
    first: dict[str, Camera] = {}
    for camera in cameras:
        other = first.setdefault(camera.device, camera)
        for key, mine, theirs in (
            ("max_sessions", camera.max_sessions, other.max_sessions),
            ("cooldown", camera.cooldown_s, other.cooldown_s),
            ("unclean_cooldown", camera.unclean_cooldown_s, other.unclean_cooldown_s),
            ("max_http", camera.max_http, other.max_http),
            ("http_cooldown", camera.http_cooldown_s, other.http_cooldown_s),
            ("lost_cooldown", camera.lost_cooldown_s, other.lost_cooldown_s),
            ("hosts", camera.hosts, other.hosts),
        ):
            if mine != theirs:
                yield (
                    f"camera {camera.id!r}: {key}: {_text(mine)} here, {_text(theirs)}"
                    f" in camera {other.id!r}, but both are sessions of device {camera.device}"
                )


def fleet_faults(fleet: FleetTable, go2rtc: Go2rtcTable) -> Iterator[str]:
    """What a host of a fleet cannot do."""
    if go2rtc.api is not None and host_of(go2rtc.api) not in LOOPBACK:
        yield (
            f"[go2rtc] api: in fleet {fleet.name}, it must be on this machine (127.0.0.1):"
            " each host counts the sessions of its own go2rtc"
        )
    if go2rtc.api is not None and not fleet.listen:
        yield (
            f"[go2rtc]: in fleet {fleet.name}, it needs [fleet] listen: the hosts tell each other"
            " the sessions of go2rtc"
        )


def _text(value: float | tuple[str, ...] | None) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return "none" if value is None else f"{value:g}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word that is most like `word`, as a question; "" when none is like it."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
