"""Which hosts are silent, and who may be declared dead. Pure: silence is counted on our own clock.

Nobody's clock is compared with another one. A host is silent since the moment at which *we* last
saw its record change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from camserver.fleet.terms import FleetTerms
from camserver.fleet.validity import Validity

TRY_AGAIN_S = 3.0
"""How soon a host is declared dead again, when it is not known what became of the last attempt."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A host's record as it was seen last. `revision` is the store's number of its last change."""

    revision: int
    seen_at: float
    limit_s: float
    """How long it must be silent before it may be declared dead."""


@dataclass(frozen=True, slots=True)
class Burial:
    """A host that may be declared dead, by swapping exactly the record of this revision."""

    host: str
    revision: int
    silent_s: float
    limit_s: float


@dataclass(slots=True)
class Silence:
    """The sightings of all other hosts that are live in the store."""

    terms: FleetTerms
    _seen: dict[str, Sighting] = field(default_factory=dict)
    _tried: dict[str, float] = field(default_factory=dict)
    """When we last tried to declare a host dead whose record has not changed since, for us.

    The swap may still be made. So we promise that host nothing.
    """
    _promised: dict[str, float] = field(default_factory=dict)
    """Until when we have promised not to declare a host dead."""
    _counts_since: float = 0.0

    def looked(self, records: Mapping[str, tuple[int, float]], now: float) -> None:
        """Note what the store has of each live host: the revision of its record, and `valid_s`."""
        for host in self._seen.keys() - records.keys():
            del self._seen[host]
            self._tried.pop(host, None)
        for host, (revision, valid_s) in records.items():
            before = self._seen.get(host)
            if before is None or before.revision != revision:
                self._seen[host] = Sighting(revision, now, self.terms.silence_for(valid_s))
                self._tried.pop(host, None)

    def was_away(self, now: float) -> None:
        """Note that we have not seen the store for some time: all silence is counted anew."""
        self._counts_since = now

    def trying(self, host: str, now: float) -> None:
        """Note that we are about to declare a host dead."""
        self._tried[host] = now

    def promise(self, host: str, now: float) -> bool:
        """Promise not to declare a host dead for W. False when we cannot.

        We cannot when we have tried to declare it dead: that swap may still be made.
        """
        if host in self._tried or host not in self._seen:
            return False
        self._promised[host] = now + self.terms.silence_s
        return True

    def silent_s(self, host: str, now: float) -> float:
        """How long a host has been silent."""
        sighting = self._seen.get(host)
        return 0.0 if sighting is None else now - max(sighting.seen_at, self._counts_since)

    def limit_s(self, host: str) -> float:
        """How long a host must be silent before it may be declared dead."""
        sighting = self._seen.get(host)
        return self.terms.silence_s if sighting is None else sighting.limit_s

    def burials(self, validity: Validity, now: float) -> Iterable[Burial]:
        """The hosts that this host may declare dead now.

        A swap of unknown outcome is tried again, because it may be lost: nothing else would ever
        change the record of a host that is dead.
        """
        if not validity.may_bury(now):
            return
        for host, sighting in self._seen.items():
            silent_s = self.silent_s(host, now)
            is_promised = now < self._promised.get(host, now)
            was_tried = now - self._tried.get(host, -math.inf) < TRY_AGAIN_S
            if silent_s > sighting.limit_s and not was_tried and not is_promised:
                yield Burial(host, sighting.revision, silent_s, sighting.limit_s)
