"""`camserver doctor` as people run it: beside a daemon, without one, for all cameras."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from desk import Desk, StartDaemon
from house import StartFleet

from camserver.config import load_inventory
from camserver.simulator.camera import Fault, SimulatedCamera


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_against_gstreamer_it_ends_with_an_entry_that_works(
    gst: dict[str, int], codec: str, tmp_path: Path
) -> None:
    """`camserver check` accepts what it prints, and a snapshot by it succeeds."""
    url = f"rtsp://127.0.0.1:{gst['open']}/{codec}"
    doctor = subprocess.run(
        [sys.executable, "-m", "camserver", "doctor", url],
        capture_output=True,
        text=True,
        check=False,
        env={"CAMSERVER_SOCKET": str(tmp_path / "none"), "PATH": "/usr/bin"},
    )
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert f"1280x720 {'hevc' if codec == 'h265' else codec}" in doctor.stdout
    config = tmp_path / "c.toml"
    config.write_text(
        f'[output]\ndirectory = "{tmp_path}/out"\n[api]\nsocket = "{tmp_path}/s"\n'
        + doctor.stdout[doctor.stdout.index("[[camera]]") :]
    )
    assert load_inventory(config).cameras[0].url == url
    shot = subprocess.run(
        [sys.executable, "-m", "camserver", "snapshot", "--config", config, "camera"],
        capture_output=True,
        check=True,
    )
    assert shot.stdout[:2] == b"\xff\xd8"


async def test_an_end_without_an_answer_is_told_to_the_lease(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """The camera answers no TEARDOWN.

    The doctor's lease ends as unclean, by a URL as well, and the poller waits for long.
    """
    desk = await daemon(
        [SimulatedCamera("cam", "Gate", gop=2, fault=Fault.parse("stall:TEARDOWN"))],
        interval="100s",
        unclean_cooldown="300ms",
    )
    url = desk.house.fleet.url("cam")
    doctor = await desk.run("doctor", "--config", str(desk.config), url)
    await doctor.communicate()
    assert re.search(r"lease.released camera=cam .*end=unclean.*doctor", desk.log.read_text())


async def test_beside_a_daemon_it_takes_a_lease(tmp_path: Path, daemon: StartDaemon) -> None:
    """The poller waits meanwhile; 2 for a camera nobody knows, 2 and words for what is no URL."""
    desk = await daemon(interval="300ms")
    await desk.until(lambda: desk.facts().get("captured_at"))
    doctor = await desk.run("doctor", "--json", "--config", str(desk.config), "cam")
    out, err = await doctor.communicate()
    assert doctor.returncode == 0, err
    report = json.loads(out)
    assert report["ok"]
    assert b"without a lease" not in err
    record = desk.house.fleet.cameras["cam"].record
    assert record.sessions_max == 1
    assert "doctor" in desk.log.read_text()
    for arguments, words in (
        (("nobody",), b"no enabled camera"),
        (("rtsp://u:s3cret/x",), b"not a URL"),
    ):
        failed = await desk.run("doctor", "--config", str(desk.config), *arguments)
        _, err = await failed.communicate()
        assert (failed.returncode, words in err, b"s3cret" in err) == (2, True, False), err


async def test_by_another_name_it_takes_a_lease_too(tmp_path: Path, daemon: StartDaemon) -> None:
    """Localhost is 127.0.0.1; a user who may not ask the daemon is told so, and opens nothing."""
    desk = await daemon(interval="300ms")
    url = desk.house.fleet.url("cam").replace("127.0.0.1", "localhost")
    doctor = await desk.run("doctor", "--config", str(tmp_path / "none"), url)
    _, err = await doctor.communicate()
    assert (doctor.returncode, b"without a lease" in err) == (0, False), err
    assert re.search("lease.acquired.*doctor", desk.log.read_text())
    assert desk.house.fleet.cameras["cam"].record.sessions_max == 1


async def test_without_a_daemon_two_doctors_take_turns(tmp_path: Path, fleet: StartFleet) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2)])
    desk = Desk(house, tmp_path)
    desk.write(interval="1s")
    doctors = [await desk.run("doctor", "--config", str(desk.config), "cam") for _ in range(2)]
    for doctor in doctors:
        _, err = await doctor.communicate()
        assert (doctor.returncode, b"without a lease" in err) == (0, False), err
    assert (await house.seen("cam")).sessions_max == 1


@pytest.mark.parametrize("daemon", [True, False])
async def test_all_cameras_at_once_in_a_table(
    tmp_path: Path, daemon: bool, fleet: StartFleet
) -> None:
    """Devices beside one another, cameras of one device in turn.

    Advice for those that fail; `doctor FILE` is the same.
    """
    house = await fleet(
        [
            SimulatedCamera("cam1", "A", gop=2),
            SimulatedCamera("cam2", "B", fault=Fault("refuse")),
            SimulatedCamera("cam3", "C", gop=2),
        ]
    )
    desk = Desk(house, tmp_path)
    desk.write(interval="100s", timeout="3s", unclean_cooldown="300ms")
    two = house.fleet.url("cam1").replace("stream1", "stream2")
    desk.config.write_text(
        desk.config.read_text() + f'[[camera]]\nid = "two"\nurl = "{two}"\ntimeout = "3s"\n'
        'unclean_cooldown = "300ms"\n'
    )
    async with desk.daemon() if daemon else contextlib.nullcontext():
        doctor = await desk.run("doctor", "--all", "--config", str(desk.config))
        out, err = await doctor.communicate()
        lines = {
            line.split()[1]: line
            for line in out.decode().splitlines()
            if line.startswith(("ok ", "FAIL "))
        }
        assert (doctor.returncode, set(lines)) == (1, {"cam1", "cam2", "cam3", "two"}), out + err
        assert re.fullmatch(
            r"ok    cam1  640x360 h264, a keyframe every 0\.\d s, by native", lines["cam1"]
        )
        assert lines["two"].startswith("ok    two   320x180 h264")
        assert "FAIL  cam2  session: connection refused" in lines["cam2"]
        assert b"3 of 4 cameras give pictures\ncam2: Is the camera on" in out
        again = await desk.run("doctor", str(desk.config), "--json")
        report = json.loads((await again.communicate())[0])
        assert {id_: camera["ok"] for id_, camera in report["cameras"].items()} == {
            "cam1": True,
            "cam2": False,
            "cam3": True,
            "two": True,
        }
    for simulated in house.fleet.cameras.values():
        assert simulated.record.sessions_max <= 1
        assert simulated.record.refused_full == 0


async def test_a_password_comes_from_the_url_as_it_is_or_from_stdin(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """Raw @, #, ? and letters.

    With --username the first line of stdin, so that no list of processes shows it.
    """
    password = "p@s#s? wörd\u5bc6😀"

    async def doctor(desk: Desk, *arguments: str, stdin: str = "") -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "camserver",
            "doctor",
            "--config",
            str(tmp_path / "none"),
            "--socket",
            str(desk.socket),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate(stdin.encode())
        return process.returncode, out.decode()

    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=2, username="viewer", password=password)]
    )
    desk, url = (
        Desk(house, tmp_path),
        house.fleet.url("cam").partition("@")[2] or house.fleet.url("cam")[7:],
    )
    for run in (
        await doctor(desk, f"rtsp://viewer:{password}@{url}"),
        await doctor(
            desk, f"rtsp://{url}", "--username", "viewer", stdin=f"{password}\nnot this\n"
        ),
    ):
        status, out = run
        assert status == 0, out
        assert 'username = "viewer"' in out
        assert "wörd" not in out
    for arguments, words in (
        (("gate", "--username", "viewer"), "--username goes with a URL"),
        ((f"rtsp://viewer@{url}", "--username", "viewer"), "has a username already"),
        ((f"rtsp://{url}", "--username", "viewer"), "no password was given for viewer"),
        ((f"rtsp://viewer@{url}",), "no password was given for viewer"),
        (("foo://x/",), "expected a URL that begins with rtsp://"),
        ((f"rtsp://viewer:\udce4@{url}",), "the URL is not UTF-8 text"),
        ((), "expected a camera's id, a URL, an inventory FILE, or --all"),
        (("gate", "--all"), "--all examines every camera"),
        (("--all", f"rtsp://{url}"), "it takes no URL"),
        (("/dev/null",), "no enabled camera in /dev/null"),
        (("gate",), "none: cannot be read: No such file or directory"),
        (("other.toml",), "other.toml: cannot be read: No such file or directory"),
    ):
        status, out = await doctor(desk, *arguments)
        assert (status, words in out) == (78 if "cannot be read" in words else 2, True), out


async def test_a_recorder_is_not_sent_one_wrong_password_for_each_of_its_channels(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """The other cameras of the device are not tried with a login it refused, and that is said."""
    house = await fleet([SimulatedCamera("cam", "NVR", gop=2, username="viewer", password="right")])
    desk = Desk(house, tmp_path)
    desk.write(timeout="3s")
    url = house.fleet.url("cam")
    login = 'username = "viewer"\npassword = "wr0ng"\n'
    channels = "".join(f'[[camera]]\nid = "ch{n}"\nurl = "{url}"\n{login}' for n in range(4))
    (tmp_path / "nvr.toml").write_text(
        desk.config.read_text().partition("[[camera]]")[0] + channels
    )
    doctor = await desk.run("doctor", str(tmp_path / "nvr.toml"))
    out = (await doctor.communicate())[0].decode()
    assert doctor.returncode == 1
    assert out.count("not tried: ch0 at the same address has refused this login") == 3
    assert out.count("Check username and password") == 1
    assert (await house.seen("cam")).wrong_logins == 1
    house.may_refuse_logins.add("cam")


async def test_a_daemon_that_is_restarted_ends_the_examination(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """The lease is gone with it.

    The session is torn down before the next daemon polls, and 75 says to try again.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", fault=Fault("silent"))])
    desk = Desk(house, tmp_path)
    desk.write(interval="100s", timeout="15s")
    log = (tmp_path / "log").open("a")
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "camserver", "run", "--config", str(desk.config), stderr=log
    )
    await desk.until(lambda: desk.ask("GET", "/healthz"))
    doctor = await desk.run("doctor", "--config", str(desk.config), "cam")
    await desk.until(lambda: [held for held in desk.held() if held["label"] == "doctor"])
    await desk.until(lambda: house.fleet.cameras["cam"].record.sessions_now)
    daemon.kill()
    await daemon.wait()
    _, err = await doctor.communicate()
    assert (doctor.returncode, b"the lease is over" in err) == (75, True), err
    record = await house.seen("cam")
    assert (record.sessions_now, record.sessions_max) == (0, 1)
    log.close()


async def test_whoever_stops_reading_ends_the_table(tmp_path: Path, fleet: StartFleet) -> None:
    """`doctor --all | head -1`, and a full disk: a status and no traceback."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2)])
    desk = Desk(house, tmp_path)
    desk.write(timeout="3s", unclean_cooldown="300ms")
    for end, status in (("| head -0; exit ${PIPESTATUS[0]}", 141), ("> /dev/full", 1)):
        ran = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            f"{sys.executable} -m camserver doctor --all --config {desk.config} {end}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await ran.communicate()
        assert (ran.returncode, b"Traceback" in err) == (status, False), err
    assert (await house.seen("cam")).ends_unclean == 0
