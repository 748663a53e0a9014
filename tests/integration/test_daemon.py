"""The daemon on a fleet of healthy and failing cameras, judged by the cameras' own record."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
from house import House, StartFleet, psnr, rgb
from support import children_of, processes_of

from camserver.archive.build import Archive
from camserver.config import load_inventory
from camserver.daemon import Daemon
from camserver.events import DaemonReady, Event
from camserver.host.loop import run_loop
from camserver.host.redact import Redactor
from camserver.simulator.camera import Fault, SimulatedCamera
from camserver.simulator.pictures import Pictures
from camserver.workers.template import WorkerTemplate

WORDS = {
    "nothing": "unreachable",
    "deaf": "timeout",
    "silent": "timeout",
    "wrong": "auth",
    "last": "no-keyframe",
}


def tables(folder: Path, output: str = "") -> str:
    """Where everything of a test's daemon is: nothing of it is the machine's."""
    return (
        f'[http]\nlisten = ""\n[api]\nsocket = "{folder}/api.sock"\n[output]\ndirectory ='
        f' "{folder}/out"\n{output}\n'
    )


def results(output: Path) -> dict[str, str]:
    """The newest result of each failing camera, from its latest.json."""
    found = {}
    for camera_id in WORDS:
        with contextlib.suppress(FileNotFoundError):
            found[camera_id] = json.loads((output / camera_id / "latest.json").read_text())[
                "attempt"
            ]["result"]
    return found


def sent_pictures(simulated: SimulatedCamera, around_s: float) -> list[Any]:
    """What the camera showed in the seconds around a moment, decoded."""
    pictures = Pictures(simulated.codec, simulated.width, simulated.height)
    return [
        rgb(simulated.codec, pictures.sent(simulated.name, int(around_s) - back))
        for back in range(4)
    ]


HEALTHY = ("h264", "h265", "mjpeg")
LOGIN = {"username": "viewer", "password": "right: @/#%? ü"}  # the daemon has a wrong one


@contextlib.asynccontextmanager
async def running(config: Path, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A daemon; whoever leaves has ended it."""
    with log.open("w") as file:
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "camserver", "run", "--config", str(config), stderr=file
        )
        try:
            yield daemon
        finally:
            if daemon.returncode is None:
                daemon.kill()
                await daemon.wait()


async def until(condition: Callable[[], Any], limit_s: float = 60) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.02)


