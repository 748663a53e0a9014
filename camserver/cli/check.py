"""`camserver check`, and the message for a refused inventory."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from camserver.cli.inventory import read_inventory

if TYPE_CHECKING:
    from camserver.config import Inventory


def load(path: Path, *, passwords: bool = True) -> Inventory | None:
    """Return the inventory; None when it is refused, after printing every fault.

    Raises SystemExit with status 75 when the disk of its files does not answer.
    """
    from camserver.errors import InventoryError, InventoryTimeout, InventoryUnreadable

    try:
        return read_inventory(path, passwords=passwords)
    except InventoryUnreadable as error:
        print(f"camserver: {error}", file=sys.stderr)
        if isinstance(error, InventoryTimeout):
            sys.exit(os.EX_TEMPFAIL)
        return None
    except InventoryError as error:
        print(f"{path}: refused, {len(error.faults)} fault(s):", file=sys.stderr)
        for fault in error.faults:
            print(f"  {fault}", file=sys.stderr)
        return None


def run(arguments: argparse.Namespace) -> int:
    """Print a summary of the inventory, or its JSON Schema. Return the exit status."""
    if arguments.schema:
        from camserver.config import schema

        print(json.dumps(schema(), indent=2))
        return 0
    inventory = load(arguments.config, passwords=not arguments.without_passwords)
    if inventory is None:
        return os.EX_CONFIG
    devices = {c.device for c in inventory.cameras}
    print(
        f"{arguments.config}: {len(inventory.cameras)} cameras on {len(devices)} devices"
        + (f", {inventory.disabled} disabled" if inventory.disabled else "")
    )
    print(f"pictures go to {inventory.output.directory}")
    for device, sharing in _sharing(inventory).items():
        print(
            f"{device}: {', '.join(sharing)} share its sessions (max_sessions); give each camera a"
            " device of its own if they are different boxes behind one address"
        )
    for warning in (*inventory.warnings, *_disk_warnings(inventory)):
        print(f"warning: {warning}")
    return 0


def _disk_warnings(inventory: Inventory) -> list[str]:
    """Return what the disk of the output directory does not allow."""
    directory, min_free = inventory.output.directory, inventory.retention.min_free
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    try:
        total = shutil.disk_usage(directory).total
    except OSError:
        return []
    if min_free is None or min_free < total:
        return []
    return [
        f"[retention]: min_free: {min_free} bytes are more than the disk of"
        f" {inventory.output.directory} has ({total}): it is ignored"
    ]


def _sharing(inventory: Inventory) -> dict[str, list[str]]:
    """Return the cameras of each shared device that has no name, only a host and a port."""
    sharing: dict[str, list[str]] = {}
    for camera in inventory.cameras:
        if camera.device == camera.address:
            sharing.setdefault(camera.device, []).append(camera.id)
    return {device: cameras for device, cameras in sharing.items() if len(cameras) > 1}
