"""How long this host may open sessions. Pure: times are of one clock, which counts in suspend, too.

A renewal counts from the moment when it was sent, and only when it is proven committed. So a host's
own idea of its validity is never longer than that of the others, who count from what they see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from camserver.fleet.terms import CLOSE_S, MARGIN_S, FleetTerms


@dataclass(slots=True)
class Validity:
    """The validity of one host in its present epoch."""

    terms: FleetTerms
    until: float = -math.inf
    """The moment at which the kernel ends this process, unless the validity is extended before."""
    renewed_at: float = -math.inf
    """When the newest renewal that is proven committed was sent."""
    _sent: dict[int, float] = field(default_factory=dict)  # by sequence number

    def sending(self, sequence: int, now: float) -> None:
        """Note that a renewal is being sent."""
        old = now - 2 * self.terms.valid_s  # such a renewal proves nothing any more
        self._sent = {number: at for number, at in self._sent.items() if at > old}
        self._sent[sequence] = now

    def committed(self, sequence: int) -> None:
        """Note that a renewal is proven committed. Earlier ones are not waited for any more.

        One that lands late, after newer ones, changes nothing.
        """
        sent_at = self._sent.get(sequence)
        if sent_at is None:
            return
        for number in [number for number in self._sent if number <= sequence]:
            del self._sent[number]
        self.renewed_at = max(self.renewed_at, sent_at)
        self.until = max(self.until, sent_at + self.terms.valid_s)

    def vouched(self, asked_at: float) -> None:
        """Note that all other live hosts promised at `asked_at` or later to wait for this one."""
        self.until = max(self.until, asked_at + self.terms.valid_s)

    def may_open(self, now: float) -> bool:
        """Whether a session may be opened or go on."""
        return now < self.sessions_end_at

    @property
    def sessions_end_at(self) -> float:
        """When this host begins to end every session, if the validity is not extended before."""
        return self.until - MARGIN_S - CLOSE_S

    def may_bury(self, now: float) -> bool:
        """Whether this host may declare others dead: its own renewals get through."""
        return now - self.renewed_at <= 1.5 * self.terms.renew_s
