"""The arguments of the commands. This module imports nothing that is slow to load."""

from __future__ import annotations

import argparse
from pathlib import Path


def count(text: str) -> int:
    """Return a number from 1 to 5000. Raises ArgumentTypeError."""
    if not text.isdigit() or not 0 < int(text) <= 5000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to 5000")
    return int(text)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of `camserver run`."""
    parser.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        help="instead of the inventory's [log] level",
    )


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the options of `camserver check`."""
    parser.add_argument(
        "--without-passwords",
        action="store_true",
        help="leave out password files and systemd's credentials, which only the service can read",
    )
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of the inventory and end"
    )


def add_snapshot(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `camserver snapshot`."""
    parser.add_argument("camera", metavar="CAMERA", help="id of the camera")
    parser.add_argument(
        "-o",
        "--output",
        default="-",
        metavar="FILE|-",
        help="where the JPEG goes (default: stdout)",
    )
    parser.add_argument(
        "--max-age",
        metavar="AGE",
        help="the newest picture will do if it is no older, e.g. 5s (default: a new one is taken)",
    )
    parser.add_argument(
        "--wait",
        metavar="TIME",
        help="with --max-age: how long to wait for a new picture, e.g. 10s",
    )
    parser.add_argument(
        "--stale-ok",
        action="store_true",
        help="with --max-age: an old picture is better than none",
    )


def add_status(parser: argparse.ArgumentParser) -> None:
    """Add the options of `camserver status`."""
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--watch", action="store_true", help="again every two seconds, until Ctrl-C"
    )


def add_relearn(parser: argparse.ArgumentParser) -> None:
    """Add the options of `camserver relearn`."""
    parser.add_argument("camera", help="its id")


def add_retention(parser: argparse.ArgumentParser) -> None:
    """Add the options of `camserver retention`."""
    parser.add_argument(
        "--dry-run", action="store_true", help="show it and delete nothing (the default)"
    )
    parser.add_argument(
        "--confirm",
        action="store_true",
        help="tell the daemon that the clock is right: it deletes by age again",
    )
    parser.add_argument("--json", action="store_true")


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `camserver doctor`."""
    parser.add_argument(
        "camera",
        nargs="?",
        metavar="CAMERA|URL|FILE",
        help=(
            "id of a camera of the inventory; an rtsp, rtsps, http or https URL; or another"
            " inventory, for all its cameras"
        ),
    )
    parser.add_argument(
        "--all", action="store_true", help="every camera of the inventory, a line for each"
    )
    parser.add_argument(
        "--fleet", action="store_true", help="the hosts of the fleet, their store and certificates"
    )
    parser.add_argument(
        "--username",
        metavar="NAME",
        help="with a URL; the password is asked for, or read from stdin",
    )
    parser.add_argument(
        "--sessions",
        action="store_true",
        help="count how many sessions it gives, and the pause between two",
    )
    parser.add_argument("--json", action="store_true")


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add the options of `camserver demo`."""
    parser.add_argument(
        "--cameras",
        type=count,
        default=8,
        metavar="N",
        help="how many (default: 8, two of them with a fault)",
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="end after S seconds (default: at Ctrl-C)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json, for a command that can also print JSON."""
    parser.add_argument("--json", action="store_true")


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `camserver fleet`."""
    parser.add_argument(
        "action",
        choices=["status", "drain", "undrain", "hold", "release", "ca"],
        help=(
            "show the hosts; let a host hand over all its devices; give it devices again; let all"
            " hosts go on while etcd is away as planned; end that; make certificates"
        ),
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="HOST",
        help="for drain and undrain; for ca: init, or issue HOST",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        metavar="DIR",
        help="of the certificates (default: beside the inventory)",
    )
    parser.add_argument(
        "--for",
        dest="time",
        default="10m",
        metavar="TIME",
        help="of hold: how long hosts go on without etcd, 60s to 1h (default: 10m)",
    )
    parser.add_argument("--json", action="store_true", help="of the status")


def add_nothing(_: argparse.ArgumentParser) -> None:
    """Add nothing, for a command without arguments of its own."""


def add_lease(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `camserver lease`."""
    parser.usage = "%(prog)s [options] CAMERA -- COMMAND [ARGUMENT ...]"
    parser.epilog = (
        "ends with the command's status, 128 + n when signal n ended it; 126 or 127 when it could"
        " not be started"
    )
    add = parser.add_argument
    add("camera", metavar="CAMERA", help="id of the camera")
    add(
        "--wait",
        type=float,
        metavar="S",
        help="seconds to wait, then status 75 (default: the camera's lease_wait)",
    )
    add(
        "--priority",
        choices=["live", "event", "poll"],
        default="live",
        help="who goes first (default: live)",
    )
    add(
        "--ttl",
        type=float,
        metavar="S",
        help="the lease is withdrawn after S seconds: a bound for a holder that hangs",
    )
    add("--label", default="", help="what `camserver leases` shows (default: the command's name)")
    add(
        "--no-daemon-ok",
        action="store_true",
        help="run the command without a lease when no daemon answers, else status 69",
    )
