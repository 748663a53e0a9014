"""`camserver lease CAMERA -- CMD`: runs CMD while holding a lease, like flock(1).

There are two processes. The wrapper is the process that the user started: it passes on signals and
the exit status. The guardian is its child: it has the connection, runs CMD and adopts the processes
that CMD leaves running.

The lease lasts as long as any process of CMD, because a lease may end only when the transport is
closed (rule one). The guardian ends with the last of these processes. When the wrapper dies, the
guardian kills them all. When the guardian dies, the kernel kills CMD, and the wrapper kills what
CMD has left.

When the daemon stops, CMD continues, and the lease is claimed again as soon as a daemon is back.
When the lease is withdrawn or lost, CMD is ended.

In a fleet of hosts, CMD may run only while its host may have sessions. The daemon tells until when.
At that moment the kernel ends the guardian, and CMD with it, even when all of them are stopped.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from collections.abc import Sequence

from camserver.cli.guardian import PARENT_GONE, Guardian
from camserver.cli.processes import adopt_orphans, children, die_with, kill_all, say
from camserver.cli.signals import Signals
from camserver.client import DaemonUnavailableError, HeldLease, LeaseRequest, SyncLeaseClient

FORWARDED = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that are forwarded to CMD. Keys of the terminal reach CMD without us."""


def run(
    client: SyncLeaseClient,
    request: LeaseRequest,
    command: Sequence[str],
    *,
    no_daemon_ok: bool = False,
) -> int:
    """Run `command` under a lease. Return its exit status, or 128 + n when signal n ended it.

    Raises RtspBusy, DaemonUnavailableError, ApiRefusal when there is no lease.
    """
    held: HeldLease | None = None
    try:
        held = client.open_lease(request)
    except DaemonUnavailableError as error:
        if not no_daemon_ok or error.forbidden:
            raise
        say(f"{error}; running without a lease (--no-daemon-ok)")
    signals = Signals((*FORWARDED, signal.SIGCHLD, PARENT_GONE))
    # Forwarded signals go through a pipe: the kernel keeps only one of two equal pending signals,
    # and another process may send the same one to the guardian.
    orders, to_guardian = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    mine = frozenset(children())  # a script that became this process may have had some
    adopt_orphans()
    me, guardian = os.getpid(), os.fork()
    if guardian == 0:
        status = 1
        try:
            die_with(me, PARENT_GONE)
            os.close(to_guardian)
            status = Guardian(client, request, held, signals, orders).run(command)
        # This is a separate process: no caller would report the error.
        except Exception as error:  # noqa: BLE001
            say(f"internal fault: {error!r}")
        finally:
            os._exit(status)
    if held is not None:
        held.close()  # the guardian has its own copy of the connection
    os.close(orders)
    code = _parent_loop(guardian, signals, to_guardian)
    if code < 0:
        kill_all(mine)  # a guardian that was killed could not end what CMD has left
    return 128 - code if code < 0 else code


def _parent_loop(guardian: int, signals: Signals, to_guardian: int) -> int:
    """Pass signals on until the guardian has ended. Return its status, which is CMD's.

    It is negative when a signal has ended the guardian itself.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(signals, selectors.EVENT_READ)
        while True:
            selector.select()
            for number, sent in signals.read():
                # A terminal that is gone tells only the session's leader, and that may be us
                if number in FORWARDED and (sent or number == signal.SIGHUP):
                    with contextlib.suppress(OSError):  # the guardian has just ended
                        os.write(to_guardian, bytes((number,)))
            pid, status = os.waitpid(guardian, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
