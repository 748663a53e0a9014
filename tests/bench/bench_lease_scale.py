"""What acquire and release cost with few devices and with many: it must not grow with the fleet.

    bench_lease_scale.py [--rounds N]

In one process, with the journal on disk. Each device but the measured ones holds a lease, as in a
busy fleet. The sizes take turns, so that a noisy machine disturbs all of them alike; printed are
the medians and their ratio to the smallest size.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from camserver.leases import Budget, Holder, RtspManager
from camserver.leases.journal import JournalState, LeaseJournal
from camserver.leases.right import Inherited
from camserver.model import SessionEnd

SIZES = (100, 1_000, 20_000)
MEASURED = 50
"""Devices whose leases are taken and given back in turn."""
TURNS = 400


@asynccontextmanager
async def fleet(
    folder: Path, devices: int, *, in_fleet: bool = False
) -> AsyncIterator[RtspManager]:
    """A manager with so many devices, of which all but the measured ones are held."""
    journal = LeaseJournal(folder / f"{devices}-{in_fleet}.leases")
    manager = RtspManager(journal=journal, in_fleet=in_fleet)
    names = [f"device{n}" for n in range(devices)]
    manager.configure({name: Budget(1, 0.25, 5.0) for name in names})
    manager.restore(JournalState())
    if in_fleet:
        manager.extend(math.inf)
        for name in names:
            manager.own(name, Inherited())
    leases = [
        await manager.acquire(name, name, Holder("poller", name)) for name in names[MEASURED:]
    ]
    yield manager
    for lease in leases:
        lease.release()
    journal.close()


async def turn(manager: RtspManager) -> float:
    """Microseconds for one acquire and its release, with a session that was never opened."""
    started = time.perf_counter()
    for number in range(TURNS):
        name = f"device{number % MEASURED}"
        with await manager.acquire(name, name, Holder("poller", name)) as lease:
            lease.ended(SessionEnd.NONE)
    return (time.perf_counter() - started) / TURNS * 1e6


async def measure(rounds: int) -> None:
    """Prints the table."""
    kinds = [*((size, False) for size in SIZES), (SIZES[-1], True)]
    took: dict[tuple[int, bool], list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        async with AsyncExitStack() as stack:
            managers = [
                await stack.enter_async_context(fleet(Path(name), size, in_fleet=in_fleet))
                for size, in_fleet in kinds
            ]
            for _ in range(rounds):
                for kind, manager in zip(kinds, managers, strict=True):
                    took[kind].append(await turn(manager))
    smallest = statistics.median(took[kinds[0]])
    print("devices              acquire+release   a second   ratio")
    for size, in_fleet in kinds:
        median = statistics.median(took[size, in_fleet])
        where = "in a fleet" if in_fleet else ""
        row = f"{size:7} {where:10}   {median:12.1f} us   {1e6 / median:8.0f}"
        print(f"{row}   {median / smallest:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
