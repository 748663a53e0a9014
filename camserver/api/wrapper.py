"""`camserver lease CAMERA -- CMD`: runs CMD while holding a lease, in the manner of flock(1).

The lease lives for as long as any process of CMD (rule one): CMD inherits the connection, so the kernel keeps it open for
whatever CMD leaves running, and this process waits for orphans of CMD as for CMD. When this process dies, the kernel
kills CMD. Signals and the exit status pass through. When the daemon goes away, CMD goes on, and the lease is claimed
again as soon as a daemon is back; when the lease is withdrawn or lost, CMD is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from camserver.api.client import ApiRefusal, HeldLease, LeaseRequest, NoDaemon, SyncLeaseClient
from camserver.errors import RtspBusy

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""SIGINT and SIGQUIT come from the terminal and reach CMD by themselves."""
RECLAIM_EVERY_S = 0.2
RECLAIM_TIMEOUT_S = 5.0
LOST_GRACE_S = 5.0
"""For CMD to end its session after SIGTERM when the lease is lost; the daemon says how long when it withdraws one."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36    # linux/prctl.h


def run(client: SyncLeaseClient, request: LeaseRequest, command: Sequence[str], *, no_daemon_ok: bool = False) -> int:
    """Run `command` under a lease; returns its exit status, 128 + n when signal n ended it.

    Raises RtspBusy, NoDaemon, ApiRefusal, OSError when it can't be begun.
    """
    held: HeldLease | None = None
    try:
        held = client.open_lease(request)
    except NoDaemon as error:
        if not no_daemon_ok:
            raise
        print(f"camserver lease: {error}; running without a lease (--no-daemon-ok)", file=sys.stderr)
    watch = _Watch(client, request, held)
    try:
        return watch.run(command)
    finally:
        watch.close()


class _Watch:
    """Waits for the end of CMD, for the daemon's word and for time to pass, whichever comes first, again and again."""

    def __init__(self, client: SyncLeaseClient, request: LeaseRequest, held: HeldLease | None) -> None:
        self._client = client
        self._request = request
        self._held = held
        self._reclaims = False      # the daemon is gone, and the lease was ours
        self._kill_at: float | None = None
        self._selector = selectors.DefaultSelector()
        self._wake, self._wake_end = socket.socketpair()    # written to by the interpreter at each signal
        self._status: int | None = None
        if held is not None:
            self._take(held)

    def run(self, command: Sequence[str]) -> int:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)     # CMD's orphans become our children
        for end in (self._wake, self._wake_end):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake_end.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)      # a handler must be there for the wake-up
        inherited = (self._held.fileno(),) if self._held is not None else ()
        child = subprocess.Popen(command, preexec_fn=partial(_die_with, os.getpid()), pass_fds=inherited)  # noqa: PLW1509, S603 - one thread; the user's own
        for number in FORWARDED:
            signal.signal(number, lambda signum, _: self._signal(child.pid, signum))
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        while self._reap(child.pid):
            self._wait(child.pid)
        child.returncode = self._status     # reaped here
        status = self._status or 0
        if status == 0 and self._held is not None and self._kill_at is None:
            with contextlib.suppress(OSError):     # the daemon went away in this very moment
                self._held.give_back()
        return 128 - status if status < 0 else status

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
        signal.set_wakeup_fd(-1)
        for end in (self._wake, self._wake_end, self._selector):
            end.close()

    # ---- processes

    def _reap(self, child: int) -> bool:
        """Whether any process of CMD is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == child:
                self._status = os.waitstatus_to_exitcode(status)

    def _signal(self, child: int, number: int) -> None:
        """To CMD; to what it has left running when it has ended itself."""
        for pid in [child] if self._status is None else list(_children()):
            _kill(pid, number)

    # ---- waiting

    def _wait(self, child: int) -> None:
        moments = [time.monotonic() + RECLAIM_EVERY_S] * self._reclaims
        moments += [] if self._kill_at is None else [self._kill_at]
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._wake:
                self._wake.recv(4096)
            elif self._held is not None:
                self._listen(child, self._held)
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = time.monotonic() + RECLAIM_EVERY_S      # what CMD leaves becomes ours: again, until none is left
            for pid in _children():
                _kill(pid, signal.SIGKILL)
        if self._reclaims:
            self._reclaim(child)

    def _listen(self, child: int, held: HeldLease) -> None:
        while (word := held.word()) is not None:
            if word.state == "withdrawn":
                self._end(child, f"the lease is withdrawn ({word.why})", word.grace_s * 0.9)
            else:
                self._selector.unregister(held)
                held.close()
                self._held, self._reclaims = None, self._kill_at is None
                if self._reclaims:
                    self._say("the daemon is gone; the command goes on")
                return

    def _reclaim(self, child: int) -> None:
        try:
            self._take(self._client.open_lease(self._request, timeout_s=RECLAIM_TIMEOUT_S))
        except NoDaemon:
            return      # not there yet
        except RtspBusy as error:
            self._end(child, f"the lease is lost: {error}", LOST_GRACE_S)
        except ApiRefusal as error:
            if error.status == 503:     # it is just stopping, or has too many connections
                return
            self._say(f"{error}; the command goes on without a lease")
        else:
            self._say("the lease is ours again")
        self._reclaims = False

    def _take(self, held: HeldLease) -> None:
        self._held = held
        self._selector.register(held, selectors.EVENT_READ)
        self._request = replace(self._request, wait_s=0.0, claim=held.granted.generation)

    def _end(self, child: int, why: str, grace_s: float) -> None:
        if self._kill_at is None:
            self._say(f"{why}: ending the command")
            self._kill_at = time.monotonic() + grace_s
            self._signal(child, signal.SIGTERM)

    @staticmethod
    def _say(text: str) -> None:
        print(f"camserver lease: {text}", file=sys.stderr)


def _children() -> Iterator[int]:
    """Our own children: CMD, and what it has left."""
    me = str(os.getpid())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        if text.rpartition(")")[2].split()[1] == me:
            yield int(stat.parent.name)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _die_with(parent: int) -> None:
    """In the child, before exec: SIGKILL when the parent dies in any way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
