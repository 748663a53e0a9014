"""`camserver retention`: what retention would delete now, and the confirmation of the clock."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from rich.table import Table

from camserver.archive.clock_file import ClockFile, clock_file_beside
from camserver.archive.clock_guard import judge
from camserver.archive.database import ArchiveDatabase, DamagedIndexError
from camserver.archive.plan import Plan
from camserver.archive.policy import Policy
from camserver.cli import check
from camserver.cli.daemon_commands import answered, client, console, running
from camserver.config import Inventory


@dataclass(slots=True)
class CameraPlan:
    """What would be deleted of one camera. `reasons` counts pictures."""

    pictures: int = 0
    bytes: int = 0
    deletes: int = 0
    frees: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def run(arguments: argparse.Namespace) -> int:
    """Print what would be deleted now, or confirm the clock. Return the exit status."""
    if arguments.confirm:
        return _confirm(arguments)
    inventory = check.load(arguments.config, passwords=False)
    if inventory is None:
        return os.EX_CONFIG
    path = inventory.output.index_path
    try:
        database = ArchiveDatabase(path, read_only=True)
        try:
            with database.snapshot():
                plans, facts = _plan(database, inventory)
        finally:
            database.close()
    except (sqlite3.Error, OSError, DamagedIndexError) as error:
        print(
            f"{path}: the index of the archive cannot be read: {error}; the running daemon makes"
            " it; while no daemon runs, read it as the daemon's user",
            file=sys.stderr,
        )
        return os.EX_UNAVAILABLE
    if arguments.json:
        cameras = {
            name: {
                "pictures": plan.pictures,
                "bytes": plan.bytes,
                "deletes": plan.deletes,
                "frees": plan.frees,
                "reasons": dict(plan.reasons),
            }
            for name, plan in plans.items()
        }
        print(json.dumps({"cameras": cameras, **facts}, indent=1))
    else:
        _show(plans, facts)
    return 0


@answered
def _confirm(arguments: argparse.Namespace) -> int:
    answer = running(client(arguments)).post("/v1/retention/confirm")
    doubt = answer["doubt"]
    print("nothing was in doubt" if doubt is None else f"confirmed: {doubt}")
    return 0


def _plan(
    database: ArchiveDatabase, inventory: Inventory
) -> tuple[dict[str, CameraPlan], dict[str, Any]]:
    """What a pass would delete of each camera, and the state of the index and the clock."""
    policy, now_ms = Policy.of(inventory), round(time.time() * 1000)
    plans = {
        name: CameraPlan(totals.pictures, totals.bytes)
        for name, totals in database.totals().items()
        if totals.pictures
    }
    disk = shutil.disk_usage(inventory.output.directory)
    if not policy.is_possible(disk.total):
        policy = replace(policy, min_free=None)
    counts = Plan(database, policy, now_ms).counts_by_time()
    plan = Plan(database, policy, now_ms, dry_run=True)
    for batches in (plan.by_time(), plan.by_size(disk.free, disk_full=False)):
        for batch in batches:
            for picture in batch.pictures:
                of_camera = plans[picture.camera]
                of_camera.deletes += 1
                of_camera.frees += picture.bytes
                of_camera.reasons[batch.reason.value] += 1
    record = ClockFile(clock_file_beside(inventory.output.index_path)).load()
    if record is not None:
        record = judge(record, counts.values())
    scan = database.fact("scan") or {}
    return plans, {
        "index_complete": bool(scan.get("complete")),
        "doubt": None if record is None or record.doubt is None else record.doubt.value,
        "doubt_hours": 0.0 if record is None else round(record.left_s / 3600, 1),
    }


def _show(plans: dict[str, CameraPlan], facts: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("CAMERA", "PICTURES", "MB", "DELETES", "FREES MB", "WHY"):
        table.add_column(column, justify="left" if column in ("CAMERA", "WHY") else "right")
    for name, plan in plans.items():
        why = ", ".join(f"{count} {reason}" for reason, count in plan.reasons.items())
        megabytes = (f"{plan.bytes / 1e6:.1f}", f"{plan.frees / 1e6:.1f}")
        table.add_row(name, str(plan.pictures), megabytes[0], str(plan.deletes), megabytes[1], why)
    console().print(table)
    deletes = sum(plan.deletes for plan in plans.values())
    print(
        f"a pass now would delete {deletes} of {sum(p.pictures for p in plans.values())} pictures"
    )
    if not facts["index_complete"]:
        print("the index is not complete yet: more pictures may be on the disk")
    if facts["doubt"]:
        print(
            f"nothing is deleted by age for {facts['doubt_hours']:.0f} hours: {facts['doubt']};"
            " `camserver retention --confirm` ends that"
        )
