"""What all hosts of a fleet agree on. A host with other terms refuses to start."""

from __future__ import annotations

from dataclasses import dataclass

MARGIN_S = 0.4
"""This long before the end of its validity a host has ended every session."""
CLOSE_S = 0.8
"""How long the end of a session may take: the answer to TEARDOWN is waited for."""
CLOCK_DRIFT = 0.01
"""The most that the clocks of two hosts may differ over a time, as a share of it."""
KILL_S = 0.5
"""How long the kernel may take to end a process whose time is over."""


@dataclass(frozen=True, slots=True)
class FleetTerms:
    """D, W and R of the protocol, in seconds, and whether hosts vouch for each other.

    `valid_s` (D): how long a host may open sessions after it has sent a renewal.
    `silence_s` (W): how long another host must be silent before it may be declared dead.
    `renew_s` (R): how often a host renews.
    `vouch`: hosts that cannot renew ask the others to wait for them (`vouching.py`).
    """

    valid_s: float = 5.0
    silence_s: float = 6.5
    renew_s: float = 1.0
    vouch: bool = False

    def silence_for(self, valid_s: float) -> float:
        """How long a host must be silent that may open sessions for `valid_s` after a renewal."""
        return self.silence_s + max(0.0, valid_s - self.valid_s) * (1 + 2 * CLOCK_DRIFT)

    def faults(self) -> tuple[str, ...]:
        """Why these times are not safe. Empty when they are."""
        found = []
        least = self.valid_s * (1 + 2 * CLOCK_DRIFT) + KILL_S
        if self.silence_s <= least:
            found.append(
                f"a host would be declared dead after {self.silence_s:g} s of silence, while it may"
                f" still open sessions: more than {least:g} s are needed with {self.valid_s:g} s of"
                " validity"
            )
        if self.renew_s * 3 > self.valid_s - MARGIN_S - CLOSE_S:
            found.append(
                f"a renewal every {self.renew_s:g} s is too seldom for {self.valid_s:g} s of"
                " validity: two that fail would end it"
            )
        return tuple(found)
