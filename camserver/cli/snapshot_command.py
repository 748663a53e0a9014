"""`camserver snapshot`: one picture of one camera now, with or without a daemon."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from camserver.cli import check

if TYPE_CHECKING:
    from camserver.config import Camera, Inventory
    from camserver.model import Attempt


def run(arguments: argparse.Namespace) -> int:
    """Let the running daemon take the picture. Return the exit status.

    This process takes it when no daemon answers, or when the daemon does not know the camera.
    """
    from camserver.cli import daemon_commands as commands

    if arguments.output != "-" and not Path(arguments.output).absolute().parent.is_dir():
        print(f"{arguments.output}: its folder does not exist", file=sys.stderr)
        return 2
    if arguments.max_age is None and (arguments.wait is not None or arguments.stale_ok):
        print("--wait and --stale-ok need --max-age", file=sys.stderr)
        return 2
    status = commands.snapshot(arguments, lambda jpeg: _write(jpeg, arguments.output))
    return _snapshot_here(arguments) if status is None else status


def _snapshot_here(arguments: argparse.Namespace) -> int:
    inventory = check.load(arguments.config)
    if inventory is None:
        return os.EX_CONFIG
    camera = next((c for c in inventory.cameras if c.id == arguments.camera), None)
    if camera is None:
        print(f"no enabled camera {arguments.camera!r} in {arguments.config}", file=sys.stderr)
        return 2
    try:
        stored = _stored(inventory, camera, arguments)
    except ValueError as error:
        print(f"--max-age: {error}", file=sys.stderr)
        return 2
    if stored is not None and stored.is_young:
        return _write(stored.jpeg, arguments.output)
    status = _take_and_write(inventory, camera, arguments)
    if status and stored is not None and arguments.stale_ok:
        return _write(stored.jpeg, arguments.output)
    return status


def _take_and_write(inventory: Inventory, camera: Camera, arguments: argparse.Namespace) -> int:
    try:
        attempt = _take(inventory, camera)
    except asyncio.CancelledError:  # SIGTERM; the session is closed by now
        return 143
    if attempt is None:
        print(
            f"{inventory.output.directory}: a daemon writes there, but none answers for"
            f" {camera.id}",
            file=sys.stderr,
        )
        return os.EX_UNAVAILABLE
    if attempt.snapshot is None:
        print(attempt.error, file=sys.stderr)
        return os.EX_TEMPFAIL if attempt.result in ("busy", "full") else 1
    from camserver.storage.published import jpeg_of

    return _write(jpeg_of(attempt.snapshot), arguments.output)


@dataclass(frozen=True, slots=True)
class _Stored:
    """The newest picture that a daemon has left."""

    jpeg: bytes
    is_young: bool


def _stored(inventory: Inventory, camera: Camera, arguments: argparse.Namespace) -> _Stored | None:
    """Return the stored picture when --max-age is given. Raises ValueError for a wrong --max-age.

    A picture whose age is not known is not young.
    """
    from camserver.config.units import parse_duration
    from camserver.host.files import read_regular
    from camserver.storage.exif import captured_at

    if arguments.max_age is None:
        return None
    max_age_s = parse_duration(arguments.max_age)
    if max_age_s == 0:
        raise ValueError("expected more than 0")
    try:
        jpeg = read_regular(inventory.output.directory / camera.id / "latest.jpg")
    except OSError:
        return None
    taken_at = captured_at(jpeg)
    age_s = math.inf if taken_at is None else time.time() - taken_at.timestamp()
    return _Stored(jpeg, is_young=0 <= age_s <= max_age_s)


def _take(inventory: Inventory, camera: Camera) -> Attempt | None:
    from camserver.cli.standalone import take_one
    from camserver.host.clock import utc_now
    from camserver.host.loop import run_loop
    from camserver.model import Attempt, Result

    directory = inventory.output.directory
    try:
        return run_loop(lambda: take_one(inventory, camera))
    except OSError as error:
        return Attempt(
            camera.id,
            utc_now(),
            Result.STORAGE,
            f"{directory}: {error.strerror}; it must be writable, locks are kept there",
        )


def _write(jpeg: bytes, output: str) -> int:
    if output == "-":
        sys.stdout.buffer.write(jpeg)
        sys.stdout.buffer.flush()
        return 0
    try:
        Path(output).write_bytes(jpeg)
    except OSError as error:
        print(f"{output}: {error.strerror}", file=sys.stderr)
        return 1
    return 0
