"""How long this host may open sessions. Pure: times are of one clock, which counts in suspend, too.

A renewal counts from the moment when it was sent, and only when it is proven committed. So a host's
own idea of its validity is never longer than that of the others, who count from what they see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from camserver.fleet.terms import CLOSE_S, MARGIN_S, FleetTerms


@dataclass(frozen=True, slots=True)
class Sent:
    """A renewal that was sent."""

    at: float
    valid_s: float

    @property
    def until(self) -> float:
        """How long this host may have sessions, if it is committed."""
        return self.at + self.valid_s


@dataclass(slots=True)
class Validity:
    """The validity of one host in its present epoch."""

    terms: FleetTerms
    until: float = -math.inf
    """The moment at which the kernel ends this process, unless the validity is extended before."""
    renewed_at: float = -math.inf
    """When the newest renewal that is proven committed was sent."""
    _sent: dict[int, Sent] = field(default_factory=dict)  # by sequence number

    def sending(self, sequence: int, now: float, valid_s: float) -> None:
        """Note that a renewal is being sent which says `valid_s`.

        Others may see it from now on, and wait for no longer than it says. So an earlier one that
        said more (a hold was on) counts no longer than this one would.
        """
        self._sent = {
            number: sent
            for number, sent in self._sent.items()
            if sent.until > now and sent.valid_s <= valid_s  # others prove nothing any more
        }
        self._sent[sequence] = Sent(now, valid_s)
        self.until = min(self.until, now + valid_s)

    def committed(self, sequence: int) -> None:
        """Note that a renewal is proven committed. Earlier ones are not waited for any more.

        One that lands late, after newer ones, changes nothing.
        """
        sent = self._sent.get(sequence)
        if sent is None:
            return
        for number in [number for number in self._sent if number <= sequence]:
            del self._sent[number]
        self.renewed_at = max(self.renewed_at, sent.at)
        self.until = max(self.until, sent.until)

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
