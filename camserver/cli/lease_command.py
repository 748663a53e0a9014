"""`camserver lease CAMERA -- CMD`: runs CMD while holding a lease, like flock(1).

There are two processes. The wrapper is the process that the user started: it passes on signals and
the exit status. The guardian is its child: it has the connection, runs CMD and adopts the processes
that CMD leaves running.

The lease lasts as long as any process of CMD, because a lease may end only when the transport is
closed (rule one). The guardian ends with the last of these processes. When the wrapper dies, the
guardian kills them all. When the guardian dies, the kernel kills CMD, and the processes that CMD
left keep the connection, because they inherited it. After a restart of the daemon only the guardian
has the new connection: whoever then kills the guardian with SIGKILL must also kill the others.

When the daemon stops, CMD continues, and the lease is claimed again as soon as a daemon is back.
When the lease is withdrawn or lost, CMD is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from camserver.cli.signals import Signals
from camserver.client import (
    ApiRefusal,
    DaemonUnavailableError,
    HeldLease,
    LeaseAttempt,
    LeaseRequest,
    LeaseState,
    SyncLeaseClient,
)
from camserver.errors import RtspBusy

FORWARDED = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that are forwarded to CMD. Keys of the terminal reach CMD without us."""
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
PARENT_GONE = signal.SIGRTMIN
RECLAIM_EVERY_S = 0.2
ASK_EVERY_S = 10.0
"""Seconds between requests for a lease while CMD runs without one (--no-daemon-ok)."""
LOST_GRACE_S = 5.0
"""Seconds that CMD has after SIGTERM to end its session when the lease is lost.

When the daemon withdraws a lease, it says how many seconds CMD has.
"""
KILL_EVERY_S = 0.1
"""Seconds between two rounds of SIGKILL.

Children of a killed process become our children, so the rounds go on until none is left.
"""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


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
        _say(f"{error}; running without a lease (--no-daemon-ok)")
    signals = Signals((*FORWARDED, signal.SIGCHLD, PARENT_GONE))
    # Forwarded signals go through a pipe: the kernel keeps only one of two equal pending signals,
    # and another process may send the same one to the guardian.
    orders, to_guardian = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    me, guardian = os.getpid(), os.fork()
    if guardian == 0:
        status = 1
        try:
            _die_with(me, PARENT_GONE)
            os.close(to_guardian)
            status = _Guardian(client, request, held, signals, orders).run(command)
        # This is a separate process: no caller would report the error.
        except Exception as error:  # noqa: BLE001
            _say(f"internal fault: {error!r}")
        finally:
            os._exit(status)
    if held is not None:
        held.close()  # the guardian has its own copy of the connection
    os.close(orders)
    return _parent_loop(guardian, signals, to_guardian)


def _parent_loop(guardian: int, signals: Signals, to_guardian: int) -> int:
    """Pass signals on until the guardian has ended. Return its status, which is CMD's."""
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
                code = os.waitstatus_to_exitcode(status)
                return 128 - code if code < 0 else code


