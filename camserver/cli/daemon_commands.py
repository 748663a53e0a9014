"""Commands that ask a running daemon: status, reload, leases, lease, snapshot.

Each command returns its exit status.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from camserver.api.responses import MAX_LABEL_CHARS
from camserver.cli import lease_command as wrapper
from camserver.cli.inventory import read_inventory
from camserver.cli.status import as_json, from_daemon, from_files, show
from camserver.client import (
    ApiRefusal,
    DaemonUnavailableError,
    LeaseRequest,
    SyncLeaseClient,
)
from camserver.client.sync import DEFAULT_SOCKET
from camserver.errors import InventoryError, RtspBusy
from camserver.host import unit

EX_UNAVAILABLE, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = (
    os.EX_UNAVAILABLE,
    os.EX_TEMPFAIL,
    os.EX_NOPERM,
    os.EX_CONFIG,
)
LEASE_COLUMNS = (
    "DEVICE",
    "BUDGET",
    "HOLDER",
    "PID",
    "COMMAND",
    "SINCE",
    "WAITING",
    "COOLING",
    "GRANTED",
    "BUSY",
)
WATCH_S = 2.0
LEASE_WAIT_S = 60.0


def client(arguments: argparse.Namespace) -> SyncLeaseClient:
    """Return a client of the daemon.

    Its socket is the first that is set of: --socket, $CAMSERVER_SOCKET, the inventory's [api]
    socket, the default.
    """
    path = _given_socket(arguments)
    if path is None:
        try:
            path = read_inventory(arguments.config, passwords=False).api.socket
        except InventoryError:
            # This user cannot read the inventory, or it has faults. The daemon may still run.
            path = DEFAULT_SOCKET
    return SyncLeaseClient(Path(path))


def _given_socket(arguments: argparse.Namespace) -> str | Path | None:
    return arguments.socket or os.environ.get("CAMSERVER_SOCKET")


def running(asked: SyncLeaseClient) -> SyncLeaseClient:
    """Return `asked`, for commands that must not start the daemon.

    A connection to systemd's socket would start a daemon that was stopped. Raises
    DaemonUnavailableError when it is stopped or has failed.
    """
    if why := unit.stopped(asked.path):
        words = "has failed" if why is unit.Stopped.FAILED else "is stopped"
        raise DaemonUnavailableError(
            f"camserver.service {words}: nothing is polled; `systemctl start camserver` starts it"
            + (", `journalctl -u camserver` says why" if why is unit.Stopped.FAILED else "")
        )
    return asked


def no_daemon(arguments: argparse.Namespace, error: DaemonUnavailableError) -> str:
    """Return the text of the error.

    When the inventory is refused, the text also says that the default socket was used, and why.
    """
    if _given_socket(arguments) is None:
        try:
            read_inventory(arguments.config, passwords=False)
        except InventoryError as refused:
            return f"{error}; the default socket was asked because of {refused.faults[0]}"
    return str(error)


def answered(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Decorate a command: print the daemon's refusal or absence, and return its exit status."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            return command(arguments)
        except DaemonUnavailableError as error:
            print(f"camserver: {no_daemon(arguments, error)}", file=sys.stderr)
            return EX_NOPERM if error.forbidden else EX_UNAVAILABLE
        except RtspBusy as error:
            print(f"camserver: {error}", file=sys.stderr)
            return EX_TEMPFAIL
        except ApiRefusal as error:
            print(f"camserver: {error}", file=sys.stderr)
            for fault in error.data.get("faults", ()):
                print(f"  {fault}", file=sys.stderr)
            if error.data.get("retry_after_s") is not None:
                print(f"  {_last_one(error.data)}", file=sys.stderr)
                return EX_TEMPFAIL
            return 2 if error.status in (400, 404) else 1

    return run


def _last_one(data: Mapping[str, Any]) -> str:
    """Say how old the picture is that is not young enough, and when to ask again."""
    age_s = data.get("age_s")
    last = "there is no picture yet" if age_s is None else f"the last picture is {age_s:.1f} s old"
    return f"{last}; ask again in {data['retry_after_s']:.0f} s"


@answered
def reload(arguments: argparse.Namespace) -> int:
    """Ask the daemon to read its inventory; wait until it has applied or refused it."""
    print(f"{running(client(arguments)).post('/v1/reload')['cameras']} cameras")
    return 0


@answered
def relearn(arguments: argparse.Namespace) -> int:
    """Let the daemon learn anew what the pictures of a camera show."""
    camera = quote(arguments.camera, safe="")
    answer = running(client(arguments)).post(f"/v1/cameras/{camera}/relearn")
    print(f"{answer['camera']}: it was {answer['was']}; what its pictures show is learned anew")
    return 0


def console() -> Console:
    """Return a console as wide as the terminal, or 200 columns wide without a terminal."""
    return Console(width=None if sys.stdout.isatty() else 200, soft_wrap=False)


def status(arguments: argparse.Namespace) -> int:
    """Print every camera, worst first.

    Returns 0 when no camera needs attention, 1 when one is stale or its disk takes no picture, and
    69 when no daemon answers; then the table is made from the files alone.
    """
    screen = console()
    if not arguments.watch or arguments.json:
        return _status(arguments, screen)
    while True:
        with screen.capture() as capture:
            _status(arguments, screen, say=partial(screen.print, style="red", markup=False))
        lines, room = capture.get().splitlines(), max(3, screen.height - 2)
        if len(lines) > room:  # the worst are first, and must stay visible
            lines = [*lines[: room - 1], f"... and {len(lines) - room + 1} lines more"]
        screen.clear()
        print(time.strftime("%H:%M:%S"), *lines, sep="\n", flush=True)
        time.sleep(WATCH_S)


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def _status(
    arguments: argparse.Namespace, console: Console, say: Callable[[str], None] = _complain
) -> int:
    try:
        found, daemon = from_daemon(running(client(arguments)).get("/v1/cameras")), True
    except DaemonUnavailableError as error:
        try:
            found, daemon = from_files(read_inventory(arguments.config, passwords=False)), False
        except InventoryError as refused:
            say(f"camserver: {error}; and the files can't be found: {refused.faults[0]}")
            return EX_UNAVAILABLE
        say(f"camserver: {error}; this is what the files say")
    except ApiRefusal as error:
        say(f"camserver: {error}")
        return 1
    if arguments.json:
        print(as_json(found, daemon=daemon))
    else:
        show(found, console)
    if not daemon:
        return EX_UNAVAILABLE
    return int(any(s.needs_attention for s in found))


@answered
def leases(arguments: argparse.Namespace) -> int:
    """Print who holds sessions of which device, one line for each holder."""
    devices = running(client(arguments)).get("/v1/leases")
    if arguments.json:
        print(json.dumps(devices, indent=1))
        return 0
    show_leases(devices, console())
    return 0


def show_leases(devices: list[dict[str, Any]], console: Console) -> None:
    """Print a table of the devices, with one line for each holder."""
    is_fleet = any("host" in device for device in devices)
    columns = [LEASE_COLUMNS[0], *(("HOST",) if is_fleet else ()), *LEASE_COLUMNS[1:]]
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for d in devices:
        host = (d.get("host", ""),) if is_fleet else ()
        learned = d["learned_cap"]
        budget = f"{len(d['held'])}/{d['max_sessions']}" + (
            f" (gives {learned['cap']} for {learned['for_s'] / 60:.0f} min)" if learned else ""
        )
        waiting = ", ".join(f"{h['holder']} {h['label']}".strip() for h in d["waiting"])
        cooling = ", ".join(f"{seconds:.1f} s" for seconds in d["cooling_s"])
        counts = (waiting, cooling, str(d["granted"]), str(d["busy"]))
        first, *others = [_holder_cells(h) for h in d["held"]] or [("", "", "", "")]
        table.add_row(*map(Text, (d["device"], *host, budget, *first, *counts)))
        for cells in others:
            table.add_row(*map(Text, ("", *("" for _ in host), "", *cells)))
    console.print(table)


def _holder_cells(h: dict[str, Any]) -> tuple[str, str, str, str]:
    return (
        f"{h['holder']} {h['label']}".strip(),
        str(h["pid"] or ""),
        h["command"] or "",
        f"{h['for_s']:.1f} s",
    )


def snapshot(arguments: argparse.Namespace, write: Callable[[bytes], int]) -> int | None:
    """Let the running daemon take a picture, and pass the JPEG to `write`.

    Returns None when no daemon answers, or when it does not know this camera.
    """

    @answered
    def ask(arguments: argparse.Namespace) -> int:
        if arguments.max_age is None:
            return write(client(arguments).snapshot(arguments.camera).jpeg)
        return write(
            client(arguments)
            .latest(
                arguments.camera,
                max_age=arguments.max_age,
                wait=arguments.wait,
                stale_ok=arguments.stale_ok,
            )
            .jpeg
        )

    try:
        running(client(arguments)).get(f"/v1/cameras/{quote(arguments.camera, safe='')}")
    except DaemonUnavailableError as error:
        # A daemon may be there. Ask again: the error then says who has permission.
        return ask(arguments) if error.forbidden else None
    except ApiRefusal:
        return None
    return ask(arguments)


@answered
def lease(arguments: argparse.Namespace) -> int:
    """Run a command while holding a lease."""
    command: list[str] = arguments.command
    if not command:
        print("camserver lease: expected a command after --", file=sys.stderr)
        return 2
    label = (arguments.label or Path(command[0]).name)[:MAX_LABEL_CHARS]
    request = LeaseRequest(
        arguments.camera, arguments.wait, arguments.priority, label, arguments.ttl
    )
    return wrapper.run(client(arguments), request, command, no_daemon_ok=arguments.no_daemon_ok)
