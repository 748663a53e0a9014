"""The command line: sub-commands and exit codes, nothing else.

Exit codes: 0 done; 1 failed; 2 wrong usage; 69 no daemon answers; 75 busy, try again; 77 no
permission; 78 the inventory is refused (sysexits(3)).
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from camserver import __version__
from camserver.cli import arguments as take
from camserver.cli import check, simulate, snapshot_command

DEFAULT_CONFIG = "/etc/camserver/cameras.toml"


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its name, its help text, its arguments, and the function that runs it."""

    name: str
    text: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    inventory: bool = True
    """Whether it has --config."""
    asks_daemon: bool = False
    """Whether it has --socket."""


def main() -> None:
    """The entry point of `camserver`."""
    words, command = sys.argv[1:], []
    if words[:1] == ["lease"] and "--" in words:  # argparse must not parse what follows
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
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.text, description=command.text)
        sub.set_defaults(run=command.run)
        if command.inventory:
            sub.add_argument(
                "--config",
                type=Path,
                metavar="FILE",
                default=Path(os.environ.get("CAMSERVER_CONFIG", DEFAULT_CONFIG)),
                help=f"the inventory (default: $CAMSERVER_CONFIG, {DEFAULT_CONFIG})",
            )
        if command.asks_daemon:
            sub.add_argument(
                "--socket",
                type=Path,
                metavar="FILE",
                help="the daemon's (default: $CAMSERVER_SOCKET, the inventory's [api] socket)",
            )
        command.add_arguments(sub)
    return parser


# A command imports what it needs when it runs, so that `--help` is fast.


def _run(arguments: argparse.Namespace) -> int:
    inventory = check.load(arguments.config)
    if inventory is None:
        return os.EX_CONFIG
    import gc
    import resource

    from camserver.daemon import Daemon
    from camserver.host import logs, memory
    from camserver.host.loop import run_loop
    from camserver.host.redact import Redactor

    memory.share_heaps()
    gc.callbacks.append(memory.ShortCollections())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold passwords
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # A shell's limit of 1024 is too low for many cameras and browsers.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    redactor = Redactor(inventory.secrets)
    flush = logs.set_up(redactor, level=arguments.log_level or inventory.log.level)

    async def daemon() -> int:
        return await Daemon(
            arguments.config,
            inventory,
            redactor,
            logs.event_logger(),
            set_log_level=(lambda _: None) if arguments.log_level else logs.set_level,
        ).run()

    try:
        return run_loop(daemon)
    finally:
        flush()


def _status(arguments: argparse.Namespace) -> int:
    from camserver.cli import daemon_commands

    return daemon_commands.status(arguments)


def _reload(arguments: argparse.Namespace) -> int:
    from camserver.cli import daemon_commands

    return daemon_commands.reload(arguments)


def _relearn(arguments: argparse.Namespace) -> int:
    from camserver.cli import daemon_commands

    return daemon_commands.relearn(arguments)


def _leases(arguments: argparse.Namespace) -> int:
    from camserver.cli import daemon_commands

    return daemon_commands.leases(arguments)


def _retention(arguments: argparse.Namespace) -> int:
    from camserver.cli import retention_command

    return retention_command.run(arguments)


def _fleet(arguments: argparse.Namespace) -> int:
    from camserver.cli import fleet_command

    return fleet_command.run(arguments)


def _lease(arguments: argparse.Namespace) -> int:
    from camserver.cli import daemon_commands

    return daemon_commands.lease(arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.fleet:
        from camserver.cli.doctor_fleet import doctor_fleet

        return doctor_fleet(arguments)
    from camserver.cli.doctor import doctor

    return doctor(arguments)


def _demo(arguments: argparse.Namespace) -> int:
    from camserver.cli.demo import demo
    from camserver.host.loop import run_loop

    return run_loop(lambda: demo(arguments.cameras, arguments.seconds))


COMMANDS = (
    Command("run", "run the daemon", take.add_run, _run),
    Command(
        "check",
        "check the inventory: a summary, or every fault and status 78",
        take.add_check,
        check.run,
    ),
    Command(
        "snapshot",
        "take one picture of one camera now, under a lease; with or without a daemon",
        take.add_snapshot,
        snapshot_command.run,
        asks_daemon=True,
    ),
    Command(
        "status",
        "every camera, worst first; 0 all fresh, 1 some stale, 69 no daemon answers",
        take.add_status,
        _status,
        asks_daemon=True,
    ),
    Command(
        "doctor",
        "what a camera is, what it gives, and what is wrong with it, step by step",
        take.add_doctor,
        _doctor,
        asks_daemon=True,
    ),
    Command(
        "reload",
        "the running daemon reads its inventory: 0 when it took it over, else every fault",
        take.add_nothing,
        _reload,
        asks_daemon=True,
    ),
    Command(
        "relearn",
        "the pictures of a camera are right as they are: learn anew what they usually show",
        take.add_relearn,
        _relearn,
        asks_daemon=True,
    ),
    Command(
        "leases",
        "who holds sessions of which device",
        take.add_json,
        _leases,
        asks_daemon=True,
    ),
    Command(
        "lease",
        "run a command while holding a lease of a camera, as flock(1) does",
        take.add_lease,
        _lease,
        asks_daemon=True,
    ),
    Command(
        "retention",
        "what retention would delete from the archive now; --confirm: the clock is right",
        take.add_retention,
        _retention,
        asks_daemon=True,
    ),
    Command(
        "fleet",
        "the hosts that share the cameras; drain a host before it is serviced",
        take.add_fleet,
        _fleet,
        asks_daemon=True,
    ),
    Command(
        "demo",
        "simulated cameras and the daemon together; writes to ./camserver-demo",
        take.add_demo,
        _demo,
        inventory=False,
    ),
    Command(
        "simulate",
        "serve simulated RTSP cameras until Ctrl-C",
        simulate.add_arguments,
        simulate.run,
        inventory=False,
    ),
)
