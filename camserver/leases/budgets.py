"""The budgets of all devices of an inventory."""

from __future__ import annotations

from collections.abc import Iterable

from camserver.config import Camera
from camserver.leases.http_device import http_device
from camserver.leases.ticket import Budget


def budgets_of(cameras: Iterable[Camera]) -> dict[str, Budget]:
    """The budget of each device, and of its web server if a camera has a snapshot URL."""
    found = {}
    for camera in cameras:
        found[camera.device] = Budget(
            camera.max_sessions, camera.cooldown_s, camera.unclean_cooldown_s
        )
        if camera.snapshot_url is not None:
            found[http_device(camera.device)] = Budget(
                camera.max_http, camera.http_cooldown_s, camera.unclean_cooldown_s
            )
    return found
