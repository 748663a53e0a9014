"""`camserver fleet`: the hosts that share the cameras, and which of them shall own none."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from camserver.cli.daemon_commands import answered, client, console, running
from camserver.cli.inventory import read_inventory
from camserver.client import SyncLeaseClient
from camserver.config.fleet import NAME
from camserver.config.units import parse_duration
from camserver.errors import InventoryError

COLUMNS = ("HOST", "STATE", "DEVICES", "SILENT", "EPOCH", "WEIGHT", "LABELS", "INVENTORY")


def run(arguments: argparse.Namespace) -> int:
    """Show the fleet, drain a host, or make certificates."""
    words = {"drain": 1, "undrain": 1, "ca": len(arguments.words)}
    expected = words.get(arguments.action, 0)
    if len(arguments.words) != expected:
        print(f"camserver fleet {arguments.action}: expected {expected} HOST", file=sys.stderr)
        return 2
    return _ca(arguments) if arguments.action == "ca" else _ask(arguments)


@answered
def _ask(arguments: argparse.Namespace) -> int:
    """Ask the daemon. `status` returns 1 when this host is not valid."""
    asked = running(client(arguments))
    if arguments.action == "status":
        view = asked.get("/v1/fleet")
        if arguments.json:
            print(json.dumps(view, indent=1))
        else:
            show(view, console())
        return 0 if view["valid_s"] > 0 else 1
    if arguments.action in ("hold", "release"):
        return _hold(asked, arguments)
    (host,) = arguments.words
    asked.post(f"/v1/fleet/{arguments.action}?host={quote(host, safe='')}")
    print(
        f"{host} hands over its devices, and gets no others"
        if arguments.action == "drain"
        else f"{host} gets its devices again"
    )
    return 0


def _hold(asked: SyncLeaseClient, arguments: argparse.Namespace) -> int:
    """Begin or end a hold. 1 when a host does not know it yet."""
    query = ""
    if arguments.action == "hold":
        try:
            for_s = parse_duration(arguments.time)
        except ValueError as error:
            print(f"camserver fleet hold --for: {error}", file=sys.stderr)
            return 2
        query = f"?for={for_s:g}"
    late = asked.post(f"/v1/fleet/{arguments.action}{query}")["late"]
    if late and query:
        print(f"not known yet to {', '.join(late)}: ask again before etcd is stopped")
        return 1
    if late:
        print(f"the hold is over, but not for {', '.join(late)}: cut off, or dead for less than it")
        return 1
    print(
        f"all hosts go on for {arguments.time} without etcd; afterwards: camserver fleet release"
        if query
        else "the hold is over"
    )
    return 0


def _ca(arguments: argparse.Namespace) -> int:
    """Make the fleet's authority, or the certificate of a host."""
    try:
        from camserver.fleet import authority
    except ImportError:
        print(
            "camserver fleet ca: needs the package cryptography: pip install 'camserver[fleet]'",
            file=sys.stderr,
        )
        return 1
    folder = arguments.dir or arguments.config.absolute().parent
    try:
        match arguments.words:
            case ["init"]:
                made = authority.make_authority(folder, _fleet_name(arguments))
                print(f"{made}: give it to every host; {authority.CA_KEY} stays here, and secret")
            case ["issue", host] if re.fullmatch(NAME, host):
                certificate, key = authority.issue(folder, host)
                print(f"{certificate}, {key}: for {host}; the key is secret")
            case _:
                print("camserver fleet ca: expected init, or issue HOST", file=sys.stderr)
                return 2
    except FileExistsError as error:
        print(f"camserver fleet ca: {error.filename} is there already", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        print(f"camserver fleet ca: {why} (`camserver fleet ca init` comes first)", file=sys.stderr)
        return 1
    return 0


def _fleet_name(arguments: argparse.Namespace) -> str:
    try:
        inventory = read_inventory(arguments.config, passwords=False)
    except InventoryError:
        return ""
    return "" if inventory.fleet is None else inventory.fleet.name


def show(view: dict[str, Any], screen: Console) -> None:
    """Print the hosts, and what is wrong."""
    table = Table(*COLUMNS, box=None, pad_edge=False, header_style="bold")
    mine = next((h["inventory"] for h in view["hosts"] if h["host"] == view["host"]), None)
    for host in view["hosts"]:
        is_me = host["host"] == view["host"]
        state = host["state"] + (", drained" if host["host"] in view["drained"] else "")
        silent = "" if is_me or host["state"] in ("dead", "left") else f"{host['silent_s']:.1f} s"
        table.add_row(
            Text(host["host"] + (" (this one)" if is_me else "")),
            Text(state),
            Text(str(host["owned"])),
            Text(silent),
            Text(str(host["epoch"])),
            Text(f"{host['weight']:g}"),
            Text(", ".join(host["labels"])),
            Text("the same" if host["inventory"] == mine else "another"),
        )
    screen.print(table)
    for problem in problems(view):
        screen.print(Text(problem, style="red"))


def problems(view: dict[str, Any]) -> list[str]:
    """What an operator should know, in sentences."""
    found = []
    if view["waits_for"]:
        found.append(f"{view['host']} is not in the fleet yet: {view['waits_for']}")
    elif view["valid_s"] <= 0:
        found.append(f"{view['host']} may not have sessions now: no renewal gets through")
    if view["store"]["problem"]:
        found.append(f"the store cannot be used: {view['store']['problem']}")
    if view["hold_s"]:
        found.append(
            f"a hold is on: a dead host is replaced after {view['hold_s']:g} s (camserver fleet"
            " release)"
        )
    return found + [f"a record cannot be read: {fault}" for fault in view["faults"]]
