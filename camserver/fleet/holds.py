"""Until when each host may have sessions by a hold, as far as this process has ever seen. Pure.

Records may be removed, and a store may be restored from a backup. A host that was seen to be valid
for long may still be so then, although the store does not say it any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from camserver.fleet.records import ENDED, HostRecord
from camserver.fleet.terms import FleetTerms


@dataclass(frozen=True, slots=True)
class Seen:
    """A host's newest record: its epoch and sequence number, and when that host is surely over."""

    number: tuple[int, int]
    over_at: float


@dataclass(slots=True)
class Holds:
    """What was seen of all hosts. It outlives the epochs of this host."""

    terms: FleetTerms
    _seen: dict[str, Seen] = field(default_factory=dict)

    def saw(self, host: str, record: HostRecord, now: float) -> None:
        """Note a record. One that is older than what was seen before says nothing."""
        number = record.epoch, record.sequence
        before = self._seen.get(host)
        if before is not None and number < before.number:
            return
        is_long = record.valid_s > self.terms.valid_s and record.state not in ENDED
        if before is not None and number == before.number and is_long:
            return  # it was seen before
        over_at = now + self.terms.silence_for(record.valid_s) if is_long else 0.0
        self._seen[host] = Seen(number, over_at)

    def over_at(self, host: str | None = None) -> float:
        """When a host, or every host, has no right by a hold any more. 0.0: it has none."""
        if host is None:
            return max((seen.over_at for seen in self._seen.values()), default=0.0)
        seen = self._seen.get(host)
        return 0.0 if seen is None else seen.over_at
