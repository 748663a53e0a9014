"""Leases and pictures without a daemon.

Several such processes share the file locks and the journal.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from camserver.capture.build import build_capture
from camserver.config import Camera, Inventory
from camserver.errors import RtspBusy
from camserver.host.clock import utc_now
from camserver.host.lock import lock_for_snapshot
from camserver.host.redact import Redactor
from camserver.leases import Holder, RtspManager, budgets_of
from camserver.leases.journal import LeaseJournal, load
from camserver.model import Attempt, Result
from camserver.snapshots.service import SnapshotService
from camserver.snapshots.sources import Sources


@asynccontextmanager
async def leases_of(
    inventory: Inventory, camera: Camera, wait_s: float
) -> AsyncIterator[RtspManager | None]:
    """Lock the camera's device for this process, and yield a manager of its leases.

    Yields None when a daemon has the output directory.

    Raises RtspBusy on a host of a fleet, TimeoutError when another process has the device for
    longer than `wait_s`, OSError when the output directory, where the locks are, cannot be written.
    """
    if inventory.fleet is not None:
        raise RtspBusy(
            "this host is in a fleet, and its daemon does not run: another host may have the"
            " sessions; ask a host whose daemon runs",
            camera=camera.id,
        )
    locks = await lock_for_snapshot(inventory.output.directory, camera.device, wait_s)
    if locks is None:
        yield None
        return
    # Other processes may take snapshots of other devices now. So this one only appends to the
    # journal; only the daemon rewrites it.
    journal = LeaseJournal(inventory.api.socket.with_suffix(".leases"), shared=True)
    state = load(journal.path).on({camera.id: camera.device})
    state.generation = max(state.generation, unique_generation())
    manager = RtspManager(journal=journal)
    manager.configure(budgets_of([camera]), {camera.id: camera.device})
    manager.restore(state)
    try:
        yield manager
    finally:
        journal.close()
        for lock in locks:
            lock.close()


def unique_generation() -> int:
    """Return a generation that no other process uses; they do not know each other's numbers."""
    return int(time.time() * 1000) * 1000 + os.getpid() % 1000


async def take_one(inventory: Inventory, camera: Camera) -> Attempt | None:
    """Take one picture of one camera; None when a daemon has the output directory.

    When it is cancelled, it closes the session first. Raises OSError when the output directory
    cannot be written.
    """
    try:
        async with leases_of(inventory, camera, camera.lease_wait_s) as manager:
            return None if manager is None else await _take(inventory, camera, manager)
    except RtspBusy as busy:
        return Attempt(camera.id, utc_now(), Result.BUSY, str(busy))
    except TimeoutError:
        return Attempt(
            camera.id,
            utc_now(),
            Result.BUSY,
            f"{camera.id}: another snapshot of {camera.device} is being taken",
        )


async def _take(inventory: Inventory, camera: Camera, manager: RtspManager) -> Attempt:
    async with build_capture(inventory.output.quality) as capture:
        service = SnapshotService(manager, Sources(capture.rtsp, capture.http), capture.decoder)
        attempt = await service.take(camera, Holder("snapshot", f"pid {os.getpid()}"))
    line = Redactor(inventory.secrets).line
    return replace(
        attempt, error=line(attempt.error) if attempt.error else None, label=line(attempt.label)
    )
