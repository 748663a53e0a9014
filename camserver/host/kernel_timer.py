"""A timer of the kernel that kills this process at a moment, whatever the process is doing.

A process that is stopped (SIGSTOP, a debugger, a cgroup freezer) keeps its TCP sessions and cannot
end them. The kernel can: SIGKILL also ends a stopped process. The timer counts on CLOCK_BOOTTIME,
so the time of a suspend counts, too (timer_create(2), clock_gettime(2)). Python has no interface
for it, so this calls libc.

fork(2) and execve(2) drop the timer: workers are not killed by it. It does not act on a process
that waits in the kernel for a disk (state D), nor while a whole virtual machine is paused.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
from collections.abc import Callable

CLOCK_BOOTTIME = 7
TIMER_ABSTIME = 1
SIGEV_SIGNAL = 0


class _Sigevent(ctypes.Structure):
    """struct sigevent of Linux: 64 bytes, of which the first three fields are used."""

    _fields_ = (
        ("sigev_value", ctypes.c_void_p),
        ("sigev_signo", ctypes.c_int),
        ("sigev_notify", ctypes.c_int),
        ("_rest", ctypes.c_char * 48),
    )


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class KernelTimer:
    """The timer. It does nothing until `arm`.

    Raises OSError when the kernel gives none.
    """

    def __init__(self, number: signal.Signals = signal.SIGKILL) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _Sigevent(None, number, SIGEV_SIGNAL)
        _check(
            self._libc.timer_create, CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._timer)
        )

    def arm(self, at: float) -> None:
        """Kill the process at a moment (seconds of CLOCK_BOOTTIME), instead of the one before.

        A moment that has passed kills it at once. Raises OSError.
        """
        fraction, seconds = math.modf(at)
        self._set(_Timespec(int(seconds), max(1, int(fraction * 1e9))))  # 0 would disarm it

    def disarm(self) -> None:
        """Let the process live. Raises OSError."""
        self._set(_Timespec(0, 0))

    def _set(self, value: _Timespec) -> None:
        times = _Itimerspec(_Timespec(0, 0), value)
        _check(self._libc.timer_settime, self._timer, TIMER_ABSTIME, ctypes.byref(times), None)


def _check(call: Callable[..., int], *arguments: object) -> None:
    if call(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
