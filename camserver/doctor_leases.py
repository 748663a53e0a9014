"""The leases under which `camserver doctor` examines a camera: of the daemon, or by the file locks without one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camserver.alone import leases_of
from camserver.api.client import ApiRefusal, LeaseClient, NoDaemon, SyncLeaseClient
from camserver.commands import running
from camserver.config import Camera, Inventory
from camserver.errors import CamserverError, RtspBusy
from camserver.leases import Holder, Priority
from camserver.records import SessionEnd

LEASE_WAIT_S = 60.0


class Forbidden(CamserverError):  # noqa: N818 - it says what is the case
    """Raised when the daemon's socket is not for this user: examining its cameras without a lease would disturb it."""


@dataclass(frozen=True, slots=True)
class Permission:
    """Sessions may be opened; `company` others are open meanwhile. `ended` is told how ours ended."""

    company: int
    ended: Callable[[SessionEnd], None]


@contextlib.asynccontextmanager
async def doctor_leases(asked: SyncLeaseClient, camera: Camera, inventory: Inventory | None, *,
                        every: bool) -> AsyncIterator[Permission]:
    """One lease of the camera's device, or with `every` all that it gives. Raises RtspBusy, Forbidden."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            permission = await _permission(stack, asked, camera, inventory, every=every)
        except RtspBusy as error:
            busy = error        # leases that were not used end in good order, not by an exception
        else:
            yield permission
            return
    raise busy


async def _permission(stack: contextlib.AsyncExitStack, asked: SyncLeaseClient, camera: Camera, inventory: Inventory | None,
                      *, every: bool) -> Permission:
    try:
        cameras = await asyncio.to_thread(lambda: running(asked).get("/v1/cameras"))
    except NoDaemon as error:
        if _forbidden(asked.path):
            raise Forbidden(f"{asked.path}: permission denied; the group camserver may ask the daemon for a lease") from None
        return await _alone(stack, camera, inventory, str(error), every=every)
    except ApiRefusal as error:
        return _without(str(error))
    known = await asyncio.to_thread(_same_box, camera, cameras)
    if known is None:
        return _without("the daemon does not know this camera")
    device = await _device(asked, known)
    budget = min(device["max_sessions"], (device["learned_cap"] or {"cap": device["max_sessions"]})["cap"])
    deadline = time.monotonic() + LEASE_WAIT_S
    held = [await stack.enter_async_context(LeaseClient(asked.path).lease(
        known["id"], wait_s=max(0.0, deadline - time.monotonic()), priority="event", label="doctor"))
        for _ in range(budget if every else 1)]

    def ended(end: SessionEnd) -> None:
        for lease in held:
            lease.clean = end is not SessionEnd.UNCLEAN

    device = await _device(asked, known)
    return Permission(len(device["held"]) - len(held) + len(device["cooling_s"]), ended)


def _forbidden(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return not os.access(path, os.W_OK)


async def _device(asked: SyncLeaseClient, known: dict[str, Any]) -> dict[str, Any]:
    devices = await asyncio.to_thread(asked.get, "/v1/leases")
    found: dict[str, Any] | None = next((d for d in devices if d["device"] == known["device"]), None)
    if found is None:
        raise RtspBusy("the daemon's inventory has just changed: try again")
    return found


def _same_box(camera: Camera, cameras: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The daemon's camera with the same host and port, by whatever name."""
    exact = [c for c in cameras if c["address"] == camera.address]
    if exact:
        return next((c for c in exact if c["id"] == camera.id), exact[0])
    here = _resolved(camera.address)
    return next((c for c in cameras if here & _resolved(c["address"])), None)


def _resolved(address: str) -> set[tuple[str, int]]:
    host, _, port = address.rpartition(":")
    try:
        infos = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {(str(info[4][0]), int(port)) for info in infos}


async def _alone(stack: contextlib.AsyncExitStack, camera: Camera, inventory: Inventory | None, why: str, *,
                 every: bool) -> Permission:
    """No daemon: snapshots, and other doctors, may be about."""
    if inventory is None:
        return _without(f"{why}; and there is no inventory")
    try:
        manager = await stack.enter_async_context(leases_of(inventory, camera, LEASE_WAIT_S))
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise RtspBusy(f"another snapshot or doctor has {camera.device} for {LEASE_WAIT_S:g} s") from None
        return _without(f"{why}; {inventory.output.directory}: {error.strerror}")
    if manager is None:
        raise RtspBusy(f"a daemon writes to {inventory.output.directory}, but {why}")
    leases = []
    for _ in range(camera.max_sessions if every else 1):
        leases.append(await manager.acquire(camera.id, camera.device, Holder("doctor", f"pid {os.getpid()}"),
                                            priority=Priority.EVENT, lease_wait_s=LEASE_WAIT_S))
        leases[-1].ended(SessionEnd.NONE)       # as long as it is not used
        stack.callback(leases[-1].release)

    def ended(end: SessionEnd) -> None:
        for lease in leases:
            lease.ended(end)

    return Permission(leases[0].company - len(leases) + 1, ended)


def _without(why: str) -> Permission:
    print(f"camserver: without a lease: {why}", file=sys.stderr)
    return Permission(0, lambda _: None)
