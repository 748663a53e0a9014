"""The leases under which `camserver doctor` examines a camera.

The daemon grants them. Without a daemon they are taken under the file locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from camserver.cli.daemon_commands import running
from camserver.cli.standalone import leases_of
from camserver.client import (
    ApiRefusal,
    AsyncHeldLease,
    DaemonUnavailableError,
    LeaseClient,
    SyncLeaseClient,
)
from camserver.config import Camera, Inventory
from camserver.errors import CamserverError, RtspBusy
from camserver.leases import Holder, Priority
from camserver.model import SessionEnd

LEASE_WAIT_S = 60.0
NAMES_S = 5.0
"""Seconds for the DNS look-up of all cameras' names together."""


class LeaseLost(CamserverError):  # noqa: N818 - the name states the condition
    """Raised when a lease ends during an examination: preempted, or the daemon has gone."""


@dataclass(frozen=True, slots=True)
class Permission:
    """The permission to open sessions of a device.

    `other_sessions` are open at the same time, or may still be counted by the device. Call `ended`
    with the end of our sessions. `held` are the daemon's leases, if it granted them.
    """

    other_sessions: int
    ended: Callable[[SessionEnd], None]
    held: tuple[AsyncHeldLease, ...] = ()


@contextlib.asynccontextmanager
async def doctor_leases(
    asked: SyncLeaseClient, camera: Camera, inventory: Inventory | None, *, every: bool
) -> AsyncIterator[Permission]:
    """Hold one lease of the camera's device, or with `every` as many as it gives sessions.

    The block is cancelled when a lease ends before the block does. Raises RtspBusy and LeaseLost.
    Raises DaemonUnavailableError when this user has no permission to ask the daemon: examining its
    cameras without a lease would disturb it.
    """
    try:
        async with asyncio.timeout(None) as limit, contextlib.AsyncExitStack() as stack:
            try:
                permission = await _permission(stack, asked, camera, inventory, every=every)
            except RtspBusy as error:
                # Raise it after the stack: unused leases must end as clean, not by an exception.
                busy = error
            else:
                watch = asyncio.create_task(
                    _end_with(permission.held, limit), name="leases of the doctor"
                )
                try:
                    yield permission
                finally:
                    watch.cancel()
                return
    except TimeoutError:
        if not limit.expired():
            raise
        raise LeaseLost(
            "the daemon was restarted, or wants the session back: the lease is over; try again"
        ) from None
    raise busy


async def _end_with(held: tuple[AsyncHeldLease, ...], limit: asyncio.Timeout) -> None:
    """End the block at once when the first of its leases is withdrawn or lost."""
    if not held:
        return
    over = [asyncio.ensure_future(lease.withdrawn()) for lease in held]
    try:
        await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        limit.reschedule(asyncio.get_running_loop().time())
    finally:
        for waiting in over:
            waiting.cancel()


async def _permission(
    stack: contextlib.AsyncExitStack,
    asked: SyncLeaseClient,
    camera: Camera,
    inventory: Inventory | None,
    *,
    every: bool,
) -> Permission:
    try:
        known = await _known(asked, camera)
    except DaemonUnavailableError as error:
        if error.forbidden:
            raise
        return await _alone(stack, camera, inventory, str(error), every=every)
    except ApiRefusal as error:
        return _without(str(error))
    if known is None:
        return _without("the daemon does not know this camera")
    device = await _device(asked, known)
    budget = min(
        device["max_sessions"], (device["learned_cap"] or {"cap": device["max_sessions"]})["cap"]
    )
    deadline = time.monotonic() + LEASE_WAIT_S
    held = [
        await stack.enter_async_context(
            LeaseClient(asked.path).lease(
                known["id"],
                wait_s=max(0.0, deadline - time.monotonic()),
                priority="event",
                label="doctor",
            )
        )
        for _ in range(budget if every else 1)
    ]

    def ended(end: SessionEnd) -> None:
        for lease in held:
            lease.clean = end is not SessionEnd.UNCLEAN

    device = await _device(asked, known)
    return Permission(
        len(device["held"]) - len(held) + len(device["cooling_s"]), ended, tuple(held)
    )