def torn_pictures(output: Path) -> list[Path]:
    """What a reader would call half a picture."""
    pictures = ((path, path.read_bytes()) for path in output.glob("*/latest.jpg"))
    return [
        path
        for path, data in pictures
        if not (data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9"))
    ]


async def live_through_it(
    house: House, config: Path, output: Path, log: Path
) -> tuple[int, list[Path]]:
    """Start the daemon, kill workers, change the inventory, stop it.

    (workers killed, torn pictures seen meanwhile).
    """
    text = tables(output.parent, "quality = 95") + house.fleet.inventory(
        interval="300ms", timeout="3s"
    )
    before, _, after = text.partition('id = "wrong"')
    text = before + 'id = "wrong"' + after.replace(LOGIN["password"], "wr0ng-secret", 1)
    config.write_text(text)
    records = {c: house.fleet.cameras[c].record for c in house.fleet.cameras}
    kills, torn = 0, []

    def reached(clean: int) -> bool:
        torn.extend(torn_pictures(output))
        return all(records[c].ends_clean >= clean for c in HEALTHY)

    async with running(config, log) as daemon:
        for clean in (3, 6, 9):
            await until(lambda clean=clean: reached(clean), 90)  # type: ignore[misc]
            for pid in processes_of(daemon.pid, "cam-")[-2:]:
                os.kill(pid, signal.SIGKILL)
                kills += 1
        config.write_text(text.replace("300ms", "400ms"))
        await until(lambda: reached(15), 90)
        # The kills may have been what a failing camera's last attempt met
        await until(lambda: results(output) == WORDS)
        daemon.terminate()
        assert await daemon.wait() == 0
    return kills, torn


async def test_the_daemon_keeps_three_fresh_and_true_whatever_the_others_do(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """Three healthy cameras and five that are not.

    Workers are killed, the inventory is reloaded, then SIGTERM.

    The cameras' record shows one session at most and none left, every reader sees whole pictures,
    and they are true.
    """
    house = await fleet(
        [
            *(SimulatedCamera(c, c, c, gop=3) for c in HEALTHY),
            SimulatedCamera("nothing", "Nothing", fault=Fault("refuse")),
            SimulatedCamera("deaf", "Deaf", fault=Fault("deaf")),
            SimulatedCamera("silent", "Silent", fault=Fault("silent")),
            SimulatedCamera("wrong", "Wrong", **LOGIN),
            SimulatedCamera("last", "No keyframe", fault=Fault("no-keyframe")),
        ]
    )
    output = tmp_path / "out"
    kills, torn = await live_through_it(house, tmp_path / "cameras.toml", output, tmp_path / "log")
    records = {camera_id: await house.seen(camera_id) for camera_id in house.fleet.cameras}
    assert {camera_id for camera_id, record in records.items() if record.sessions_max > 1} == set()
    assert kills
    assert records["wrong"].ends_without
    assert 0 < records["wrong"].wrong_logins <= records["wrong"].opens  # once a poll
    house.may_refuse_logins.add("wrong")
    assert sum(records[c].ends_unclean for c in HEALTHY) <= kills
    assert records["silent"].ends_clean
    assert not torn
    assert not list(tmp_path.rglob("*.tmp"))
    for camera_id in HEALTHY:
        around_s = datetime.fromisoformat(
            json.loads((output / camera_id / "latest.json").read_text())["captured_at"]
        ).timestamp()
        shown = simplejpeg.decode_jpeg((output / camera_id / "latest.jpg").read_bytes())
        assert (
            max(
                psnr(shown, sent)
                for sent in sent_pictures(house.fleet.cameras[camera_id], around_s)
            )
            > 35
        )
    everything = (tmp_path / "log").read_text() + "".join(
        p.read_text() for p in output.glob("*/*.json")
    )
    for secret in (LOGIN["password"], "wr0ng-secret", "right%3A"):
        assert secret not in everything


async def test_a_stop_does_not_wait_for_cameras_that_answer_no_teardown(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """Status 0 and "stopped" in the log, although ten cameras are silent at the end."""
    house = await fleet(
        [
            SimulatedCamera(f"cam{n}", "x", gop=2, fault=Fault.parse("stall:TEARDOWN"))
            for n in range(10)
        ]
    )
    config = tmp_path / "c.toml"
    config.write_text(tables(tmp_path) + house.fleet.inventory(interval="100ms"))
    async with running(config, tmp_path / "log") as daemon:
        await until(lambda: all(c.record.opens for c in house.fleet.cameras.values()))
        daemon.terminate()
        assert await daemon.wait() == 0
    assert "no session is left open" in (tmp_path / "log").read_text()


async def test_a_stop_does_not_wait_for_a_process_of_workers_that_hangs(
    tmp_path: Path, fleet: StartFleet
) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2)])
    config = tmp_path / "c.toml"
    config.write_text(tables(tmp_path) + house.fleet.inventory(interval="100s"))
    async with running(config, tmp_path / "log") as daemon:
        await until((tmp_path / "out/cam/latest.jpg").exists)
        (template,) = children_of(daemon.pid)
        os.kill(template, signal.SIGSTOP)
        daemon.terminate()
        assert await daemon.wait() == 0
    assert not Path(f"/proc/{template}").exists()


