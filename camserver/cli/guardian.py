"""The guardian of `camserver lease`: it has the connection, and runs and ends CMD."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from camserver.cli.processes import adopt_orphans, begin, children, kill, say
from camserver.cli.signals import Signals
from camserver.client import (
    ApiRefusal,
    DaemonUnavailableError,
    HeldLease,
    LeaseAttempt,
    LeaseRequest,
    LeaseState,
    Right,
    SyncLeaseClient,
)
from camserver.errors import RtspBusy
from camserver.host.clock import boot_time
from camserver.host.kernel_timer import KernelTimer

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
PARENT_GONE = signal.SIGRTMIN
"""The signal that tells the guardian that the wrapper has died."""
RECLAIM_EVERY_S = 0.2
ASK_EVERY_S = 10.0
"""Seconds between requests for a lease while CMD runs without one (--no-daemon-ok)."""
LOST_GRACE_S = 5.0
"""Seconds that CMD has after SIGTERM to end its session when the lease is lost.

When the daemon withdraws a lease, it says how many seconds CMD has.
"""
KILL_BEFORE_S = 0.2
"""This long before the end of the host's right CMD and all that it left are killed."""
KILL_EVERY_S = 0.1
"""Seconds between two rounds of SIGKILL.

Children of a killed process become our children, so the rounds go on until none is left.
"""


class Guardian:
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
        self._right: Right | None = None
        self._timer: KernelTimer | None = None
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
        """Run CMD. Return its exit status when it and all that it left have ended."""
        adopt_orphans()
        inherited = (self._held.fileno(),) if self._held is not None else ()
        try:
            child = subprocess.Popen(  # noqa: S603 - the command is the user's own
                command,
                pass_fds=inherited,
                preexec_fn=partial(  # noqa: PLW1509 - there is one thread
                    begin, os.getpid(), self._signals.mask_before
                ),
            )
        except OSError as error:
            say(f"{command[0]}: {error.strerror}")
            if self._held is not None:
                with contextlib.suppress(OSError):
                    self._held.give_back()  # no session was opened
            return 127 if isinstance(error, FileNotFoundError) else 126
        self._child = child.pid
        while self._reap():
            self._wait()
        child.returncode = status = self._status or 0  # reaped here
        if self._timer is not None:
            self._timer.disarm()  # nothing is left that could have a session
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
            kill(self._child, number)
            return
        for pid in children():
            if pid not in self._told or number != self._ending:
                self._told.add(pid)
                kill(pid, number)

    def _end(self, why: str, grace_s: float) -> None:
        if self._kill_at is None:
            say(f"{why}: ending the command")
            self._kill_at = time.monotonic() + grace_s
            self._signal(signal.SIGTERM)

    # ---- waiting

    def _wait(self) -> None:
        moments = [moment for moment in (self._ask_at, self._kill_at) if moment is not None]
        if self._right is not None and self._kill_at is None:
            moments.append(time.monotonic() + self._right.end_at - boot_time())
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
        if self._right is not None:
            self._end_in_time(self._right, now)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = now + KILL_EVERY_S
            for pid in children():
                kill(pid, signal.SIGKILL)
        if self._ask_at is not None and now >= self._ask_at:
            self._ask()

    def _end_in_time(self, right: Right, now: float) -> None:
        """End CMD before the right of this host is over. Then the kernel would end all at once."""
        clock = boot_time()
        kill_in_s = right.until - KILL_BEFORE_S - clock
        if clock >= right.end_at:
            self._end("this host may not have sessions any more", kill_in_s)
        if self._kill_at is not None:
            self._kill_at = min(self._kill_at, now + max(kill_in_s, KILL_EVERY_S))

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
                say("the daemon is gone; the command goes on")
                return
        self._keep_right(held.right)

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
            say("the lease is ours" + (" again" if self._entitled else ""))
            self._entitled = True

    def _take(self, held: HeldLease) -> None:
        self._keep_right(held.right)
        self._held, self._ask_at = held, None
        self._selector.register(held, selectors.EVENT_READ)
        self._request = replace(self._request, claim=held.granted.claim)

    def _keep_right(self, right: Right | None) -> None:
        """Let the kernel end this process when this host may not have sessions any more."""
        if right is None or right == self._right:
            return
        if self._timer is None:
            self._timer = KernelTimer()
        self._right = right
        self._timer.arm(right.until)
