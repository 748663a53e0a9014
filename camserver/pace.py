"""Pace: how much of the event loop one connection may use.

A camera that floods must not delay the others. So its messages are processed in short turns. Over
some seconds it gets only a share of a core, and only so many bytes a second. A camera that sends
pictures does not reach these limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

TURN_S = 0.002
"""How long the messages of one connection are processed in one turn of the event loop."""
SHARE = 0.1
"""The share of a core that a connection gets in the long run."""
BURST_S = 0.5
"""How much it may use at once: a picture of 32 MB needs about half of it."""
BYTE_S = 1 / 320e6
"""What a byte costs beside its parsing. It limits a connection to 32 MB a second in the long run.
"""


class Pace:
    """The account of one connection. Call `begin` and `end` around each turn.

    A turn ends by the clock. What it costs is the CPU time of this thread: a process that had to
    wait for the processor must not blame its cameras.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self._credit_s = BURST_S
        self._begun = self._ended = clock()
        self._cpu_begun = cpu()

    def received(self, count: int) -> None:
        """Count received bytes."""
        self._credit_s -= count * BYTE_S

    def begin(self) -> None:
        """Begin a turn."""
        self._begun, self._cpu_begun = self._clock(), self._cpu()
        self._credit_s = min(BURST_S, self._credit_s + SHARE * (self._begun - self._ended))

    @property
    def turn_is_over(self) -> bool:
        """Whether the turn should end, also if there is more to do."""
        return self._clock() - self._begun >= TURN_S

    def end(self) -> float:
        """End the turn. Returns the seconds until the next one may begin."""
        self._ended = self._clock()
        self._credit_s -= (1 - SHARE) * (self._cpu() - self._cpu_begun)
        return max(0.0, -self._credit_s / SHARE)
