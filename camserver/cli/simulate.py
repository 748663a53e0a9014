"""`camserver simulate`: simulated RTSP cameras, with faults and quirks, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from camserver.cli.arguments import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `camserver simulate`."""
    from camserver.simulator.camera import FAULTS
    from camserver.simulator.quirks import QUIRKS
    from camserver.simulator.snapshot_habits import HABITS, OTHER_HABITS

    habits = {name: text for name, (text, _) in HABITS.items()} | OTHER_HABITS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "faults:\n"
        + "\n".join(f"  {kind:12} {text}" for kind, text in FAULTS.items())
        + (
            "\n  FAULT@stream1 or FAULT@stream2 for one stream only; the paths are /stream1 and,"
            " half as large, /stream2\n\nquirks, of cameras that are not broken:\n"
            + "\n".join(f"  {name:18} {text}" for name, text in QUIRKS.items())
            + "\n\nhabits of snapshot URLs:\n"
            + "\n".join(f"  {name:18} {text}" for name, text in habits.items())
        )
    )
    _add_place(parser)
    _add_video(parser)
    _add_sessions(parser)
    _add_behaviour(parser)
    _add_inventory(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--cameras", type=count, default=6, metavar="N", help="how many: cam1 to camN (default: 6)")
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add(
        "--base-port",
        type=_port,
        default=8554,
        metavar="PORT",
        help="port of cam1, one more for each; 0: any (default: 8554)",
    )
    add(
        "--tls",
        nargs=2,
        type=Path,
        metavar=("CERT", "KEY"),
        help="serve rtsps:// with this certificate (PEM)",
    )
    add("--seconds", type=float, metavar="S", help="end after S seconds")
    add(
        "--until-eof",
        action="store_true",
        help="end when stdin ends: with the process that started it",
    )


def _add_video(parser: argparse.ArgumentParser) -> None:
    from camserver.simulator.camera import CODECS

    add = parser.add_argument
    add("--codec", choices=["mixed", *CODECS], default="mixed")
    add(
        "--size",
        type=_size,
        default=(640, 360),
        metavar="WxH",
        help="of the main stream, multiples of 4 (default: 640x360)",
    )
    add("--fps", type=_positive, default=10.0)
    add(
        "--gop",
        type=count,
        default=20,
        metavar="N",
        help="pictures from keyframe to keyframe, up to 100 (default: 20)",
    )


def _add_sessions(parser: argparse.ArgumentParser) -> None:
    from camserver.simulator.camera import FULL_VOICES

    add = parser.add_argument
    add(
        "--max-sessions",
        type=count,
        default=1,
        metavar="N",
        help="sessions each camera gives (default: 1)",
    )
    add(
        "--cooldown",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds a session still counts after TEARDOWN",
    )
    add(
        "--unclean-cooldown",
        type=float,
        default=0.0,
        metavar="S",
        help="the same after an end without TEARDOWN",
    )
    add(
        "--full-voice",
        choices=FULL_VOICES,
        default="453",
        help="how a camera says that its sessions are taken",
    )
    add("--username", default="", help="ask for a login")
    add("--password-file", type=Path, metavar="FILE", help="the first line is the password")
    add("--auth", choices=["digest", "basic"], default="digest")


def _add_behaviour(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--fault",
        action="append",
        default=[],
        type=_fault,
        metavar="CAMERA=FAULT",
        help='"*=FAULT" for all; may be repeated',
    )
    add(
        "--quirk",
        default="",
        type=_quirks,
        metavar="QUIRK[+QUIRK]",
        help="what all cameras do differently, see below",
    )
    add(
        "--snapshot-url",
        nargs="?",
        const="",
        type=_habits,
        metavar="HABIT",
        help="each camera has a snapshot URL, too; HABIT: what it does differently, see below",
    )
    add("--record", type=Path, metavar="FILE", help="keep what each camera saw in FILE (JSON)")


def _add_inventory(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--inventory",
        type=Path,
        metavar="FILE",
        help="write an inventory of the cameras to FILE, which must not exist yet",
    )
    add("--force", action="store_true", help="with --inventory: replace FILE if it exists")
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help=(
            "with --inventory: its pictures and its socket are in DIR (default: the "
            "system's places)"
        ),
    )
    add("--interval", default="5s", help="interval in that inventory (default: 5s)")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0, up to 1000")
    return value


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a port")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        width = height = 0
    if width % 4 or height % 4 or not 64 <= width <= 4096 or not 256 <= height <= 4096:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected WIDTHxHEIGHT, multiples of 4, 64x256 to 4096x4096"
        )
    return width, height


def _fault(text: str) -> object:
    from camserver.simulator.camera import Fault

    camera, _, fault = text.partition("=")
    try:
        return camera, Fault.parse(fault)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _quirks(text: str) -> str:
    from camserver.simulator.quirks import QUIRKS

    if strangers := set(text.split("+")) - QUIRKS.keys() - {""}:
        raise argparse.ArgumentTypeError(f"there is no quirk {', '.join(sorted(strangers))}")
    return text


def _habits(text: str) -> str:
    from camserver.simulator.snapshot_habits import HABITS, OTHER_HABITS

    if strangers := set(text.split("+")) - HABITS.keys() - OTHER_HABITS.keys() - {""}:
        raise argparse.ArgumentTypeError(f"there is no habit {', '.join(sorted(strangers))}")
    return text


def run(arguments: argparse.Namespace) -> int:
    """Serve the cameras. Return the exit status."""
    from camserver.simulator.serve import SimulateOptions, serve

    a = arguments
    try:
        password = a.password_file.read_text().split("\n", 1)[0] if a.password_file else ""
    except (OSError, ValueError) as error:
        print(
            f"camserver simulate: {a.password_file}:"
            f" {getattr(error, 'strerror', 'not UTF-8 text')}",
            file=sys.stderr,
        )
        return 2
    if fault := _inventory_fault(a):
        print(f"camserver simulate: {fault}", file=sys.stderr)
        return 2
    options = SimulateOptions(
        cameras=a.cameras,
        host=a.host,
        base_port=a.base_port,
        codec=a.codec,
        size=a.size,
        fps=a.fps,
        gop=a.gop,
        max_sessions=a.max_sessions,
        cooldown_s=a.cooldown,
        unclean_cooldown_s=a.unclean_cooldown,
        full_voice=a.full_voice,
        username=a.username,
        password=password,
        auth=a.auth,
        faults=dict(a.fault),
        quirk=a.quirk,
        snapshot_url=a.snapshot_url,
        tls=tuple(a.tls) if a.tls else None,
        record=a.record,
        inventory=a.inventory,
        interval=a.interval,
        output=a.output,
        seconds=a.seconds,
        until_eof=a.until_eof,
    )
    try:
        return asyncio.run(serve(options))
    except (ValueError, OSError) as error:
        print(f"camserver simulate: {error}", file=sys.stderr)
        return 1


def _inventory_fault(arguments: argparse.Namespace) -> str:
    """Return why the inventory cannot be written, or "" when it can."""
    path = arguments.inventory
    if path is None:
        return (
            "--force and --output go with --inventory FILE"
            if arguments.force or arguments.output is not None
            else ""
        )
    if path.is_dir() or not path.absolute().parent.is_dir():
        return f"{path}: expected the name of a file in a folder that exists"
    if path.exists() and not arguments.force:
        return f"{path} exists; --force replaces it"
    return ""