class _Guardian:
    """The guardian: waits for the end of CMD, signals, the daemon's notices and deadlines."""

    def __init__(
        self,
        client: SyncLeaseClient,
        request: LeaseRequest,
        held: HeldLease | None,
        signals: Signals,
        orders: int,
    ) -> None:
        self._client = client
        self._request = request
        self._signals = signals
        self._orders = orders  # numbers of signals, from the wrapper
        self._held: HeldLease | None = None
        self._attempt: LeaseAttempt | None = None
        # When to ask for a lease (again); None: no request is planned
        self._ask_at: float | None = 0.0
        self._kill_at: float | None = None
        # CMD has had a lease: it must end when the lease is lost
        self._entitled = held is not None
        self._ttl_ends = time.monotonic() + request.ttl_s if request.ttl_s else None
        self._ending: int | None = None  # the signal that ends CMD and the processes it leaves
        self._told: set[int] = set()
        self._child = 0
        self._status: int | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals, selectors.EVENT_READ)
        self._selector.register(orders, selectors.EVENT_READ)
        if held is not None:
            self._take(held)

    def run(self, command: Sequence[str]) -> int:
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # CMD's orphans become our children
        inherited = (self._held.fileno(),) if self._held is not None else ()
        try:
            child = subprocess.Popen(  # noqa: S603 - the command is the user's own
                command,
                pass_fds=inherited,
                preexec_fn=partial(  # noqa: PLW1509 - there is one thread
                    _begin, os.getpid(), self._signals.mask_before
                ),
            )
        except OSError as error:
            _say(f"{command[0]}: {error.strerror}")
            if self._held is not None:
                with contextlib.suppress(OSError):
                    self._held.give_back()  # no session was opened
            return 127 if isinstance(error, FileNotFoundError) else 126
        self._child = child.pid
        while self._reap():
            self._wait()
        child.returncode = status = self._status or 0  # reaped here
        if status == 0 and self._held is not None and self._kill_at is None:
            with contextlib.suppress(OSError):  # the daemon has just gone
                self._held.give_back()
        return 128 - status if status < 0 else status

    # ---- processes

    def _reap(self) -> bool:
        """Reap ended children. Return whether any process of CMD is left.

        When CMD was told to end and has ended, the processes that it left get the same signal.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                break
            if pid == self._child:
                self._status = os.waitstatus_to_exitcode(status)
        if self._status is not None and self._ending is not None:
            self._signal(self._ending)
        return True

    def _signal(self, number: int) -> None:
        """Send a signal to CMD, or, when CMD has ended, to the processes that it left."""
        if number in ENDING:
            self._ending = number
        if self._status is None:
            _kill(self._child, number)
            return
        for pid in _children():
            if pid not in self._told or number != self._ending:
                self._told.add(pid)
                _kill(pid, number)

    def _end(self, why: str, grace_s: float) -> None:
        if self._kill_at is None:
            _say(f"{why}: ending the command")
            self._kill_at = time.monotonic() + grace_s
            self._signal(signal.SIGTERM)

    # ---- waiting

    def _wait(self) -> None:
        moments = [moment for moment in (self._ask_at, self._kill_at) if moment is not None]
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._signals:
                self._on_signal()
            elif key.fileobj == self._orders:
                self._forward_signals()
            elif key.fileobj is self._attempt:
                self._answered(self._attempt)
            elif key.fileobj is self._held:
                self._listen(self._held)
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = now + KILL_EVERY_S
            for pid in _children():
                _kill(pid, signal.SIGKILL)
        if self._ask_at is not None and now >= self._ask_at:
            self._ask()

    def _on_signal(self) -> None:
        """Read this process's own signals; only PARENT_GONE needs an action here.

        After SIGCHLD the loop in `run` reaps children anyway. A signal that was sent to the whole
        process group also reaches the wrapper, which decides whether to forward it.
        """
        if any(number == PARENT_GONE for number, _ in self._signals.read()):
            self._kill_at = 0.0

    def _forward_signals(self) -> None:
        orders = os.read(self._orders, 64)
        if not orders:  # the wrapper is dead; PARENT_GONE reports it, too
            self._selector.unregister(self._orders)
        for number in orders:
            self._signal(number)

    def _listen(self, held: HeldLease) -> None:
        while (notice := held.next_notice()) is not None:
            if notice.state is LeaseState.WITHDRAWN:
                self._end(f"the lease is withdrawn ({notice.why})", notice.grace_s * 0.9)
            else:
                self._selector.unregister(held)
                held.close()
                self._held, self._ask_at = None, 0.0
                _say("the daemon is gone; the command goes on")
                return

    # ---- the lease, again

    def _ask(self) -> None:
        """Ask for the lease on one connection, and wait for its answer without a limit.

        A second connection would find the lease claimed by the first one.
        """
        self._ask_at = None
        left_s = None if self._ttl_ends is None else max(0.1, self._ttl_ends - time.monotonic())
        try:
            self._attempt = self._client.ask_for_lease(
                replace(self._request, ttl_s=left_s, wait_s=0.0)
            )
        except DaemonUnavailableError:
            self._ask_at = time.monotonic() + RECLAIM_EVERY_S  # the daemon is not back yet
            return
        self._selector.register(self._attempt, selectors.EVENT_READ)

    def _answered(self, attempt: LeaseAttempt) -> None:
        try:
            held = attempt.answer()
        except RtspBusy as error:
            if self._entitled:
                self._end(f"the lease is lost: {error}", LOST_GRACE_S)
            held = None
        except (DaemonUnavailableError, ApiRefusal):
            # The daemon has gone again, is stopping, or does not know the camera any more.
            held = None
        else:
            if held is None:
                return
        self._selector.unregister(attempt)
        self._attempt = None
        if held is None:
            attempt.close()
            pause_s = RECLAIM_EVERY_S if self._entitled else ASK_EVERY_S
            self._ask_at = time.monotonic() + pause_s if self._kill_at is None else None
        else:
            self._take(held)
            _say("the lease is ours" + (" again" if self._entitled else ""))
            self._entitled = True

    def _take(self, held: HeldLease) -> None:
        self._held, self._ask_at = held, None
        self._selector.register(held, selectors.EVENT_READ)
        self._request = replace(self._request, claim=held.granted.claim)


def _children() -> Iterator[int]:
    """Yield the ids of our children: CMD, and the processes that it left."""
    me = str(os.getpid())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(errors="replace")
        except OSError:
            continue
        if text.rpartition(")")[2].split()[1] == me:
            yield int(stat.parent.name)


def _kill(pid: int, number: int) -> None:
    # It has ended, or belongs to another user (sudo).
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _begin(parent: int, mask: Iterable[int]) -> None:
    """Prepare CMD's process before exec: it dies with the guardian, with the signal mask `mask`."""
    _die_with(parent, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _die_with(parent: int, number: int) -> None:
    """Let the kernel send signal `number` to this process when the parent dies in any way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"camserver lease: {text}", file=sys.stderr)
