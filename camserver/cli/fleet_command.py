"""`camserver fleet`: the hosts that share the cameras, and which of them shall own none."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from camserver.cli.daemon_commands import answered, client, console, running

COLUMNS = ("HOST", "STATE", "DEVICES", "SILENT", "EPOCH", "WEIGHT", "LABELS", "INVENTORY")


@answered
def run(arguments: argparse.Namespace) -> int:
    """Show the fleet, or drain a host. `status` returns 1 when this host is not valid."""
    asked = running(client(arguments))
    if arguments.action == "status":
        view = asked.get("/v1/fleet")
        if arguments.json:
            print(json.dumps(view, indent=1))
        else:
            show(view, console())
        return 0 if view["valid_s"] > 0 else 1
    if not arguments.host:
        print(f"camserver fleet {arguments.action}: expected a HOST", file=sys.stderr)
        return 2
    asked.post(f"/v1/fleet/{arguments.action}?host={quote(arguments.host, safe='')}")
    print(
        f"{arguments.host} hands over its devices, and gets no others"
        if arguments.action == "drain"
        else f"{arguments.host} gets its devices again"
    )
    return 0


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
    return found + [f"a record cannot be read: {fault}" for fault in view["faults"]]
