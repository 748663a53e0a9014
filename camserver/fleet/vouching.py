"""Hosts that vouch for each other while the store is away. Pure.

A host that cannot renew asks every live host that it knows. Each one promises not to declare it
dead for W. When all agree, its validity counts from the moment of asking.

This is sound only together with a rule of burial: a host may declare another one dead only if that
one has seen it join. So nobody whom the host could not ask can declare it dead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from camserver.fleet.terms import FleetTerms
from camserver.fleet.validity import Validity


@dataclass(frozen=True, slots=True)
class Asking:
    """A question to all other live hosts. `hosts` has the epoch of each, as the asker knows it."""

    hosts: Mapping[str, int]
    asked_at: float


@dataclass(slots=True)
class Vouching:
    """When one host asks the others."""

    terms: FleetTerms
    _asked_at: float = -math.inf

    def asking(self, others: Mapping[str, int], validity: Validity, now: float) -> Asking | None:
        """The question to ask now, or None: renewals get through, or it was asked a moment ago."""
        if now - validity.renewed_at <= 2 * self.terms.renew_s:
            return None
        if now - self._asked_at < self.terms.renew_s:
            return None
        self._asked_at = now
        return Asking(dict(others), now)


def all_agree(asking: Asking, agreed: Iterable[str], others: Mapping[str, int]) -> bool:
    """Whether every host agreed that is live now, in the epoch in which it was asked."""
    by_epoch = {host: asking.hosts[host] for host in agreed if host in asking.hosts}
    return all(by_epoch.get(host) == epoch for host, epoch in others.items())
