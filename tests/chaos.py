"""Chaos: everybody wants the same cameras while workers, wrappers and the daemon are killed.

The cameras are the judge.

    chaos.py [--minutes M] [--seed N]

A fleet of simulated cameras in this process, a real daemon, and actors with one seed: wrapped
commands with real sessions, live requests, snapshots, waiters that are cancelled, a viewer through
a stand-in for go2rtc, cameras that misbehave, `kill -9` of workers, of wrappers and of the daemon,
reloads and restarts. What must hold is in `judge`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from chaos_cameras import FAULTS, MARGIN_S, ONE_SESSION, fleet
from desk import Desk
from house import House, with_house
from support import free_port, processes_of

from camserver.client import ApiRefusal, DaemonUnavailableError, LeaseClient
from camserver.errors import RtspBusy
from camserver.simulator.camera import Fault

STAND_IN = Path(__file__).parent / "integration" / "go2rtc_stand_in.py"
PATIENCE_S = 60.0
HANG_S = 6
"""After this time a hanging command loses its lease. ffmpeg hangs when a camera becomes silent."""
LOOKS = 3
"""How many checks in a row must see a session before it is reported. Our side may give up a
connection before it sends a request. Then the camera's side closes it a few loop turns later.
"""


class Chaos:
    """One run. `done` counts what happened, `wrong` lists what must not happen."""

    def __init__(self, house: House, folder: Path, seed: int) -> None:
        self.house, self.dice = house, random.Random(seed)
        self.desk = Desk(house, folder)
        self.api, self.rtsp = free_port(), free_port()
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.over = asyncio.Event()
        self.daemon: asyncio.subprocess.Process | None = None
        self.wrappers: set[asyncio.subprocess.Process] = set()

    # ---- set-up

    def write(self, interval: str) -> None:
        """Write the inventory with the cameras' real budgets, and cool-downs with a margin."""
        desk = self.desk
        text = (
            f'[http]\nlisten = ""\n[output]\ndirectory = "{desk.output}"\nfsync ='
            f' false\n[api]\nsocket = "{desk.socket}"\n[go2rtc]\napi ='
            f' "http://127.0.0.1:{self.api}"\nrtsp ='
            f' "rtsp://127.0.0.1:{self.rtsp}"\n[defaults]\ninterval = "{interval}"\ntimeout ='
            ' "3s"\nlease_wait = "2s"\n'
        )
        for c in self.house.fleet.cameras.values():
            text += (
                f'[[camera]]\nid = "{c.id}"\nurl = "{self.house.fleet.url(c.id)}"\nmax_sessions ='
                f" {c.max_sessions}\ncooldown = {c.cooldown_s + MARGIN_S}\nunclean_cooldown ="
                f" {c.unclean_cooldown_s + MARGIN_S}\n"
                + ("go2rtc = true\n" if c.id == "watched" else "")
                + ('engine = "libav"\n' if c.id == "two" else "")
            )
        desk.config.write_text(text)

    async def start_daemon(self) -> None:
        with self.desk.log.open("a") as log:
            self.daemon = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "camserver",
                "run",
                "--config",
                str(self.desk.config),
                stderr=log,
            )

    async def pause(self, least_s: float, most_s: float) -> None:
        """Wait while other actors run. It returns early when the run is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.dice.uniform(least_s, most_s)):
                await self.over.wait()

    def any_camera(self) -> str:
        return self.dice.choice(list(self.house.fleet.cameras))

    # ---- actors

    async def wrapped_command(self) -> None:
        """Run a recorder with its own session through `camserver lease`.

        Sometimes the wrapper is killed.
        """
        camera = self.dice.choice(("one", "cool", "two"))
        frames = self.dice.randint(2, 20)
        ffmpeg = (
            "ffmpeg -nostdin -loglevel quiet -rtsp_transport tcp -probesize 32 -analyzeduration 0 "
            f"-i {self.house.fleet.url(camera)} -c copy -frames:v {frames} -f framecrc -"
        )
        # ffmpeg also ends with 0 when the camera cuts it off: only all frames prove a good end
        recorder = ("/bin/bash", "-c", f"[ $({ffmpeg} | grep -vc '^#') = {frames} ]")
        await self.wrap(camera, recorder)
        await self.pause(0.2, 1.5)

    async def viewer(self) -> None:
        """Let a viewer watch go2rtc for some time, under a lease.

        Meanwhile pictures come from go2rtc.
        """
        source = (
            f"exec:camserver lease watched -- ffmpeg -i {self.house.fleet.url('watched')}"
            " {output}"
        )
        await self.wrap(
            "watched",
            (
                "/usr/bin/env",
                f"WATCH_S={self.dice.uniform(1, 4):.1f}",
                "/usr/bin/python3",
                str(STAND_IN),
                str(self.api),
                str(self.rtsp),
                f"watched={source}",
            ),
        )
        await self.pause(1, 4)

    async def wrap(self, camera: str, command: tuple[str, ...]) -> None:
        priority = self.dice.choice(("live", "event", "poll"))
        wrapper = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "camserver",
            "lease",
            "--socket",
            str(self.desk.socket),
            "--priority",
            priority,
            "--wait",
            "10",
            "--ttl",
            str(HANG_S),
            camera,
            "--",
            *command,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self.wrappers.add(wrapper)
        status = await wrapper.wait()
        self.wrappers.discard(wrapper)
        self.done[
            f"wrapped {'ok' if status == 0 else 'busy' if status == 75 else 'ended otherwise'}"
        ] += 1

    async def live_request(self) -> None:
        """Hold a live lease without opening a session.

        On a camera with one session there must be no other session while the lease is held.
        """
        camera = self.any_camera()
        record = self.house.fleet.cameras[camera].record
        async with LeaseClient(self.desk.socket).lease(
            camera, wait_s=8, priority=self.dice.choice(("live", "event"))
        ) as lease:
            moments = self.dice.randint(1, 20)
            withdrawn = asyncio.create_task(lease.withdrawn())
            looks = 0
            for _ in range(moments):
                open_ = camera in ONE_SESSION and record.sessions_now and not withdrawn.done()
                looks = looks + 1 if open_ else 0
                if looks == LOOKS:
                    self.wrong.append(
                        f"{camera}: a session is open beside lease {lease.granted.generation}"
                    )
                await asyncio.sleep(0.02)
            withdrawn.cancel()
        self.done["live request"] += 1
        await self.pause(0.1, 1.5)

    async def patient(self) -> None:
        """Check that a request that waits long enough gets a session, despite other priorities."""
        async with LeaseClient(self.desk.socket).lease(
            self.any_camera(), wait_s=PATIENCE_S, priority="poll"
        ):
            self.done["patient"] += 1
        await self.pause(1, 3)

    async def impatient(self) -> None:
        """Cancel a waiter at any moment, including the moment of its grant."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.dice.uniform(0, 0.6)):
                async with LeaseClient(self.desk.socket).lease(
                    self.any_camera(), wait_s=5, priority="live"
                ):
                    pass
        self.done["cancelled"] += 1
        await self.pause(0.05, 0.5)

    async def snapshot(self) -> None:
        camera = self.any_camera()
        with contextlib.suppress(ApiRefusal):
            await asyncio.to_thread(self.desk.client.snapshot, camera)
            self.done["snapshot"] += 1
        await self.pause(0.3, 2)

    async def misbehave(self) -> None:
        """Give one camera a fault for some time."""
        simulated = self.house.fleet.cameras[self.any_camera()]
        simulated.fault = Fault.parse(self.dice.choice(FAULTS))
        await self.pause(0.5, 3)
        simulated.fault = Fault()
        self.done["fault"] += 1
        await self.pause(0.5, 3)

    async def kill(self) -> None:
        """Kill a worker, a wrapper or the daemon, or restart or reload the daemon in good order."""
        await self.pause(0.5, 2.5)
        assert self.daemon is not None
        what = self.dice.choice(
            ("worker", "worker", "wrapper", "wrapper", "daemon", "restart", "reload", "reload")
        )
        if what == "worker" and (workers := processes_of(self.daemon.pid, "cam-")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.dice.choice(workers), signal.SIGKILL)
        elif what == "wrapper" and self.wrappers:
            with contextlib.suppress(ProcessLookupError):
                self.dice.choice(sorted(self.wrappers, key=lambda w: w.pid)).send_signal(
                    self.dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
                )
        elif what == "daemon":
            self.daemon.kill()
            await self.daemon.wait()
            await self.start_daemon()
        elif what == "restart":
            self.daemon.terminate()
            # The daemon was not up yet, so the signal itself ends it
            if (status := await self.daemon.wait()) not in (0, -signal.SIGTERM):
                self.wrong.append(f"the daemon ended with {status}")
            await self.start_daemon()
        elif what == "reload":
            self.write(self.dice.choice(("700ms", "900ms")))
        self.done[what] += 1

    # ---- the run

    async def keep(self, act: Callable[[], Awaitable[None]]) -> None:
        while not self.over.is_set():
            try:
                await act()
            except DaemonUnavailableError:
                await self.pause(0.1, 0.3)
            except RtspBusy:
                if act == self.patient:
                    self.wrong.append(f"a patient waiter got nothing in {PATIENCE_S} s")
                self.done["busy"] += 1
            except ApiRefusal as error:
                if error.status != 503:  # 503: the daemon is stopping
                    self.wrong.append(f"{act.__name__}: {error}")

    async def run(self, seconds: float) -> None:
        self.write("700ms")
        try:
            await self.start_daemon()
            await self.desk.until(lambda: self.desk.ask("GET", "/healthz"))
            actors = (
                self.wrapped_command,
                self.wrapped_command,
                self.viewer,
                self.live_request,
                self.live_request,
                self.patient,
                self.impatient,
                self.snapshot,
                self.misbehave,
                self.kill,
            )
            asyncio.get_running_loop().call_later(seconds, self.over.set)
            async with asyncio.TaskGroup() as tasks:
                for act in actors:
                    tasks.create_task(self.keep(act))
            await self.judge()
        finally:
            if self.daemon is not None and self.daemon.returncode is None:
                self.daemon.kill()
                await self.daemon.wait()

    async def judge(self) -> None:
        """Check that pictures are fresh, no lease is lost, and no camera saw too many sessions."""
        desk, cameras = self.desk, self.house.fleet.cameras
        ended = datetime.now(UTC)

        def stale() -> list[str]:
            return [
                c
                for c in cameras
                if not (at := desk.facts(c).get("captured_at"))
                or datetime.fromisoformat(at) < ended
            ]

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(61):
                while stale():
                    await asyncio.sleep(0.1)
        self.wrong += [f"{c}: no fresh picture: {desk.facts(c)['attempt']}" for c in stale()]
        caps = {
            d["device"]: d["learned_cap"]
            for d in await asyncio.to_thread(desk.client.get, "/v1/leases")
        }
        for camera in cameras.values():
            learned = caps[f"127.0.0.1:{camera.port}"]
            async with contextlib.AsyncExitStack() as stack:  # the whole budget must be available
                for _ in range(learned["cap"] if learned else camera.max_sessions):
                    try:
                        await stack.enter_async_context(
                            LeaseClient(desk.socket).lease(camera.id, wait_s=20)
                        )
                    except RtspBusy as error:
                        self.wrong.append(f"a lease is lost: {error}")
        assert self.daemon is not None
        self.daemon.terminate()
        if (status := await self.daemon.wait()) != 0:
            self.wrong.append(f"the daemon ended with {status}")
        for camera in cameras.values():
            seen = await self.house.seen(camera.id)
            if seen.sessions_max > camera.max_sessions or seen.early or seen.refused_full:
                self.wrong.append(f"{camera.id}: {seen}")
            self.done["sessions"] += seen.opens
        if temporary := list(desk.output.rglob("*.tmp")):
            self.wrong.append(f"left: {temporary}")


def run(folder: Path, seconds: float, seed: int) -> tuple[dict[str, int], list[str]]:
    """Make one run. Returns (what happened, what was wrong)."""
    seen: list[Chaos] = []

    async def inside(house: House) -> None:
        chaos = Chaos(house, folder, seed)
        seen.append(chaos)
        await chaos.run(seconds)

    with_house(fleet(), inside)
    return dict(sorted(seen[0].done.items())), seen[0].wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", type=Path, help="where inventory, log and pictures stay")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes", flush=True)
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        done, wrong = run(folder, arguments.minutes * 60, arguments.seed)
    print(", ".join(f"{what} {count}" for what, count in done.items()))
    for text in wrong:
        print(f"WRONG: {text}")
    print("nothing wrong" if not wrong else f"{len(wrong)} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