async def _known(asked: SyncLeaseClient, camera: Camera) -> dict[str, Any] | None:
    """Return the daemon's camera with the same host and port, or None.

    The camera with the same id is preferred. Host names match when they share an IP address.

    Raises DaemonUnavailableError, ApiRefusal.
    """
    await asyncio.to_thread(running, asked)  # it asks systemd, which may block
    with contextlib.suppress(ApiRefusal):
        known: dict[str, Any] = await asyncio.to_thread(asked.get, f"/v1/cameras/{camera.id}")
        if known["address"] == camera.address:
            return known
    cameras: list[dict[str, Any]] = await asyncio.to_thread(asked.get, "/v1/cameras")
    if exact := [c for c in cameras if c["address"] == camera.address]:
        return exact[0]
    split = {c["id"]: c["address"].rpartition(":") for c in cameras}
    host, _, port = camera.address.rpartition(":")
    found = await _addresses({host, *(theirs for theirs, _, _ in split.values())})
    return next(
        (
            c
            for c in cameras
            if split[c["id"]][2] == port
            and found.get(host, {host}) & found.get(split[c["id"]][0], set())
        ),
        None,
    )


async def _addresses(hosts: set[str]) -> dict[str, set[str]]:
    """Return the IP addresses of each host; all hosts are looked up at once.

    Hosts that are not found within NAMES_S seconds are left out.
    """

    async def look_up(host: str) -> tuple[str, set[str]]:
        infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return host, {str(info[4][0]) for info in infos}

    tasks = [asyncio.create_task(look_up(host), name=f"look-up {host}") for host in hosts]
    done, late = await asyncio.wait(tasks, timeout=NAMES_S)
    for task in late:
        task.cancel()
    return dict(task.result() for task in done if task.exception() is None)


async def _device(asked: SyncLeaseClient, known: dict[str, Any]) -> dict[str, Any]:
    devices = await asyncio.to_thread(asked.get, "/v1/leases")
    found: dict[str, Any] | None = next(
        (d for d in devices if d["device"] == known["device"]), None
    )
    if found is None:
        raise RtspBusy("the daemon's inventory has just changed: try again")
    return found


async def _alone(
    stack: contextlib.AsyncExitStack,
    camera: Camera,
    inventory: Inventory | None,
    why: str,
    *,
    every: bool,
) -> Permission:
    """Take leases without a daemon: other snapshots and doctors may run at the same time."""
    if inventory is None:
        return _without(f"{why}; and there is no inventory")
    try:
        manager = await stack.enter_async_context(leases_of(inventory, camera, LEASE_WAIT_S))
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise RtspBusy(
                f"another snapshot or doctor has {camera.device} for {LEASE_WAIT_S:g} s"
            ) from None
        return _without(f"{why}; {inventory.output.directory}: {error.strerror}")
    if manager is None:
        raise RtspBusy(f"a daemon writes to {inventory.output.directory}, but {why}")
    leases = []
    for _ in range(camera.max_sessions if every else 1):
        leases.append(
            await manager.acquire(
                camera.id,
                camera.device,
                Holder("doctor", f"pid {os.getpid()}"),
                priority=Priority.EVENT,
                lease_wait_s=LEASE_WAIT_S,
            )
        )
        leases[-1].ended(SessionEnd.NONE)  # this is its end if it is never used
        stack.callback(leases[-1].release)

    def ended(end: SessionEnd) -> None:
        for lease in leases:
            lease.ended(end)

    return Permission(leases[0].other_sessions - len(leases) + 1, ended)


def _without(why: str) -> Permission:
    print(f"camserver: without a lease: {why}", file=sys.stderr)
    return Permission(0, lambda _: None)
