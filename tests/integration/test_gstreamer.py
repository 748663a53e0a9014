"""The main job against a third party's server.

Three cameras stay fresh and true while three others fail.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from house import psnr
from support import free_port, processes_of, until

PASSWORD = "p@:/#%? ü"


class Run:
    """One daemon on an inventory in a folder of its own; its lines are kept."""

    def __init__(self, folder: Path, inventory: str) -> None:
        self.output = folder / "out"
        self.config = folder / "cameras.toml"
        self.config.write_text(
            f'[http]\nlisten = ""\n[api]\nsocket = "{folder}/api.sock"\n'
            f'[output]\ndirectory = "{self.output}"\n' + inventory
        )
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "camserver", "run", "--config", str(self.config)],
                stderr=log,
                stdout=subprocess.DEVNULL,
            )

    def facts(self, camera: str) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self.output / camera / "latest.json").read_text())
            return facts
        except FileNotFoundError:
            return {}

    def pictures(self, camera: str) -> int:
        return sum(p.name != "latest.jpg" for p in (self.output / camera).rglob("*.jpg"))

    def stop(self) -> tuple[int, float]:
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30), time.monotonic() - started

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def fleet(gst: dict[str, int], deaf: int) -> str:
    return f"""
[defaults]
interval = "1s"
timeout = "5s"
max_sessions = 4
[[camera]]
id = "h264"
url = "rtsp://127.0.0.1:{gst["open"]}/h264"
[[camera]]
id = "h265"
url = "rtsp://127.0.0.1:{gst["open"]}/h265"
[[camera]]
id = "locked"
url = "rtsp://127.0.0.1:{gst["digest"]}/h264"
username = "viewer"
password = "{PASSWORD}"
[[camera]]
id = "nothing"
url = "rtsp://127.0.0.1:{free_port()}/x"
[[camera]]
id = "deaf"
url = "rtsp://127.0.0.1:{deaf}/x"
[[camera]]
id = "wrong"
url = "rtsp://127.0.0.1:{gst["digest"]}/h265"
username = "viewer"
password = "wr0ng-secret"
"""


def test_three_stay_fresh_while_three_fail(
    tmp_path: Path,
    gst: dict[str, int],
    sources: dict[str, np.ndarray[Any, Any]],
) -> None:
    """Pictures are whole at every moment and equal their source.

    Failures have names; the stop is quick; no secret shows.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    torn: list[str] = []
    reading = threading.Event()

    with Run(tmp_path, fleet(gst, listener.getsockname()[1])) as run:

        def reader() -> None:
            while not reading.is_set():
                for path in run.output.glob("*/latest.jpg"):
                    data = path.read_bytes()
                    if not (data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")):
                        torn.append(str(path))

        thread = threading.Thread(target=reader)
        thread.start()
        until(
            lambda: all(run.pictures(c) >= 5 for c in ("h264", "h265", "locked")),
            60,
            "five pictures of each",
        )
        until(
            lambda: run.facts("deaf").get("attempt", {}).get("result") == "timeout",
            30,
            "the deaf camera's time-out",
        )
        status, seconds = run.stop()
        reading.set()
        thread.join()
        log = run.log.read_text()
        # stop_timeout is 1.5 s; a process needs longer to end on a busy machine
        assert (status, seconds < 10) == (0, True), f"{status} after {seconds} s\n{log}"
        assert not torn
        for camera, codec in (("h264", "h264"), ("h265", "h265"), ("locked", "h264")):
            shown = simplejpeg.decode_jpeg((run.output / camera / "latest.jpg").read_bytes())
            assert psnr(shown, sources[codec]) > 35
            assert run.facts(camera)["attempt"]["result"] == "ok"
        assert run.facts("nothing")["attempt"]["result"] == "unreachable"
        assert run.facts("wrong")["attempt"]["result"] == "auth"
        assert not list(run.output.rglob("*.tmp"))
        everything = log + "".join(p.read_text() for p in run.output.glob("*/*.json"))
        for secret in (PASSWORD, "wr0ng-secret", "p%40", "%C3%BC"):
            assert secret not in everything
    listener.close()


def test_kill_9_leaves_no_worker_and_the_next_start_is_clean(
    tmp_path: Path, gst: dict[str, int]
) -> None:
    """The kernel ends the workers, and with them every session, when the daemon dies in any way."""
    listener = socket.create_server(("127.0.0.1", 0))
    with Run(tmp_path, fleet(gst, listener.getsockname()[1])) as run:
        listener.settimeout(30)
        connection, _ = listener.accept()  # a worker holds a session now
        until(lambda: run.pictures("h264") >= 1, what="a first picture")
        (run.output / "h264" / ".camserver-1-1.tmp").write_bytes(b"half")
        workers = processes_of(run.process.pid, "cam-")
        assert workers
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        connection.settimeout(30)
        try:
            while connection.recv(10_000):  # its requests, then the end
                pass
        except ConnectionResetError:
            pass
        connection.close()
        until(lambda: not any(Path(f"/proc/{w}").exists() for w in workers), what="no worker left")
    with Run(tmp_path, fleet(gst, listener.getsockname()[1])) as run:
        before = run.pictures("h264")
        until(lambda: run.pictures("h264") > before, what="a picture after the restart")
        assert not list(run.output.rglob(".camserver-1-1.tmp"))
        assert run.stop()[0] == 0
    listener.close()


def test_reload_keeps_a_refused_inventory_out(tmp_path: Path, gst: dict[str, int]) -> None:
    """Saving a faulty file changes nothing but the log.

    Saving a good one applies it, without a restart.
    """
    one = f'[[camera]]\nid = "one"\nurl = "rtsp://127.0.0.1:{gst["open"]}/h264"\ninterval = "1s"\n'
    with Run(tmp_path, one) as run:
        until(lambda: run.pictures("one") >= 1, what="a first picture")
        good = run.config.read_text()
        run.config.write_text(good + 'intervall = "2s"\n')
        until(lambda: "did you mean 'interval'" in run.log.read_text(), what="the fault in the log")
        before = run.pictures("one")
        until(lambda: run.pictures("one") > before, what="polling goes on")
        run.config.write_text(
            good + one.replace('"one"', '"two"').replace("cameras", "") + 'device = "other"\n'
        )
        until(lambda: run.pictures("two") >= 1, what="the new camera's picture")
        run.process.send_signal(signal.SIGHUP)
        until(
            lambda: run.log.read_text().count("inventory.loaded") >= 2, what="the reload by signal"
        )
        assert run.stop()[0] == 0
