"""What acquire and release cost with few devices and with many: it must not grow with the fleet.

    bench_lease_scale.py [--rounds N]

In one process, with the journal on disk. Each device but the measured ones holds a lease, as in a
busy fleet. The sizes take turns, so that a noisy machine disturbs all of them alike; printed are
the medians and their ratio to the smallest size.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from camserver.leases import Budget, Holder, RtspManager
from camserver.leases.journal import JournalState, LeaseJournal
from camserver.model import SessionEnd

SIZES = (100, 1_000, 20_000)
MEASURED = 50
"""Devices whose leases are taken and given back in turn."""
TURNS = 400


@asynccontextmanager
async def fleet(folder: Path, devices: int) -> AsyncIterator[RtspManager]:
    """A manager with so many devices, of which all but the measured ones are held."""
    journal = LeaseJournal(folder / f"{devices}.leases")
    manager = RtspManager(journal=journal)
    names = [f"device{n}" for n in range(devices)]
    manager.configure({name: Budget(1, 0.25, 5.0) for name in names})
    manager.restore(JournalState())
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
    with tempfile.TemporaryDirectory() as name:
        async with (
            fleet(Path(name), SIZES[0]) as few,
            fleet(Path(name), SIZES[1]) as more,
            fleet(Path(name), SIZES[2]) as many,
        ):
            took: dict[int, list[float]] = {size: [] for size in SIZES}
            for _ in range(rounds):
                for size, manager in zip(SIZES, (few, more, many), strict=True):
                    took[size].append(await turn(manager))
    smallest = statistics.median(took[SIZES[0]])
    print("devices   acquire+release   ratio")
    for size in SIZES:
        median = statistics.median(took[size])
        print(f"{size:7}   {median:12.1f} us   {median / smallest:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
