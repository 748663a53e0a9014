"""The command line: sub-commands and exit codes, nothing else.

Exit codes: 0 done; 1 failed; 2 wrong usage; 69 no answer from what was asked; 75 busy, try again; 78 the inventory is
refused (sysexits(3)).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from camserver import __version__

if TYPE_CHECKING:
    from camserver.config import Inventory

EX_UNAVAILABLE, EX_TEMPFAIL, EX_CONFIG = 69, 75, 78
DEFAULT_CONFIG = "/etc/camserver/cameras.toml"


def main() -> None:
    """Entry point of `camserver`."""
    arguments = _parser().parse_args()
    try:
        sys.exit(arguments.run(arguments))
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camserver", description=__import__("camserver").__doc__,
        epilog="exit status: 0 done, 1 failed, 2 usage, 69 unavailable, 75 busy, 78 inventory refused")
    parser.add_argument("--version", action="version", version=f"camserver {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        if name in ("run", "check", "snapshot"):
            sub.add_argument("--config", type=Path, metavar="FILE",
                             default=Path(os.environ.get("CAMSERVER_CONFIG", DEFAULT_CONFIG)),
                             help=f"the inventory (default: $CAMSERVER_CONFIG, {DEFAULT_CONFIG})")
        return sub

    run = command("run", _run, "run the daemon")
    run.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    check = command("check", _check, "check the inventory: a summary, or every fault and status 78")
    check.add_argument("--schema", action="store_true", help="print the JSON Schema of the inventory and end")
    snapshot = command("snapshot", _snapshot, "take one picture of one camera now, when no daemon is running")
    snapshot.add_argument("camera", metavar="CAMERA", help="id of the camera")
    snapshot.add_argument("-o", "--output", default="-", metavar="FILE|-", help="where the JPEG goes (default: stdout)")
    return parser


def _load(path: Path) -> Inventory | None:
    from camserver.config import load_inventory
    from camserver.errors import InventoryError

    try:
        return load_inventory(path)
    except InventoryError as error:
        print(f"{path}: refused, {len(error.faults)} fault(s):", file=sys.stderr)
        for fault in error.faults:
            print(f"  {fault}", file=sys.stderr)
        return None


def _run(arguments: argparse.Namespace) -> int:
    inventory = _load(arguments.config)
    if inventory is None:
        return EX_CONFIG
    import resource

    from camserver.daemon import Daemon, run_loop
    from camserver.host import logs
    from camserver.host.redact import Redactor

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))    # a core file would hold passwords
    redactor = Redactor(inventory.secrets)
    flush = logs.set_up(redactor, level=arguments.log_level)

    async def daemon() -> int:
        return await Daemon(arguments.config, inventory, redactor, logs.event_logger()).run()

    try:
        return run_loop(daemon)
    finally:
        flush()


def _check(arguments: argparse.Namespace) -> int:
    if arguments.schema:
        from camserver.config import schema

        print(json.dumps(schema(), indent=2))
        return 0
    inventory = _load(arguments.config)
    if inventory is None:
        return EX_CONFIG
    devices = {c.device for c in inventory.cameras}
    print(f"{arguments.config}: {len(inventory.cameras)} cameras on {len(devices)} devices"
          + (f", {inventory.disabled} disabled" if inventory.disabled else ""))
    print(f"pictures go to {inventory.output.directory}")
    for warning in inventory.warnings:
        print(f"warning: {warning}")
    return 0


def _snapshot(arguments: argparse.Namespace) -> int:
    inventory = _load(arguments.config)
    if inventory is None:
        return EX_CONFIG
    camera = next((c for c in inventory.cameras if c.id == arguments.camera), None)
    if camera is None:
        print(f"no enabled camera {arguments.camera!r} in {arguments.config}", file=sys.stderr)
        return 2
    from camserver.daemon import run_loop, take_one

    attempt = run_loop(lambda: take_one(inventory, camera))
    if attempt is None:
        print(f"a daemon is running: its newest picture is {inventory.output.directory / camera.id / 'latest.jpg'}",
              file=sys.stderr)
        return EX_TEMPFAIL
    if attempt.snapshot is None:
        print(attempt.error, file=sys.stderr)
        return EX_TEMPFAIL if attempt.result in ("busy", "full") else 1
    if arguments.output == "-":
        sys.stdout.buffer.write(attempt.snapshot.still.jpeg)
    else:
        Path(arguments.output).write_bytes(attempt.snapshot.still.jpeg)
    return 0
