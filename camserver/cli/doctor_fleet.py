"""`camserver doctor --fleet`: whether the hosts of a fleet can do their work."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from camserver.cli.daemon_commands import EX_CONFIG, EX_TEMPFAIL
from camserver.cli.inventory import read_inventory
from camserver.errors import InventoryError, InventoryTimeout
from camserver.host.loop import run_loop


def doctor_fleet(arguments: argparse.Namespace) -> int:
    """Examine the fleet of the inventory. Returns 0 when all is well, 1 when something is not."""
    try:
        inventory = read_inventory(arguments.config)
    except InventoryError as error:
        for fault in error.faults:
            print(f"camserver doctor: {fault}", file=sys.stderr)
        return EX_TEMPFAIL if isinstance(error, InventoryTimeout) else EX_CONFIG
    table = inventory.fleet
    if table is None:
        print("camserver doctor: the inventory has no [fleet] table", file=sys.stderr)
        return 2
    from camserver.fleet.build import inventory_hash
    from camserver.fleet.examination import FleetFinding, examine

    async def work() -> list[FleetFinding]:
        found = []
        async for finding in examine(table, inventory_hash(inventory.cameras)):
            found.append(finding)
            if not arguments.json:
                advice = f"\n      {finding.advice}" if not finding.ok else ""
                print(f"{'ok  ' if finding.ok else '!!  '}  {finding.text}{advice}", flush=True)
        return found

    found = run_loop(work)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    return int(not all(finding.ok for finding in found))
