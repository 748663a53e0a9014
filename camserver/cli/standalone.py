"""What opens sessions without a daemon.

Under the same file locks, leases and journal as others of its kind.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from camserver.capture.decoder import Decoder
from camserver.capture.engines import Engines
from camserver.capture.http import HttpSource
from camserver.capture.libav import LibavEngine
from camserver.capture.native import NativeEngine
from camserver.config import Camera, Inventory
from camserver.daemon import budget_of
from camserver.host.clock import utc_now
from camserver.host.lock import lock_for_snapshot
from camserver.host.redact import Redactor
from camserver.leases import Holder, RtspManager
from camserver.leases.journal import LeaseJournal
from camserver.model import Attempt, Result, SessionEnd
from camserver.snapshots.service import SnapshotService
from camserver.workers.pool import WorkerPool


@asynccontextmanager
async def leases_of(
    inventory: Inventory, camera: Camera, wait_s: float
) -> AsyncIterator[RtspManager | None]:
    """The leases of the camera's device, which nobody else has meanwhile.

    None when a daemon has the output directory.

    Raises TimeoutError when another program like this has the device for longer than `wait_s`,
    OSError when the output directory, where the locks are, can't be written.
    """
    locks = await lock_for_snapshot(inventory.output.directory, camera.device, wait_s)
    if locks is None:
        yield None
        return
    journal = LeaseJournal(
        inventory.api.socket.with_suffix(".leases"),
        lambda _, end: budget_of(camera).cooldown_after(SessionEnd(end)),
    )
    manager = RtspManager(journal)
    manager.configure({camera.device: budget_of(camera)}, {camera.id: camera.device})
    # Others may take snapshots of other devices at this moment: only the daemon writes the journal
    # anew.
    manager.restore(
        journal.join().on({camera.id: camera.device}), lambda _: camera.unclean_cooldown_s
    )
    try:
        yield manager
    finally:
        journal.close()
        for lock in locks:
            lock.close()


async def take_one(inventory: Inventory, camera: Camera) -> Attempt | None:
    """One picture of one camera; None when a daemon has the output directory.

    Cancelling it closes the session first. Raises OSError when the output directory can't be
    written.
    """
    try:
        async with leases_of(inventory, camera, camera.lease_wait_s) as manager:
            return None if manager is None else await _take(inventory, camera, manager)
    except TimeoutError:
        return Attempt(
            camera.id,
            utc_now(),
            Result.BUSY,
            f"{camera.id}: another snapshot of {camera.device} is being taken",
        )


async def _take(inventory: Inventory, camera: Camera, manager: RtspManager) -> Attempt:
    sessions, decoders = WorkerPool("session", 1), WorkerPool("decoder", 1)
    try:
        service = SnapshotService(
            manager,
            Engines(NativeEngine(), LibavEngine(sessions)),
            HttpSource(),
            Decoder(decoders, inventory.output.quality),
        )
        attempt = await service.take(camera, Holder("snapshot", f"pid {os.getpid()}"))
    finally:
        await sessions.close()
        await decoders.close()
    error = Redactor(inventory.secrets).scrub(attempt.error) if attempt.error else None
    return Attempt(attempt.camera, attempt.at, attempt.result, error, attempt.snapshot)
