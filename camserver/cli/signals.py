"""Signals on a descriptor for select(2), with the information whether a process sent them.

Uses signalfd(2), which Python's standard library does not have.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable, Iterator

SFD_NONBLOCK, SFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC  # sys/signalfd.h
_INFO = struct.Struct("=Iii")  # struct signalfd_siginfo: ssi_signo, ssi_errno, ssi_code, ...
_INFO_BYTES = 128
_MASK_BYTES = 128  # sizeof(sigset_t)


class Signals:
    """A descriptor for the signals `numbers`, which are blocked in this process.

    `mask_before` is the earlier signal mask; a child must restore it.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        numbers = set(numbers)
        self.mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        mask = sum(1 << (number - 1) for number in numbers).to_bytes(_MASK_BYTES, "little")
        self._fd: int = ctypes.CDLL(None, use_errno=True).signalfd(
            -1, mask, SFD_NONBLOCK | SFD_CLOEXEC
        )
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "signalfd")

    def fileno(self) -> int:
        """Return the descriptor, for select(2)."""
        return self._fd

    def read(self) -> Iterator[tuple[int, bool]]:
        """Yield the signals that have come, as (number, whether a process sent it).

        The second is False for the signal of a terminal's key, which the whole process group gets.
        """
        while True:
            try:
                data = os.read(self._fd, _INFO_BYTES)
            except BlockingIOError:
                return
            number, _, code = _INFO.unpack_from(data)
            # SI_USER, SI_QUEUE, SI_TKILL; the kernel's own codes are positive
            yield number, code <= 0

    def close(self) -> None:
        """Close the descriptor. The signals stay blocked."""
        os.close(self._fd)
