"""Which host should own which device: rendezvous hashing with a bound. Pure.

Every host computes the same answer from the same devices and hosts, without talking to the others.
When a host leaves, its devices move, and hardly any other. When one joins, only devices that it
gets move. `CAPACITY_BOUND` keeps chance from giving one host too many.
"""

from __future__ import annotations

import fnmatch
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CAPACITY_BOUND = 1.1
"""How many times its share a host may own."""
ANYWHERE: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that may own devices. A host with twice the weight gets twice as many."""

    name: str
    weight: float = 1.0
    labels: tuple[str, ...] = ()

    def is_meant_by(self, patterns: Iterable[str]) -> bool:
        """Whether a pattern matches its name or one of its labels."""
        names = (self.name, *self.labels)
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def assign(
    devices: Mapping[str, tuple[str, ...]], hosts: Iterable[Candidate]
) -> dict[str, str | None]:
    """The owner of each device.

    `devices` says which hosts reach a device, as patterns of names and labels (fnmatch). None: no
    host that is there reaches it.
    """
    candidates = sorted(hosts, key=lambda candidate: candidate.name)
    names = sorted(devices, key=_hash)  # the same order on every host, and no device's name first
    if not candidates or not names:
        return dict.fromkeys(devices)
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, name in enumerate(names):
        groups.setdefault(devices[name], []).append(number)
    reach = {
        patterns: [n for n, candidate in enumerate(candidates) if candidate.is_meant_by(patterns)]
        for patterns in groups
    }
    room = _capacities(candidates, {patterns: len(n) for patterns, n in groups.items()}, reach)
    preferred = _preferences(names, candidates)
    owners: dict[str, str | None] = {}
    for number, name in enumerate(names):
        reaching = reach[devices[name]]
        owner = next((n for n in preferred[number] if n in reaching and room[n] > 0), None)
        if owner is None and reaching:  # the bound is a wish, an owner is a need
            owner = next(n for n in preferred[number] if n in reaching)
        if owner is None:
            owners[name] = None
            continue
        room[owner] -= 1
        owners[name] = candidates[owner].name
    return owners


def _capacities(
    candidates: Sequence[Candidate],
    counts: Mapping[tuple[str, ...], int],
    reach: Mapping[tuple[str, ...], list[int]],
) -> list[int]:
    """How many devices each host may own, by its weight among those that reach them."""
    shares = [0.0] * len(candidates)
    for patterns, count in counts.items():
        total = sum(candidates[n].weight for n in reach[patterns])
        for n in reach[patterns]:
            shares[n] += count * candidates[n].weight / total
    # In a small fleet one device more than the share would leave another host without any
    return [max(math.ceil(share - 1e-9), math.floor(CAPACITY_BOUND * share)) for share in shares]


def _preferences(names: Sequence[str], candidates: Sequence[Candidate]) -> list[list[int]]:
    """For each device the hosts by weighted rendezvous score, the best first."""
    devices = np.array([_hash(name) for name in names], np.uint64)
    hosts = np.array([_hash(candidate.name) for candidate in candidates], np.uint64)
    weights = np.array([candidate.weight for candidate in candidates])
    mixed = _mix(devices[:, None] ^ hosts[None, :])
    # 53 bits, never 0: the logarithm of a number in (0, 1]
    unit = ((mixed >> np.uint64(11)).astype(np.float64) + 1.0) / 2.0**53
    scores = weights / -np.log(np.minimum(unit, 1.0 - 2.0**-53))
    order: list[list[int]] = np.argsort(-scores, axis=1, kind="stable").tolist()
    return order


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
