"""A fleet on one machine: three hosts, a real etcd, 60 simulated cameras. One host is killed.

    demo_fleet.py [--cameras N] [--kill-after S] [--seconds S]

Each second shows the hosts, their devices, and how many cameras had a session in the last interval.
At the end the cameras say what they have seen.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fleet_hosts import UNCLEAN_S, FleetHosts, fleet_of
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

INTERVAL_S = 5.0
NAMES = ("host-a", "host-b", "host-c")


class Demo:
    """What the demo shows. `said` are its newest sentences."""

    def __init__(self, fleet: FleetHosts, console: Console) -> None:
        self.fleet = fleet
        self.console = console
        self.started = time.monotonic()
        self.killed_at = 0.0
        self.said: list[str] = []

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self.started:5.1f} s  {text}"
        self.said = [*self.said, line][-8:]
        if not self.console.is_terminal:
            self.console.print(line, highlight=False, markup=False)

    async def look(self) -> Group:
        """The present state, as it is shown."""
        table = Table("HOST", "STATE", "DEVICES", "VALID", box=None, pad_edge=False)
        for host in self.fleet.hosts.values():
            view = await asyncio.to_thread(host.view)
            state = str(view.get("phase", "-")) if host.process is not None else "killed"
            table.add_row(host.name, state, str(view.get("owned", "-")), _valid(view))
        now = time.monotonic()
        last = [times[-1] if times else 0.0 for times in self.fleet.opened.values()]
        polled = sum(now - moment < INTERVAL_S + 1 for moment in last)
        text = f"\n{polled} of {len(last)} cameras had a session in the last interval\n"
        return Group(table, Text(text), Text("\n".join(self.said)))

    async def run(self, kill_after_s: float, seconds: float) -> None:
        with Live(console=self.console, refresh_per_second=4, transient=False) as live:
            showing = asyncio.create_task(self._show(live))
            try:
                await self._play(kill_after_s, seconds)
            finally:
                showing.cancel()

    async def _show(self, live: Live) -> None:
        while True:
            view = await self.look()
            if self.console.is_terminal:
                live.update(view)
            await asyncio.sleep(0.5)

    async def _play(self, kill_after_s: float, seconds: float) -> None:
        for name in NAMES:
            await (await self.fleet.host(name)).start()
            self.say(f"{name} has been started")
        await self.fleet.until_shared()
        self.say("every device has an owner; a new fleet waits 6.5 s before it takes devices")
        await self.fleet.until_polled()
        self.say("every camera has been polled")
        await asyncio.sleep(max(0.0, kill_after_s - (time.monotonic() - self.started)))
        victim = self.fleet.hosts[NAMES[0]]
        devices = await asyncio.to_thread(lambda: victim.owned)
        victim.signal(signal.SIGKILL)
        await victim.ended()
        self.killed_at = time.monotonic()
        self.say(f"kill -9 of {victim.name}, the owner of {devices} devices")
        await self.fleet.until_shared()
        self.say(f"its devices have new owners {time.monotonic() - self.killed_at:.1f} s later")
        await self.fleet.until_polled()
        self.say(f"every camera is polled again {time.monotonic() - self.killed_at:.1f} s later")
        await victim.start()
        await self.fleet.until_shared()
        self.say(f"{victim.name} is back, and has its share again")
        await asyncio.sleep(max(0.0, seconds - (time.monotonic() - self.started)))
        for host in self.fleet.hosts.values():
            await host.stop()
        self.say("all hosts have stopped, in order")


def _valid(view: dict[str, Any]) -> str:
    return f"{view['valid_s']:.1f} s" if view else "-"


async def demo(cameras: int, kill_after_s: float, seconds: float) -> int:
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        async with fleet_of(Path(folder), cameras, interval_s=INTERVAL_S) as fleet:
            await Demo(fleet, console).run(kill_after_s, seconds)
            records = [camera.record for camera in fleet.house.fleet.cameras.values()]
            verdict = fleet.verdict()
    console.print(
        f"\nthe cameras' own record: {sum(r.opens for r in records)} connections, never more than"
        f" {max(r.sessions_max for r in records)} at once on any camera (each gives 1),"
        f" {sum(r.early for r in records)} within the {UNCLEAN_S:g} s that a camera counts a lost"
        " session",
        highlight=False,
    )
    for camera, fault in verdict.items():
        console.print(f"{camera}: {fault}", style="red")
    return 1 if verdict else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cameras", type=int, default=60)
    parser.add_argument("--kill-after", type=float, default=20.0, metavar="S")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S")
    options = parser.parse_args()
    return asyncio.run(demo(options.cameras, options.kill_after, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
