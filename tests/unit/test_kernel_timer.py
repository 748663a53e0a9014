"""The kernel's timer ends a process that cannot end itself."""

from __future__ import annotations

import signal
import subprocess
import sys

BEGIN = """
import os, signal, sys, time
from camserver.host.clock import boot_time
from camserver.host.kernel_timer import KernelTimer
timer = KernelTimer()
"""
KILLED = -signal.SIGKILL


def ended(*lines: str) -> tuple[int, str]:
    """How a process ended, and what it said."""
    program = "\n".join((BEGIN, *lines))
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    return result.returncode, result.stdout.strip()


def test_it_kills_a_process_that_waits() -> None:
    assert ended("timer.arm(boot_time() + 0.3)", "time.sleep(60)") == (KILLED, "")


def test_it_kills_a_process_that_is_stopped() -> None:
    stop = "os.kill(os.getpid(), signal.SIGSTOP)"
    assert ended("timer.arm(boot_time() + 0.3)", stop, "print('alive')") == (KILLED, "")


def test_a_moment_in_the_past_kills_at_once() -> None:
    assert ended("timer.arm(boot_time() - 10)", "print('alive')") == (KILLED, "")


def test_a_timer_that_was_disarmed_does_nothing() -> None:
    wait = "while boot_time() < at + 0.1: pass"
    lines = ("at = boot_time() + 0.3", "timer.arm(at)", "timer.disarm()", wait, "print('alive')")
    assert ended(*lines) == (0, "alive")


def test_arming_again_moves_the_moment() -> None:
    lines = ("timer.arm(boot_time() + 3600)", "timer.arm(boot_time() + 0.2)", "time.sleep(60)")
    assert ended(*lines) == (KILLED, "")


def test_a_child_does_not_have_it() -> None:
    """Workers notice the end of the daemon by their pipe, and close their sessions."""
    child = """
at = boot_time() + 0.5
timer.arm(at)
child = os.fork()
if child:
    timer.disarm()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    while boot_time() < at + 0.1: pass
    os._exit(7)
"""
    assert ended(child) == (0, "7")
