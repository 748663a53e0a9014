"""The command line: sub-commands and exit codes, nothing else.

Exit codes: 0 done; 1 failed; 2 wrong usage; 69 no answer from what was asked; 75 busy, try again;
78 the inventory is refused (sysexits(3)).
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from camserver import __version__

if TYPE_CHECKING:
    from camserver.config import Camera, Inventory
    from camserver.model import Attempt

EX_TEMPFAIL, EX_CONFIG = os.EX_TEMPFAIL, os.EX_CONFIG
ASKING = ("status", "doctor", "reload", "leases", "lease", "snapshot")
"""Commands that ask a running daemon."""
DEFAULT_CONFIG = "/etc/camserver/cameras.toml"


def main() -> None:
    """Entry point of `camserver`."""
    words, command = sys.argv[1:], []
    if words[:1] == ["lease"] and "--" in words:  # what follows is not ours to understand
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    arguments = _parser().parse_args(words)
    arguments.command = command
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # `camserver leases | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        print(f"camserver: what is to be said cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camserver",
        description=__import__("camserver").__doc__,
        epilog=(
            "exit status: 0 done, 1 failed, 2 usage, 69 unavailable, 75 busy, 77 not permitted, 78"
            " inventory refused"
        ),
    )
    parser.add_argument("--version", action="version", version=f"camserver {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        if name not in ("simulate", "demo"):
            sub.add_argument(
                "--config",
                type=Path,
                metavar="FILE",
                default=Path(os.environ.get("CAMSERVER_CONFIG", DEFAULT_CONFIG)),
                help=f"the inventory (default: $CAMSERVER_CONFIG, {DEFAULT_CONFIG})",
            )
        if name in ASKING:
            sub.add_argument(
                "--socket",
                type=Path,
                metavar="FILE",
                help="the daemon's (default: $CAMSERVER_SOCKET, the inventory's [api] socket)",
            )
        return sub

    run = command("run", _run, "run the daemon")
    run.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    check = command("check", _check, "check the inventory: a summary, or every fault and status 78")
    check.add_argument(
        "--without-passwords",
        action="store_true",
        help="leave out password files and systemd's credentials, which only the service can read",
    )
    check.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of the inventory and end"
    )
    snapshot = command(
        "snapshot",
        _snapshot,
        "take one picture of one camera now, under a lease; with or without a daemon",
    )
    snapshot.add_argument("camera", metavar="CAMERA", help="id of the camera")
    snapshot.add_argument(
        "-o",
        "--output",
        default="-",
        metavar="FILE|-",
        help="where the JPEG goes (default: stdout)",
    )
    status = command(
        "status",
        _asking("status"),
        "every camera, worst first; 0 all fresh, 1 some stale, 69 no daemon answers",
    )
    status.add_argument("--json", action="store_true")
    status.add_argument(
        "--watch", action="store_true", help="again every two seconds, until Ctrl-C"
    )
    doctor = command(
        "doctor",
        _doctor,
        "what a camera is, what it gives, and what is wrong with it, step by step",
    )
    doctor.add_argument(
        "camera",
        nargs="?",
        metavar="CAMERA|URL|FILE",
        help=(
            "id of a camera of the inventory; an rtsp, rtsps, http or https URL; or another"
            " inventory, for all its cameras"
        ),
    )
    doctor.add_argument(
        "--all", action="store_true", help="every camera of the inventory, a line for each"
    )
    doctor.add_argument(
        "--username",
        metavar="NAME",
        help="with a URL; the password is asked for, or read from stdin",
    )
    doctor.add_argument(
        "--sessions",
        action="store_true",
        help="count how many sessions it gives, and the pause between two",
    )
    doctor.add_argument("--json", action="store_true")
    command(
        "reload",
        _asking("reload"),
        "the running daemon reads its inventory: 0 when it took it over, else every fault",
    )
    command("leases", _asking("leases"), "who holds sessions of which device").add_argument(
        "--json", action="store_true"
    )
    _add_lease(
        command(
            "lease",
            _asking("lease"),
            "run a command while holding a lease of a camera, as flock(1) does",
        )
    )
    demo = command(
        "demo", _demo, "simulated cameras and the daemon together; writes to ./camserver-demo"
    )
    demo.add_argument(
        "--cameras",
        type=_count,
        default=8,
        metavar="N",
        help="how many (default: 8, two of them with a fault)",
    )
    demo.add_argument(
        "--seconds", type=float, metavar="S", help="end after S seconds (default: at Ctrl-C)"
    )
    _add_simulate(command("simulate", _simulate, "serve simulated RTSP cameras until Ctrl-C"))
    return parser


def _asking(name: str) -> object:
    def run(arguments: argparse.Namespace) -> int:
        from camserver.cli import daemon_commands as commands

        status: int = getattr(commands, name)(arguments)
        return status

    return run


def _doctor(arguments: argparse.Namespace) -> int:
    from camserver.cli.doctor import doctor

    return doctor(arguments)


def _add_lease(parser: argparse.ArgumentParser) -> None:
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


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    from camserver.simulator.camera import CODECS, FAULTS, FULL_VOICES
    from camserver.simulator.quirks import QUIRKS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "faults:\n"
        + "\n".join(f"  {kind:12} {text}" for kind, text in FAULTS.items())
        + (
            "\n  FAULT@stream1 or FAULT@stream2 for one stream only; the paths are /stream1 and,"
            " half as large, /stream2\n\nquirks, of cameras that are not broken:\n"
            + "\n".join(f"  {name:18} {text}" for name, text in QUIRKS.items())
        )
    )
    add = parser.add_argument
    add(
        "--cameras", type=_count, default=6, metavar="N", help="how many: cam1 to camN (default: 6)"
    )
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add(
        "--base-port",
        type=_port,
        default=8554,
        metavar="PORT",
        help="port of cam1, one more for each; 0: any (default: 8554)",
    )
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
        type=_count,
        default=20,
        metavar="N",
        help="pictures from keyframe to keyframe, up to 100 (default: 20)",
    )
    add(
        "--max-sessions",
        type=_count,
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
        "--tls",
        nargs=2,
        type=Path,
        metavar=("CERT", "KEY"),
        help="serve rtsps:// with this certificate (PEM)",
    )
    add("--record", type=Path, metavar="FILE", help="keep what each camera saw in FILE (JSON)")
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
    add("--seconds", type=float, metavar="S", help="end after S seconds")
    add(
        "--until-eof",
        action="store_true",
        help="end when stdin ends: with the process that started it",
    )


def _count(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 5000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 to 5000")
    return int(text)


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


def _load(path: Path, *, passwords: bool = True) -> Inventory | None:
    from camserver.config import load_inventory
    from camserver.errors import InventoryError, InventoryUnreadable

    try:
        return load_inventory(path, passwords=passwords)
    except InventoryUnreadable as error:
        print(f"camserver: {error}", file=sys.stderr)
        return None
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

    from camserver.daemon import Daemon
    from camserver.host import logs
    from camserver.host.loop import run_loop
    from camserver.host.redact import Redactor

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold passwords
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # A shell's 1024 are few for cameras and browsers
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
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
    inventory = _load(arguments.config, passwords=not arguments.without_passwords)
    if inventory is None:
        return EX_CONFIG
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
    for warning in inventory.warnings:
        print(f"warning: {warning}")
    return 0


def _sharing(inventory: Inventory) -> dict[str, list[str]]:
    """Devices that nobody named, but that several cameras share: one host, one port."""
    sharing: dict[str, list[str]] = {}
    for camera in inventory.cameras:
        if camera.device == camera.address:
            sharing.setdefault(camera.device, []).append(camera.id)
    return {device: cameras for device, cameras in sharing.items() if len(cameras) > 1}


def _snapshot(arguments: argparse.Namespace) -> int:
    """The running daemon is asked.

    Without one, or when it does not know the camera, it is done here.
    """
    from camserver.cli import daemon_commands as commands

    if arguments.output != "-" and not Path(arguments.output).absolute().parent.is_dir():
        print(f"{arguments.output}: its folder does not exist", file=sys.stderr)
        return 2
    status = commands.snapshot(arguments, lambda jpeg: _write(jpeg, arguments.output))
    return _snapshot_here(arguments) if status is None else status


def _snapshot_here(arguments: argparse.Namespace) -> int:
    inventory = _load(arguments.config)
    if inventory is None:
        return EX_CONFIG
    camera = next((c for c in inventory.cameras if c.id == arguments.camera), None)
    if camera is None:
        print(f"no enabled camera {arguments.camera!r} in {arguments.config}", file=sys.stderr)
        return 2
    try:
        attempt = _take(inventory, camera)
    except asyncio.CancelledError:  # SIGTERM; the session is closed
        return 143
    if attempt is None:
        print(
            f"{inventory.output.directory}: a daemon writes there, but none answers for"
            f" {camera.id}",
            file=sys.stderr,
        )
        return 69
    if attempt.snapshot is None:
        print(attempt.error, file=sys.stderr)
        return EX_TEMPFAIL if attempt.result in ("busy", "full") else 1
    from camserver.storage.published import jpeg_of

    return _write(jpeg_of(attempt.snapshot), arguments.output)


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


def _simulate(arguments: argparse.Namespace) -> int:
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
    if a.inventory is None and (a.force or a.output is not None):
        print("camserver simulate: --force and --output go with --inventory FILE", file=sys.stderr)
        return 2
    if a.inventory is not None and (
        a.inventory.is_dir() or not a.inventory.absolute().parent.is_dir()
    ):
        print(
            f"camserver simulate: {a.inventory}: expected the name of a file in a folder that"
            " exists",
            file=sys.stderr,
        )
        return 2
    if a.inventory is not None and a.inventory.exists() and not a.force:
        print(f"camserver simulate: {a.inventory} exists; --force replaces it", file=sys.stderr)
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


def _demo(arguments: argparse.Namespace) -> int:
    from camserver.cli.demo import demo
    from camserver.host.loop import run_loop

    return run_loop(lambda: demo(arguments.cameras, arguments.seconds))
