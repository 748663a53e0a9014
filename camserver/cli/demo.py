"""`camserver demo`: simulated cameras and the real daemon, with a table of what happens.

The cameras run in a child process, the daemon in this one.

By default six cameras are healthy, one has the fault "deaf" and one the fault "reboot", so that
successes and failures can be seen. At the end the demo prints what the cameras themselves recorded:
the highest number of sessions at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from camserver.config import load_inventory
from camserver.daemon import Daemon
from camserver.errors import CamserverError
from camserver.events import Event, PollFailed, SnapshotPublished
from camserver.host import logs
from camserver.host.redact import Redactor

DIRECTORY = Path("camserver-demo")
READY_S = 120.0
REFRESHES_A_SECOND = 4
FRESH_S, STALE_S = 10.0, 30.0
MAX_ROWS = 40
CHILD_STOP_S = 10.0
WALL_PORT = 3000


@dataclass(slots=True)
class _Row:
    name: str
    published: SnapshotPublished | None = None
    fresh_at: float = 0.0
    pictures: int = 0
    failure: PollFailed | None = None


class Screen:
    """A listener of the daemon's events that shows them.

    On a terminal it is a live table; elsewhere it prints one line for each event.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: dict[str, _Row] = {}

    def __call__(self, event: Event) -> None:
        """Record one event."""
        row = self.rows.get(event.camera)
        if row is None or not isinstance(event, SnapshotPublished | PollFailed):
            return
        if isinstance(event, SnapshotPublished):
            row.published, row.failure, row.fresh_at = event, None, time.monotonic()
            row.pictures += 1
        else:
            row.failure = event
        if not self.console.is_terminal:
            self.console.print(
                f"{time.strftime('%H:%M:%S')}  {event.text}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def __rich__(self) -> Table:
        """Return the current table; with more than MAX_ROWS cameras, the worst of them."""
        table = Table(
            title=f"camserver demo: pictures in {DIRECTORY}/snapshots, Ctrl-C ends it",
            title_justify="left",
        )
        for column, justify in (
            ("camera", "left"),
            ("name", "left"),
            ("age", "right"),
            ("pictures", "right"),
            ("KB", "right"),
            ("ms", "right"),
            ("result", "left"),
        ):
            # Rich types `justify` as a Literal.
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        rows = list(self.rows.items())
        if len(rows) > MAX_ROWS:
            rows = sorted(rows, key=lambda item: item[1].fresh_at)[:MAX_ROWS]
        for camera_id, row in rows:
            table.add_row(camera_id, row.name, *_cells(row))
        return table


def _cells(row: _Row) -> list[Text]:
    last = row.published
    age_s = time.monotonic() - row.fresh_at
    colour = "green" if age_s < FRESH_S else "yellow" if age_s < STALE_S else "red"
    age = Text(f"{age_s:.1f} s", colour) if last else Text("never", "red" if row.failure else "dim")
    if row.failure is not None:
        why = row.failure.label or row.failure.error
        result = Text(f"{row.failure.result}: {why}", "red", overflow="ellipsis", no_wrap=True)
    else:
        result = (
            Text(f"ok, {last.codec} {last.width}x{last.height}") if last else Text("waiting", "dim")
        )
    numbers = [
        f"{row.pictures}",
        f"{last.bytes // 1024}" if last else "",
        f"{last.capture_ms:.0f}" if last else "",
    ]
    return [age, *map(Text, numbers), result]


async def demo(cameras: int, seconds: float | None) -> int:
    """Run until Ctrl-C or for `seconds`. Return the exit status."""
    console = Console()
    await asyncio.to_thread(DIRECTORY.mkdir, exist_ok=True)
    console.print(f"starting {cameras} simulated cameras ...")
    simulator = await _start_simulator(cameras)
    if simulator is None:
        console.print("the simulated cameras did not start", style="red")
        return 1
    try:
        inventory_path = DIRECTORY / "cameras.toml"
        _complete(inventory_path)
        inventory = load_inventory(inventory_path)
        console.print(f"the wall page is on http://{inventory.http.listen}")
        redactor = Redactor(inventory.secrets)
        screen = Screen(console)
        screen.rows = {c.id: _Row(c.name) for c in inventory.cameras}
        with (DIRECTORY / "camserver.log").open("w") as log:
            flush = logs.set_up(redactor, stream=log, journal=False)
            try:
                status = await _run(
                    Daemon(inventory_path, inventory, redactor, screen, logs.event_logger()),
                    screen,
                    seconds,
                )
            finally:
                flush()
    except CamserverError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    finally:
        await _stop_simulator(simulator)
    if status == 0:
        _conclude(screen)
    return status


async def _run(daemon: Daemon, screen: Screen, seconds: float | None) -> int:
    if seconds is not None:
        asyncio.get_running_loop().call_later(seconds, daemon.stop)
    if not screen.console.is_terminal:
        return await daemon.run()
    with Live(screen, console=screen.console, refresh_per_second=REFRESHES_A_SECOND):
        return await daemon.run()


async def _start_simulator(cameras: int) -> asyncio.subprocess.Process | None:
    faults = (
        [f"--fault=cam{cameras - 1}=deaf", f"--fault=cam{cameras}=reboot:3:8"]
        if cameras > 2
        else []
    )
    simulator = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "camserver",
        "simulate",
        f"--cameras={cameras}",
        "--base-port=0",
        "--until-eof",
        f"--inventory={DIRECTORY / 'cameras.toml'}",
        f"--record={DIRECTORY / 'record.json'}",
        "--interval=2s",
        *faults,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C must reach only the daemon: the cameras run until it has closed its sessions.
        start_new_session=True,
    )
    assert simulator.stdout is not None  # noqa: S101 - a pipe was asked for
    try:
        async with asyncio.timeout(READY_S):
            async for line in simulator.stdout:
                if b"are ready" in line:
                    return simulator
    except TimeoutError:
        pass
    await _stop_simulator(simulator)
    return None


