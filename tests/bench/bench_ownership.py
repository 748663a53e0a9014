"""A large fleet in one process, on a real etcd: ownership made, read, and taken over.

    bench_ownership.py [--hosts N] [--devices N]

The hosts are real (`FleetMember`, `EtcdStore`), but have no cameras: what is measured is the
protocol, etcd and Python. All hosts share one core, so real hosts are faster.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from etcd_server import EtcdCluster
from fleet_records import host_record

from camserver.events import Event
from camserver.events.fleet import FleetHostBuried
from camserver.fleet.assignment import ANYWHERE, Candidate, assign
from camserver.fleet.etcd import EtcdStore
from camserver.fleet.host import FleetHost
from camserver.fleet.member import FleetMember, Identity
from camserver.fleet.orders import Remains
from camserver.fleet.ownership import Take
from camserver.fleet.records import Keys
from camserver.fleet.store import Swap
from camserver.fleet.terms import FleetTerms


class NoCameras:
    """Devices without cameras: their sessions end at once."""

    def __init__(self, devices: int) -> None:
        self.version = 1
        self.reach: Mapping[str, tuple[str, ...]] = {
            f"10.{n // 65536}.{n // 256 % 256}.{n % 256}:554": ANYWHERE for n in range(devices)
        }
        self.owned: set[str] = set()

    def begin(self, host: FleetHost, wake: Callable[[], None]) -> None: ...

    def look(self) -> None: ...

    def leave(self, within_s: float) -> None: ...

    def extend(self, for_s: float) -> None: ...

    def take_over(self, take: Take, _elapsed_s: float) -> None:
        self.owned.add(take.device)

    async def hand_over(self, device: str) -> Remains:
        self.owned.discard(device)
        return Remains()

    async def end_all(self) -> None: ...

    async def forget_all(self) -> None:
        self.owned.clear()


class NoTimer:
    def arm(self, at: float) -> None: ...

    def disarm(self) -> None: ...


class TimedStore(EtcdStore):
    """etcd. It notes when swaps of several keys were on their way: (begin, end)."""

    swaps: ClassVar[list[tuple[float, float]]] = []

    async def swap(self, swap: Swap) -> int | None:
        begin = time.monotonic()
        try:
            return await super().swap(swap)
        finally:
            if len(swap.changes) > 1:
                self.swaps.append((begin, time.monotonic()))


def store_work_s(since: float) -> str:
    """For how long at least one swap of several keys was on its way, since a moment."""
    total, until = 0.0, since
    spans = sorted(span for span in TimedStore.swaps if span[1] > since)
    for begin, end in spans:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return f"{len(spans)} swaps, {total:.2f} s with one on its way"


class Host:
    """One host, and its job."""

    def __init__(self, name: str, url: str, devices: int, terms: FleetTerms) -> None:
        self.local, self.events = NoCameras(devices), list[Event]()
        self.store = TimedStore((url,))
        identity = Identity("bench", name, host_record(machine_id=name))
        self.member = FleetMember(
            identity,
            terms,
            self.store,
            self.local,  # type: ignore[arg-type]
            NoTimer(),
            self.events.append,
            time.monotonic,
        )
        self.job: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.job = asyncio.create_task(self.member.run())

    async def die(self) -> None:
        assert self.job is not None
        self.job.cancel()
        await asyncio.wait({self.job})
        await self.store.close()


async def until(condition: Callable[[], bool]) -> float:
    """Wait for a condition, and return how long it took."""
    started = time.monotonic()
    while not condition():
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def measure(url: str, hosts: int, devices: int) -> None:
    # Long times: twenty hosts on one core must not be late for each other
    terms = FleetTerms(valid_s=20.0, silence_s=25.0, renew_s=1.0)
    fleet = [Host(f"host{n}", url, devices, terms) for n in range(hosts)]
    candidates = [Candidate(f"host{n}") for n in range(hosts)]
    started = time.process_time()
    assign(fleet[0].local.reach, candidates)
    print(
        f"assignment of {devices} devices to {hosts} hosts: {time.process_time() - started:.3f} s"
    )
    for host in fleet:
        host.start()
    await until(lambda: any(host.local.owned for host in fleet))
    took = await until(lambda: sum(len(host.local.owned) for host in fleet) == devices)
    print(f"ownership of all devices made, after the wait of a new fleet: {took:.2f} s")
    started = time.monotonic()
    snapshot = await fleet[0].store.read(Keys("bench").prefix)
    print(f"read of {len(snapshot.entries)} records: {time.monotonic() - started:.3f} s")
    victim, rest = fleet[0], fleet[1:]
    lost = len(victim.local.owned)
    await victim.die()
    victim.local.owned.clear()
    await until(lambda: any(isinstance(e, FleetHostBuried) for h in rest for e in h.events))
    since = time.monotonic()
    took = await until(lambda: sum(len(host.local.owned) for host in rest) == devices)
    print(f"take-over of {lost} devices, after their host was declared dead: {took:.2f} s")
    print(f"  {store_work_s(since)}; {hosts - 1} assignments were computed in this process before")
    for host in rest:
        await host.die()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--devices", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cluster = EtcdCluster(Path(folder))
        cluster.start()
        try:
            asyncio.run(measure(cluster.nodes[0].url, options.hosts, options.devices))
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
