"""The commands as a person types them: what they print, and with which status they end."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from house import StartFleet
from support import free_port, until

from camserver.simulator.camera import Fault, SimulatedCamera
from camserver.storage.exif import captured_at

PASSWORD = f"p{os.getpid()}@:/#%? ü"
SECRET = f"s3cret{os.getpid()}"


def camserver(
    *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "camserver", *arguments],
        capture_output=True,
        cwd=cwd,
        timeout=100,
        check=False,
    )


def tables(folder: Path) -> str:
    return (
        f'[http]\nlisten = ""\n[output]\ndirectory = "{folder}/out"\n[api]\nsocket ='
        f' "{folder}/api.sock"\n'
    )


def test_check_says_everything_that_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[[camera]]\nid = "Gate"\nurl = "http://x"\nintervall = 3\n')
    run = camserver("check", "--config", config)
    assert run.returncode == 78
    for words in (b"lower-case", b"rtsp://", b"did you mean 'interval'"):
        assert words in run.stderr
    config.write_text('[[camera]]\nid = "gate"\nurl = "rtsp://x/1"\n')
    run = camserver("check", "--config", config)
    assert (run.returncode, b"1 cameras on 1 devices" in run.stdout) == (0, True)
    assert camserver("check", "--config", tmp_path / "none.toml").returncode == 78
    assert json.loads(camserver("check", "--schema").stdout)["title"] == "camserver inventory"
    assert camserver("chek").returncode == 2


def test_check_warns_of_a_disk_that_is_smaller_than_its_limit(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    for min_free, warned in (("1000000TB", True), ("1kB", False)):
        config.write_text(tables(tmp_path) + f'[retention]\nmin_free = "{min_free}"\n')
        run = camserver("check", "--config", config)
        assert run.returncode == 0
        assert (b"warning: [retention]: min_free: " in run.stdout) == warned


def test_an_inventory_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    """It is not called wrong.

    And where the socket's name stands in it, the default one is said to be a guess.
    """
    config = tmp_path / "c.toml"
    for command in (("check",), ("run",), ("snapshot", "cam")):
        run = camserver(*command, "--config", config)
        assert (run.returncode, run.stderr.decode()) == (
            78,
            f"camserver: {config}: cannot be read: No such file or directory\n",
        ), run.stderr
    config.mkdir()  # root may read everything, but no folder
    for command, words in (
        ("leases", "because of"),
        ("status", "the files can't be found:"),
        ("reload", "because of"),
    ):
        run = camserver(command, "--config", config)
        assert run.returncode == 69
        assert f"{words} {config}: cannot be read: Is a directory" in run.stderr.decode(), (
            run.stderr
        )


def test_who_only_asks_needs_no_password(tmp_path: Path) -> None:
    """A credential is there for the service alone.

    `status` and `leases` go on, `check` says what it lacks, or skips it.
    """
    config = tmp_path / "c.toml"
    config.write_text(
        tables(tmp_path)
        + '[[camera]]\nid = "gate"\nurl = "rtsp://127.0.0.1:9/x"\nusername = "viewer"\n'
        'password_credential = "gate"\n'
    )
    assert b"systemd gave no credentials" in camserver("check", "--config", config).stderr
    assert camserver("check", "--without-passwords", "--config", config).returncode == 0
    for command in ("status", "leases"):
        run = camserver(command, "--config", config)
        assert run.returncode == 69
        assert b"api.sock: no daemon" in run.stderr
        assert b"credential" not in run.stderr
    assert b"gate" in camserver("status", "--config", config).stdout


def test_simulate_says_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    for arguments, words in (
        (("--force",), b"go with --inventory"),
        (("--output", tmp_path), b"go with --inventory"),
        (("--inventory", tmp_path), b"expected the name of a file"),
        (("--inventory", tmp_path / "no/x.toml"), b"in a folder that exists"),
    ):
        run = camserver("simulate", "--seconds", "0.1", "--base-port", "0", *arguments)
        assert (run.returncode, words in run.stderr) == (2, True), run.stderr


async def test_snapshot_takes_one_picture_and_shows_no_password(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """To a file and to stdout.

    1 when the camera fails, 2 for an unknown one; by the daemon while one is running.
    """
    config = tmp_path / "c.toml"
    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=5, username="viewer", password=PASSWORD)]
    )
    config.write_text(
        tables(tmp_path)
        + house.fleet.inventory(interval="1s")
        + '[[camera]]\nid = "nobody"\n'
        + f'url = "rtsp://viewer:{SECRET}@127.0.0.1:{free_port()}/x"\n'
    )

    async def snapshot(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return await asyncio.to_thread(camserver, "snapshot", "--config", config, *arguments)

    run = await snapshot("cam", "-o", tmp_path / "cam.jpg")
    assert (run.returncode, (tmp_path / "cam.jpg").read_bytes()[:2]) == (
        0,
        b"\xff\xd8",
    ), run.stderr
    run = await snapshot("cam")
    assert (run.returncode, run.stdout[:2], run.stdout[-2:]) == (0, b"\xff\xd8", b"\xff\xd9")
    assert captured_at(run.stdout), "the same EXIF as a published picture"
    run = await snapshot("nobody")
    assert (run.returncode, b"refused" in run.stderr, SECRET.encode() in run.stderr) == (
        1,
        True,
        False,
    )
    assert (await snapshot("stranger")).returncode == 2
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "camserver", "run", "--config", config, stderr=subprocess.DEVNULL
    )
    while not (tmp_path / "out" / "cam" / "latest.jpg").exists():
        await asyncio.sleep(0.05)
    ps = await asyncio.create_subprocess_exec("ps", "axeww", stdout=subprocess.PIPE)
    processes, _ = await ps.communicate()
    for secret in (PASSWORD.encode(), f"p{os.getpid()}%40".encode(), SECRET.encode()):
        assert secret not in processes
    run = await snapshot("cam")
    # The daemon took it
    assert (run.returncode, run.stdout[:2]) == (0, b"\xff\xd8"), run.stderr
    assert captured_at(run.stdout)
    run = await snapshot("--socket", tmp_path / "none", "cam")
    assert (run.returncode, b"none answers" in run.stderr) == (69, True)
    second = await asyncio.to_thread(camserver, "run", "--config", config)
    assert second.returncode == 75
    daemon.terminate()
    assert await daemon.wait() == 0
    assert (await house.seen("cam")).sessions_max == 1


async def test_snapshots_side_by_side_share_the_cameras_one_session(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """Four at once, no daemon: each waits for the one before.

    A daemon that starts meanwhile waits, too.
    """
    config = tmp_path / "c.toml"
    house = await fleet([SimulatedCamera("cam", "Gate", gop=5)])
    config.write_text(tables(tmp_path) + house.fleet.inventory(interval="1s", lease_wait="60s"))

    async def snapshot(output: str) -> subprocess.CompletedProcess[bytes]:
        return await asyncio.to_thread(
            camserver, "snapshot", "--config", config, "cam", "-o", tmp_path / output
        )

    snapshots = asyncio.gather(*(snapshot(f"{n}.jpg") for n in range(4)))
    while not house.fleet.cameras["cam"].record.opens:
        await asyncio.sleep(0.01)
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "camserver", "run", "--config", config, stderr=subprocess.DEVNULL
    )
    # 69: by a daemon whose socket is still to come
    assert {run.returncode for run in await snapshots} <= {0, 69}
    while not (tmp_path / "out" / "cam" / "latest.jpg").exists():
        await asyncio.sleep(0.05)
    daemon.terminate()
    assert await daemon.wait() == 0
    record = await house.seen("cam")
    assert (record.sessions_max, record.refused_full, record.ends_unclean) == (1, 0, 0)
    assert (await snapshot("no/x.jpg")).returncode == 2
    (tmp_path / "file").touch()
    config.write_text(f'[output]\ndirectory = "{tmp_path}/file/out"\n' + house.fleet.inventory())
    run = await snapshot("x.jpg")
    assert (run.returncode, b"must be writable" in run.stderr) == (1, True)


async def test_sigterm_ends_a_snapshot_with_its_session(tmp_path: Path, fleet: StartFleet) -> None:
    config = tmp_path / "c.toml"
    house = await fleet([SimulatedCamera("cam", "Gate", fault=Fault("silent"))])
    config.write_text(tables(tmp_path) + house.fleet.inventory(timeout="60s"))
    run = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "camserver",
        "snapshot",
        "--config",
        config,
        "cam",
        stderr=subprocess.PIPE,
    )
    while "PLAY" not in house.fleet.cameras["cam"].requests:
        await asyncio.sleep(0.01)
    run.terminate()
    assert await run.wait() == 143
    record = await house.seen("cam")
    assert (record.ends_clean, record.ends_unclean) == (1, 0)


def test_demo_runs_by_itself_and_ends_clean(tmp_path: Path) -> None:
    """Pictures on disk, lines for each, the cameras' own record at the end.

    Nothing is left running.
    """
    run = camserver("demo", "--cameras", "4", "--seconds", "8", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert b"never more than 1 at once on any camera, 0 left open" in run.stdout
    assert (tmp_path / "camserver-demo/snapshots/cam1/latest.jpg").exists()
    left = subprocess.run(
        ["pgrep", "-f", str(tmp_path)], capture_output=True, check=False
    ).stdout.split()
    assert [p for p in left if int(p) != os.getpid()] == []


def test_simulate_keeps_its_record_and_refuses_nonsense(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "camserver",
            "simulate",
            "--cameras",
            "2",
            "--base-port",
            "0",
            "--fault",
            "cam2=refuse",
            "--until-eof",
            "--record",
            str(record),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as simulator:
        until(record.exists)
        assert simulator.stdin is not None
        simulator.stdin.close()
    assert simulator.returncode == 0
    assert json.loads(record.read_text())["cam1"]["opens"] == 0
    for fault in ("cam1=nonsense", "cam9=deaf"):
        run = camserver("simulate", "--cameras", "2", "--base-port", "0", "--fault", fault)
        assert run.returncode in (1, 2)
        assert b"cam9" in run.stderr or b"there are none, refuse" in run.stderr


def test_simulate_replaces_no_inventory_unasked(tmp_path: Path) -> None:
    """It may be the real one."""
    inventory = tmp_path / "cameras.toml"
    inventory.write_text("# mine")
    arguments = (
        "simulate",
        "--cameras",
        "1",
        "--base-port",
        "0",
        "--seconds",
        "0",
        "--inventory",
        str(inventory),
    )
    refused = camserver(*arguments)
    assert (refused.returncode, inventory.read_text()) == (2, "# mine")
    assert b"--force" in refused.stderr
    assert camserver(*arguments, "--force").returncode == 0
    assert "[[camera]]" in inventory.read_text()


def test_quirks_can_be_combined_and_unknown_ones_are_named() -> None:
    refused = camserver("simulate", "--quirk", "lf+nonsense", "--seconds", "0")
    assert refused.returncode == 2
    assert b"nonsense" in refused.stderr


def test_unknown_habits_of_snapshot_urls_are_named() -> None:
    run = camserver("simulate", "--snapshot-url", "gzip+pgn")
    assert run.returncode == 2
    assert b"there is no habit pgn" in run.stderr


def test_check_names_cameras_that_share_a_device_because_of_their_address(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        "".join(
            f'[[camera]]\nid = "{name}"\nurl = "rtsp://192.0.2.1/{name}"\n{device}'
            for name, device in (("a", ""), ("b", ""), ("c", 'device = "c"\n'))
        )
    )
    said = camserver("check", "--config", str(config)).stdout.decode()
    assert "a, b share its sessions" in said
    assert "device of its own" in said
