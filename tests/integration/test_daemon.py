"""The daemon on a fleet of healthy and failing cameras, judged by the cameras' own record."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import simplejpeg
from house import House, psnr, rgb, with_house
from support import workers_of

from camserver.simulator.camera import Fault, SimulatedCamera
from camserver.simulator.pictures import Pictures

WORDS = {"nothing": "unreachable", "deaf": "timeout", "silent": "timeout", "wrong": "auth", "last": "no-keyframe"}


def results(output: Path) -> dict[str, str]:
    """The newest result of each failing camera, from its latest.json."""
    found = {}
    for camera_id in WORDS:
        with contextlib.suppress(FileNotFoundError):
            found[camera_id] = json.loads((output / camera_id / "latest.json").read_text())["attempt"]["result"]
    return found


def sent_pictures(simulated: SimulatedCamera, around_s: float) -> list[Any]:
    """What the camera showed in the seconds around a moment, decoded."""
    pictures = Pictures(simulated.codec, simulated.width, simulated.height)
    return [rgb(simulated.codec, pictures.sent(simulated.name, int(around_s) - back)) for back in range(4)]


def test_the_daemon_keeps_three_fresh_and_true_whatever_the_others_do(tmp_path: Path) -> None:
    """Three healthy cameras and five that are not; workers are killed, the inventory is reloaded, then SIGTERM.

    The cameras' record shows one session at most and none left, every reader sees whole pictures, and they are true.
    """
    healthy = ("h264", "h265", "mjpeg")
    login = {"username": "viewer", "password": "right: @/#%? ü"}     # the daemon has a wrong one

    async def work(house: House) -> None:
        config, output = tmp_path / "cameras.toml", tmp_path / "out"
        text = f'[output]\ndirectory = "{output}"\nquality = 95\n' + house.fleet.inventory(interval="300ms", timeout="3s")
        before, _, after = text.partition('id = "wrong"')
        text = before + 'id = "wrong"' + after.replace(login["password"], "wr0ng-secret", 1)
        config.write_text(text)
        log = (tmp_path / "log").open("w")
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "camserver", "run", "--config", str(config), stderr=log)
        records = {c: house.fleet.cameras[c].record for c in house.fleet.cameras}
        kills, torn = 0, []

        async def reach(clean: int) -> None:
            async with asyncio.timeout(90):
                while any(records[c].ends_clean < clean for c in healthy):
                    await asyncio.sleep(0.02)
                    for path in output.glob("*/latest.jpg"):
                        data = path.read_bytes()
                        if not (data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")):
                            torn.append(path)

        for clean in (3, 6, 9):
            await reach(clean)
            for pid in workers_of(daemon.pid, "cam-")[:2]:
                os.kill(pid, signal.SIGKILL)
                kills += 1
        config.write_text(text.replace("300ms", "400ms"))
        await reach(15)
        async with asyncio.timeout(60):     # the kills above may have been what a failing camera's last attempt met
            while results(output) != WORDS:
                await asyncio.sleep(0.05)
        daemon.terminate()
        assert await daemon.wait() == 0
        log.close()
        for camera_id, record in records.items():
            await house.seen(camera_id)
            assert record.sessions_max <= 1, camera_id
        assert kills
        assert records["wrong"].ends_without
        assert sum(records[c].ends_unclean for c in healthy) <= kills
        assert records["silent"].ends_clean
        assert not torn
        assert not list(tmp_path.rglob("*.tmp"))
        for camera_id in healthy:
            still = output / camera_id / "latest.jpg"
            around_s = datetime.fromisoformat(json.loads(
                (output / camera_id / "latest.json").read_text())["captured_at"]).timestamp()
            shown = simplejpeg.decode_jpeg(still.read_bytes())
            assert max(psnr(shown, sent) for sent in sent_pictures(house.fleet.cameras[camera_id], around_s)) > 35
        everything = (tmp_path / "log").read_text() + "".join(p.read_text() for p in output.glob("*/*.json"))
        for secret in (login["password"], "wr0ng-secret", "right%3A"):
            assert secret not in everything

    with_house([*(SimulatedCamera(c, c, c, gop=3) for c in healthy),
                SimulatedCamera("nothing", "Nothing", fault=Fault("refuse")),
                SimulatedCamera("deaf", "Deaf", fault=Fault("deaf")),
                SimulatedCamera("silent", "Silent", fault=Fault("silent")),
                SimulatedCamera("wrong", "Wrong", **login),
                SimulatedCamera("last", "No keyframe", fault=Fault("no-keyframe"))], work)
