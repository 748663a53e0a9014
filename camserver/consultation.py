"""`camserver doctor`: whom to examine, under which leases, and how it is told."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from camserver.alone import leases_of
from camserver.api.client import ApiRefusal, LeaseClient, NoDaemon, SyncLeaseClient
from camserver.capture.decoder import Decoder
from camserver.capture.isolation import WorkerPool
from camserver.capture.libav import LibavEngine
from camserver.commands import EX_TEMPFAIL, answered, client, running
from camserver.config import Camera, Inventory, load_inventory
from camserver.doctor import Doctor
from camserver.errors import CamserverError, InventoryError, RtspBusy
from camserver.findings import Finding
from camserver.host.loop import run_loop
from camserver.host.redact import Redactor
from camserver.leases import Holder, Priority
from camserver.records import SessionEnd

EX_NOPERM = 77
LEASE_WAIT_S = 60.0


class Forbidden(CamserverError):  # noqa: N818 - it says what is the case
    """Raised when the daemon's socket is not for this user: examining its cameras without a lease would disturb it."""


@dataclass(frozen=True, slots=True)
class Consent:
    """Sessions may be opened; `company` others are open meanwhile. `ended` is told how ours ended."""

    company: int
    ended: Callable[[SessionEnd], None]


def doctor(arguments: argparse.Namespace) -> int:
    """Examine a camera under leases: 0 when pictures can be had, 1 when not, 75 when its sessions are taken."""
    try:
        camera, inventory = _patient(arguments)
    except InventoryError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return 2
    try:
        return answered(lambda arguments: run_loop(lambda: _doctor(arguments, camera, inventory)))(arguments)
    except Forbidden as error:
        print(f"camserver: {error}", file=sys.stderr)
        return EX_NOPERM
    except asyncio.CancelledError:      # SIGTERM; its sessions are closed
        return 143


def _patient(arguments: argparse.Namespace) -> tuple[Camera, Inventory | None]:
    """The camera of the inventory, or one made of a URL; and the inventory, if there is one. Raises InventoryError."""
    wanted: str = arguments.camera
    if "://" not in wanted:
        inventory = load_inventory(arguments.config)
        camera = next((c for c in inventory.cameras if c.id == wanted), None)
        if camera is None:
            raise InventoryError((f"no enabled camera {wanted!r} in {arguments.config}",))
        return camera, inventory
    known = None
    with contextlib.suppress(InventoryError):
        known = load_inventory(arguments.config)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:       # mode 0600
        key = "url" if wanted.startswith("rtsp") else "snapshot_url"
        file.write(f'[[camera]]\nid = "camera"\n{key} = {json.dumps(wanted)}\n{_asked_password(wanted)}')
        file.flush()
        try:
            return load_inventory(Path(file.name)).cameras[0], known
        except InventoryError as error:
            raise InventoryError(tuple(fault.partition("camera 'camera': ")[2] or fault for fault in error.faults)) from None


def _asked_password(url: str) -> str:
    """A password on the command line is seen by everybody (ps); a person who leaves it out is asked."""
    with contextlib.suppress(ValueError, EOFError):
        parts = urlsplit(url)
        if parts.username and parts.password is None and sys.stdin.isatty():
            return f"password = {json.dumps(getpass.getpass(f'password of {parts.username}: '))}\n"
    return ""


async def _doctor(arguments: argparse.Namespace, camera: Camera, inventory: Inventory | None) -> int:
    redactor = Redactor((camera.password,) if camera.password else ())

    def say(finding: Finding) -> None:
        if not arguments.json:
            took = "" if finding.ms is None else f"  ({finding.ms:.0f} ms)"
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.step:12}  {finding.text}{took}", flush=True)
            if finding.advice:
                print(f"      {finding.advice}")

    sessions, decoders = WorkerPool("session", 1), WorkerPool("decoder", 1)
    try:
        async with contextlib.AsyncExitStack() as stack:
            try:
                consent = await _consent(stack, client(arguments), camera, inventory, every=arguments.sessions)
            except RtspBusy as error:       # not through the stack: leases that were not used end in good order
                print(f"camserver: {error}", file=sys.stderr)
                return EX_TEMPFAIL
            examined = Doctor(camera, Decoder(decoders, 85), LibavEngine(sessions), say, new="://" in arguments.camera,
                              company=consent.company, scrub=redactor.scrub)
            try:
                report = await examined.examine(sessions=arguments.sessions)
            finally:
                consent.ended(examined.report.end)
    finally:
        await sessions.close()
        await decoders.close()
    print(report.json() if arguments.json else f"\n{report.toml()}", end="")
    return 0 if report.ok else 1


# ---- leases

async def _consent(stack: contextlib.AsyncExitStack, asked: SyncLeaseClient, camera: Camera, inventory: Inventory | None, *,
                   every: bool) -> Consent:
    """One lease of the camera's device, or all that it gives. Raises RtspBusy, Forbidden."""
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
    return Consent(len(device["held"]) - len(held) + len(device["cooling_s"]), ended)


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
                 every: bool) -> Consent:
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

    return Consent(leases[0].company - len(leases) + 1, ended)


def _without(why: str) -> Consent:
    print(f"camserver: without a lease: {why}", file=sys.stderr)
    return Consent(0, lambda _: None)