async def _stop_simulator(simulator: asyncio.subprocess.Process) -> None:
    assert simulator.stdin is not None  # noqa: S101 - a pipe was asked for
    simulator.stdin.close()  # --until-eof
    try:
        async with asyncio.timeout(CHILD_STOP_S):
            await simulator.wait()
    except TimeoutError:
        simulator.kill()
        await simulator.wait()


def _complete(path: Path) -> None:
    """Add the output directory, the API socket and the wall to the simulator's inventory."""
    here = DIRECTORY.absolute()
    path.write_text(
        f'[output]\ndirectory = "{here / "snapshots"}"\n\n[api]\nsocket ='
        f' "{here / "camserver.sock"}"\n\n[http]\nlisten = "127.0.0.1:{_port()}"\nactions ='
        " true\n\n" + path.read_text()
    )


def _port() -> int:
    """Return the default port of the wall if it is free, else any free port."""
    for port in (WALL_PORT, 0):
        with contextlib.suppress(OSError), socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            return int(s.getsockname()[1])
    return WALL_PORT


def _conclude(screen: Screen) -> None:
    record = json.loads((DIRECTORY / "record.json").read_text())
    pictures = sum(row.pictures for row in screen.rows.values())
    fresh = sum(row.failure is None and row.published is not None for row in screen.rows.values())
    screen.console.print(
        f"\n{pictures} pictures of {fresh} cameras in {DIRECTORY}/snapshots, the log in"
        f" {DIRECTORY}/camserver.log\nthe cameras' own record:"
        f" {sum(r['opens'] for r in record.values())} connections, never more than"
        f" {max(r['sessions_max'] for r in record.values())} at once on any camera,"
        f" {sum(r['sessions_now'] for r in record.values())} left open",
        highlight=False,
        soft_wrap=True,
    )