async def test_every_save_of_the_inventory_counts(tmp_path: Path, fleet: StartFleet) -> None:
    """Also the second of two in quick succession, and one that comes while the first is read."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2)])
    config, log = tmp_path / "c.toml", tmp_path / "log"
    text = tables(tmp_path) + house.fleet.inventory(interval="100s")
    config.write_text(text)
    async with running(config, log):
        await until((tmp_path / "out/cam/latest.jpg").exists)
        for number in range(8):
            config.write_text(text.replace("100s", f"{200 + number}s"))
            # Faster than the watcher's pause: what is under test
            await asyncio.sleep(0.15)
        config.write_text(text.replace("Gate", "the last word"))
        await until(lambda: b"the last word" in (tmp_path / "out/cam/latest.jpg").read_bytes())


def test_a_fault_of_ours_ends_the_daemon_with_a_status_systemd_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Archive) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Archive, "run", broken)
    config = tmp_path / "c.toml"
    config.write_text(tables(tmp_path))
    notices: list[Event] = []
    daemon = Daemon(config, load_inventory(config), Redactor(()), notices.append)
    assert run_loop(daemon.run) == 1
    assert any("archive failed" in notice.text for notice in notices)


def test_a_stop_does_not_wait_for_the_first_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never comes when the process of workers hangs."""

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    def emit(event: Event) -> None:
        if isinstance(event, DaemonReady):
            daemon.stop()

    async def run() -> int:
        async with asyncio.timeout(8):
            return await daemon.run()

    monkeypatch.setattr(WorkerTemplate, "fork", hang)
    config = tmp_path / "c.toml"
    config.write_text(tables(tmp_path))
    daemon = Daemon(config, load_inventory(config), Redactor(()), emit)
    assert run_loop(run) == 0


async def test_there_is_one_daemon_for_a_socket_and_for_an_output_directory(tmp_path: Path) -> None:
    """A second one would open more sessions than cameras give.

    It ends with 75, also when the directory came later.
    """
    names = ("first", "same socket", "same output", "other name")
    ways = {name: tmp_path / f"{name}.toml" for name in names}
    (tmp_path / "link").symlink_to("disk/out")
    blocker = tmp_path / "disk"
    blocker.write_text("no directory yet")
    for name, config in ways.items():
        output = {"same socket": "elsewhere", "other name": "link"}.get(name, "disk/out")
        socket = "other" if name in ("same output", "other name") else "first"
        config.write_text(
            f'[output]\ndirectory = "{tmp_path}/{output}"\n[api]\nsocket ='
            f' "{tmp_path}/{socket}.sock"\n'
        )
    async with running(ways["first"], tmp_path / "log") as first:
        await until((tmp_path / "first.sock").exists)
        async with running(ways["same socket"], tmp_path / "log2") as second:
            assert await second.wait() == 75
        blocker.unlink()
        await until((tmp_path / "disk/out/.camserver.lock").exists)
        for name in ("same output", "other name"):
            async with running(ways[name], tmp_path / "log3") as third:
                assert await third.wait() == 75
        assert first.returncode is None


async def test_a_thousand_sessions_wait_at_once_for_little(tmp_path: Path) -> None:
    """A thousand cameras whose keyframe doesn't come.

    Less than 150 MB, no thread and no process for any of them.
    """
    record, config = tmp_path / "record.json", tmp_path / "c.toml"
    simulator = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "camserver",
        "simulate",
        "--cameras=1000",
        "--base-port=0",
        "--fps=0.5",
        "--until-eof",
        "--fault=*=no-keyframe",
        f"--record={record}",
        f"--inventory={config}",
        stdin=asyncio.subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    await until(config.exists)
    config.write_text(
        tables(tmp_path)
        + '[polling]\nsessions = 2000\nopen_rate = 500\nstop_timeout = "12s"\n'
        + config.read_text().replace("[defaults]", '[defaults]\ntimeout = "300s"')
    )

    def waiting() -> int:
        with contextlib.suppress(FileNotFoundError):
            return sum(r["sessions_now"] for r in json.loads(record.read_text()).values())
        return 0

    async with running(config, tmp_path / "log") as daemon:
        await until(lambda: waiting() == 1000, 120)
        status = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
        )
        assert int(status["VmRSS"].split()[0]) < 150_000
        assert int(status["Threads"]) < 20
        assert len(processes_of(daemon.pid)) <= 2 + (os.cpu_count() or 1)
        daemon.terminate()
        assert await daemon.wait() == 0
    assert simulator.stdin is not None
    simulator.stdin.close()
    await simulator.wait()
