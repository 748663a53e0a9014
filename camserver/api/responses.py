"""The JSON of the API's answers, and the parsing of request parameters. No I/O."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from aiohttp import web

from camserver.config import Camera
from camserver.leases import Claim, DeviceStatistics, Holder, Priority, RtspManager
from camserver.model import Health, SessionEnd
from camserver.polling.entry import CameraPolling
from camserver.polling.on_demand import OnDemand
from camserver.storage.outcomes import Outcomes

MAX_WAIT_S = 3600.0
MAX_TTL_S = 7 * 86400.0
MAX_LABEL_CHARS = 64


class FleetLease(Protocol):
    """A lease of a program on this host, which a host of the fleet has given."""

    generation: int
    claim: str
    wait_s: float

    @property
    def right(self) -> tuple[float, float]:
        """When the program must begin to end, and when it must have ended (CLOCK_BOOTTIME)."""

    @property
    def may_last_s(self) -> float:
        """How long the session may go on when it must end."""

    async def extended(self) -> None:
        """Wait until the right is extended."""

    def preempted(self) -> Awaitable[str]:
        """Wait until the session must end, and say why."""

    def ended(self, end: SessionEnd) -> None:
        """Set how the session ended."""

    def abandon(self) -> None:
        """Leave the session to the program."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class FleetOfHost(Protocol):
    """What the API uses of the fleet."""

    def view(self) -> dict[str, object]:
        """Show the fleet as JSON values."""

    async def drain(self, host: str, drained: bool) -> str | None:
        """Say whether a host shall own nothing; return why that could not be said.

        Raises LookupError for an unknown host.
        """

    async def hold(self, for_s: float) -> tuple[str, tuple[str, ...]]:
        """Let all hosts have sessions for longer without the store; 0 is as ever.

        Return why that could not be said, or "", and the hosts that do not know it yet.
        """

    def owner_of(self, device: str) -> str:
        """Return the host that owns a device; "" when none does."""

    def owns(self, device: str) -> bool:
        """Return whether this host owns a device."""

    async def borrow(
        self, camera: Camera, holder: Holder, priority: Priority, wait_s: float
    ) -> FleetLease:
        """Return a lease for a program on this host. Raises RtspBusy."""

    async def cameras(self) -> dict[str, dict[str, Any]]:
        """Return what other hosts say of the cameras that they poll, by camera id."""

    async def leases(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return what other hosts say of the devices, by (host, device)."""

    async def snapshot(self, camera: Camera) -> tuple[str, str | None] | None:
        """Let the host that polls a camera take a picture; return (result, error).

        None when it cannot be asked, or when this host polls the camera.
        """

    def lines(
        self, host: str, request: web.Request, headers: Mapping[str, str], wait_s: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Let another host answer a request with JSON lines. None come when it cannot be asked.

        `headers` and `wait_s` are as for `relay`.
        """

    async def relay(
        self, host: str, request: web.Request, headers: Mapping[str, str], wait_s: float
    ) -> web.StreamResponse | None:
        """Let another host answer a request; return None when it cannot be asked.

        `headers` are sent, too. The host may take `wait_s` seconds longer than for another answer.
        """


@dataclass(frozen=True, slots=True)
class Services:
    """The functions of the daemon that the API uses."""

    cameras: Callable[[], tuple[Camera, ...]]
    folder: Callable[[str], Path]
    """Returns the folder of a camera's latest.jpg and latest.json, by its id."""
    outcomes: Outcomes
    manager: RtspManager
    polling: Callable[[], tuple[CameraPolling, ...]]
    on_demand: OnDemand
    reload: Callable[[], Awaitable[tuple[str, ...]]]
    """Reads the inventory again; returns its faults, or none when it was applied."""
    confirm_clock: Callable[[], Awaitable[str | None]]
    """Confirms the clock for retention; returns what was doubted, or None."""
    relearn: Callable[[str], Health | None]
    """Forgets what the pictures of a camera usually show; returns what was found last, or None."""
    fleet: FleetOfHost | None = None
    """None: this host is on its own."""

    def polls_here(self, camera: Camera) -> bool:
        """Whether this host polls a camera."""
        return self.fleet is None or self.fleet.owns(camera.device)

    def wanted(self, request: web.Request) -> Camera:
        """Return the camera that the request's path names. Raises 404."""
        wanted = request.match_info["id"]
        camera = next((c for c in self.cameras() if c.id == wanted), None)
        if camera is None:
            raise refusal(web.HTTPNotFound, f"no enabled camera {wanted[:64]!r}")
        return camera

    def polled_here(self, request: web.Request) -> Camera:
        """Return the camera of the path, if this host polls it. Raises 404, 503."""
        camera = self.wanted(request)
        if self.fleet is None or self.fleet.owns(camera.device):
            return camera
        raise refusal(
            web.HTTPServiceUnavailable,
            self.why_not_here(camera),
            host=self.fleet.owner_of(camera.device),
        )

    def why_not_here(self, camera: Camera) -> str:
        """Say why this host does not poll a camera of the fleet."""
        owner = "" if self.fleet is None else self.fleet.owner_of(camera.device)
        return f"{f'host {owner}' if owner else 'no host'} has the sessions of {camera.id}"


ASKED_BY_HOST = "camserver.asked_by_host"
"""Set for requests of other hosts of the fleet: they are answered from this host alone."""


def refusal(kind: type[web.HTTPException], error: str, **more: object) -> web.HTTPException:
    """Return an error answer whose JSON body says why."""
    return kind(text=json.dumps({"error": error, **more}) + "\n", content_type="application/json")


def device_view(device: DeviceStatistics, now: float) -> dict[str, Any]:
    """Return a device and its leases as JSON values. Seconds are ages or remaining times."""

    def view(holder: Holder, since: float) -> dict[str, Any]:
        return {
            "holder": holder.kind,
            "label": holder.label,
            "pid": holder.pid or None,
            "uid": holder.uid,
            "command": holder.command or None,
            "for_s": round(now - since, 3),
        }

    learned = device.learned
    return {
        "device": device.device,
        "max_sessions": device.max_sessions,
        "learned_cap": learned and {"cap": learned.cap, "for_s": round(learned.until - now, 3)},
        "held": [view(*each) for each in device.held],
        "waiting": [view(*each) for each in device.queue],
        "cooling_s": sorted(round(until - now, 3) for until in device.cooling_until),
        "granted": device.granted,
        "opened": device.opened,
        "held_s_total": round(device.held_s_total, 3),
        "busy": device.busy,
        "wait_s_total": round(device.wait_s_total, 3),
        "wait_s_max": round(device.wait_s_max, 3),
    }


def priority_of(request: web.Request) -> Priority:
    """Return the query's priority; live if none is given. Raises 400."""
    try:
        return Priority[request.query.get("priority", "live").upper()]
    except KeyError:
        raise refusal(web.HTTPBadRequest, "priority: expected live, event or poll") from None


def seconds_of(request: web.Request, name: str, default: float, most: float = MAX_WAIT_S) -> float:
    """Return a number of seconds from the query. Raises 400."""
    return _number(request, name, default, most)


def claim_of(request: web.Request) -> Claim | None:
    """Return what a client claims, or None. Raises 400."""
    text = request.query.get("claim")
    if text is None:
        return None
    try:
        return Claim.parse(text)
    except ValueError:
        raise refusal(
            web.HTTPBadRequest, "claim: expected the claim of a lease, as it was granted"
        ) from None


def _number(request: web.Request, name: str, default: float, most: float) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:  # refuses NaN, too
        raise refusal(web.HTTPBadRequest, f"{name}: expected a number from 0 to {most:g}")
    return value
