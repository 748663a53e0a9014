"""`camserver lease CAMERA -- CMD`: runs CMD while holding a lease, in the manner of flock(1).

CMD dies when this process does (the kernel sees to it), so a lease never ends before its session. Signals and the exit
status pass through. When the daemon goes away, CMD goes on, and the lease is claimed again as soon as a daemon is back.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from camserver.api.client import HeldLease, NoDaemon, SyncLeaseClient
from camserver.errors import CamserverError

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""SIGINT and SIGQUIT come from the terminal and reach CMD by themselves."""
RECLAIM_EVERY_S = 0.2
PR_SET_PDEATHSIG = 1    # linux/prctl.h


def run(client: SyncLeaseClient, camera: str, command: Sequence[str], *, wait_s: float | None = None,
        priority: str = "live", label: str = "", no_daemon_ok: bool = False) -> int:
    """Run `command` under a lease of `camera`; returns its exit status, 128 + n when signal n ended it.

    Raises RtspBusy, NoDaemon, ApiRefusal, OSError when it can't be begun.
    """
    claim = partial(client.open_lease, camera, priority=priority, label=label or Path(command[0]).name)
    held: HeldLease | None = None
    try:
        held = claim(wait_s=wait_s)
    except NoDaemon as error:
        if not no_daemon_ok:
            raise
        print(f"camserver lease: {error}; running without a lease (--no-daemon-ok)", file=sys.stderr)
    try:
        return _Watch(held, claim, keep_trying=not no_daemon_ok).run(command)
    finally:
        if held is not None:
            held.close()


class _Watch:
    """Waits for CMD's end and for the daemon's, whichever comes first, again and again."""

    def __init__(self, held: HeldLease | None, claim: partial[HeldLease], *, keep_trying: bool) -> None:
        self._held = held
        self._claim = claim
        self._keep_trying = keep_trying
        self._generation = held.granted.generation if held is not None else 0
        self._selector = selectors.DefaultSelector()

    def run(self, command: Sequence[str]) -> int:
        parent = os.getpid()
        with subprocess.Popen(command, preexec_fn=partial(_die_with, parent)) as child:  # noqa: PLW1509, S603 - one thread; the user's own
            for number in FORWARDED:
                signal.signal(number, lambda signum, _: child.send_signal(signum))
            for number in (signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, signal.SIG_IGN)
            pidfd = os.pidfd_open(child.pid)
            self._selector.register(pidfd, selectors.EVENT_READ)
            self._watch_held()
            try:
                while child.poll() is None:
                    self._wait(pidfd)
            finally:
                os.close(pidfd)
        status = child.returncode
        if status == 0 and self._held is not None:
            try:
                self._held.give_back()
            except OSError:     # the daemon went away in this very moment
                self._held.close()
        elif self._held is not None:
            self._held.close()
        return 128 - status if status < 0 else status

    def _wait(self, pidfd: int) -> None:
        timeout = RECLAIM_EVERY_S if self._held is None and self._keep_trying else None
        for key, _ in self._selector.select(timeout):
            if key.fd != pidfd and self._held is not None and not self._held.alive():
                self._selector.unregister(key.fd)
                self._held.close()
                self._held = None
                print("camserver lease: the daemon is gone; the command goes on", file=sys.stderr)
        if self._held is None and self._keep_trying:
            try:
                self._held = self._claim(wait_s=0.0, claim=self._generation)
            except CamserverError:
                return      # not there yet
            self._generation = self._held.granted.generation
            self._watch_held()
            print("camserver lease: the lease is ours again", file=sys.stderr)

    def _watch_held(self) -> None:
        if self._held is not None:
            self._selector.register(self._held.fileno(), selectors.EVENT_READ)


def _die_with(parent: int) -> None:
    """In the child, before exec: SIGKILL when the parent dies in any way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
