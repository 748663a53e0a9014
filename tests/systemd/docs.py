"""Runs inside boot.sh.

Every code block of README.md and docs/sharing.md, as printed, in the order printed, in a fresh
clone.

The documents' cameras are at 192.0.2.10 and 192.0.2.20, which are this machine's loopback here; an
inventory is what a `toml` block says. Prints what does not go as the text says, and ends with 1;
says nothing when all is well.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HOME = Path("/srv/reader")
CLONE, ETC = HOME / "camserver", Path("/etc/camserver/cameras.toml")
PICTURES = Path("/var/lib/camserver/snapshots")
SESSIONS = {"192.0.2.10": 2, "192.0.2.20": 1}
"""What the documents' cameras give: the first one is a Tapo by its profile."""
NOT_RUN = {"make test": "it runs this; .ci/run is the same command"}
UNTIL_CTRL_C = "until Ctrl-C"
READY = {  # what there is when a command that runs until Ctrl-C has begun its work
    "make demo": "camserver-demo/snapshots/cam1/latest.jpg",
    "camserver simulate": "sim.toml",
    "camserver run": "sim/snapshots/cam2/latest.jpg",
}
LIMIT_S = 240.0
wrong: list[str] = []
background: list[subprocess.Popen[bytes]] = []


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each code block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def sh(command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
        **options,
    )  # type: ignore[call-overload,no-any-return]


def complain(text: str) -> None:
    wrong.append(text)
    print(text, flush=True)


def wait_for(path: Path | None = None, *, command: str = "") -> None:
    limit = time.monotonic() + LIMIT_S
    while not (path.exists() if path is not None else sh(command).returncode == 0):
        if time.monotonic() > limit:
            complain(f"never came: {path or command}")
            return
        time.sleep(0.05)


# ---- what a block does


def run_block(text: str, folder: Path) -> None:
    """Each command of a `sh` block; those that run until Ctrl-C get it when the others are done."""
    going: list[tuple[str, subprocess.Popen[bytes]]] = []
    for line in text.splitlines():
        command = line.strip()
        if (
            not command
            or command.startswith("#")
            or any(command.startswith(name) for name in NOT_RUN)
        ):
            continue
        if UNTIL_CTRL_C in command:
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            assert process.stdout is not None
            if not process.stdout.readline():
                complain(f"said nothing: {command}")
            reader = threading.Thread(target=process.stdout.read, daemon=True)
            reader.start()  # a full pipe would stop it
            going.append((command, process))
            for name, made in READY.items():
                if name in command:
                    wait_for(folder / made)
            continue
        ran = sh(command, cwd=folder)
        if ran.returncode:
            complain(f"status {ran.returncode}: {command}\n{ran.stdout}{ran.stderr}")
    for command, process in reversed(going):
        os.killpg(process.pid, signal.SIGINT)
        process.wait(LIMIT_S)
        # 2: make's, when its command was interrupted
        if process.returncode not in (0, 130, -signal.SIGINT, 2):
            complain(f"status {process.returncode}: {command}")


def take_inventory(text: str) -> None:
    """The editor that `sudoedit` opens."""
    (HOME / "new.toml").write_text(text)


def pictures(*cameras: str) -> None:
    """Somebody who reads on gives the daemon time for its first pictures."""
    for camera in cameras:
        wait_for(PICTURES / camera / "latest.jpg")


def run_streams(text: str) -> None:
    """The `exec:` sources of go2rtc.yaml, with a player in go2rtc's place.

    Meanwhile the lease is go2rtc's.
    """
    sources = re.findall(r'^  (\w+): "exec:(.*)"$', text, re.MULTILINE)
    if len(sources) != 2:
        complain(f"go2rtc.yaml: expected two sources: {text}")
    for number, (name, command) in enumerate(sources):
        output = f"rtsp://127.0.0.1:{8654 + number}/{name}"
        player = subprocess.Popen(
            f"ffmpeg -v error -rtsp_flags listen -i {output} -frames:v 20 -f null -".split(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        wait_for(command=f"ss -Hltn sport = :{8654 + number} | grep -q LISTEN")
        source = subprocess.Popen(
            command.replace("{output}", output).split(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        wait_for(command="camserver leases | grep -q 'live go2rtc'")
        _, err = player.communicate(timeout=LIMIT_S)
        source.terminate()
        source.communicate(timeout=LIMIT_S)
        if player.returncode:
            complain(f"{name}: no picture came through {command}: {err.decode()}")


# ---- the documents


def readme() -> None:
    number = 0
    for language, text in blocks(CLONE / "README.md"):
        if language == "toml":
            take_inventory(text)
        elif language == "sh":
            number += 1
            run_block(text, CLONE)
            if "enable --now" in text:
                pictures("gate")
    if number < 5:
        complain(f"README.md has {number} blocks of commands")
    for made in (*READY.values(), "cam1.jpg", "film.mp4", "gate.jpg"):
        if not (CLONE / made).exists():
            complain(f"README.md: {made} was not made")


def sharing() -> None:
    home, streams, lease = HOME, "", ""
    subprocess.run(["useradd", "go2rtc"], check=True)
    for language, text in blocks(CLONE / "docs/sharing.md"):
        match language:
            case "sh":
                run_block(text, home)
                lease = text
            case "yaml":
                streams = text
            case "toml":
                ETC.write_text(text)
                if (reloaded := sh("systemctl reload camserver")).returncode:
                    complain(
                        "sharing.md: its inventory is refused:"
                        f" {reloaded.stderr}{sh('camserver check').stderr}"
                    )
                pictures("gate", "yard")
                run_streams(streams)
            case "python":
                (home / "example.py").write_text(text)
                if (
                    ran := sh("/opt/camserver/bin/python -W error example.py", cwd=home)
                ).returncode:
                    complain(f"sharing.md: python: {ran.stderr}")
            case "json":
                shown = json.loads(text)
                asked = subprocess.Popen(
                    shlex.split(lease.split("#")[0]), stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                assert asked.stdout is not None
                said = json.loads(asked.stdout.readline())
                asked.terminate()
                asked.communicate()
                if said.keys() != shown.keys() or said["state"] != shown["state"]:
                    complain(f"sharing.md: the answer is {said}, not {shown}")


def upgrade_and_stop() -> None:
    """`make install` again restarts a running daemon.

    A stopped one is left stopped by whoever only asks.
    """
    pid = sh("systemctl show -p MainPID --value camserver").stdout
    again = sh("sudo make install", cwd=CLONE)
    if again.returncode or "has been restarted" not in again.stdout:
        complain(f"upgrade: {again}")
    if (
        sh("systemctl show -p MainPID --value camserver").stdout == pid
        or sh("systemctl is-active camserver").returncode
    ):
        complain("upgrade: the daemon was not restarted")
    Path("/etc/systemd/system/camserver.service.d").mkdir()
    Path("/etc/systemd/system/camserver.service.d/login.conf").write_text(
        f"[Service]\nLoadCredential=gate:{HOME}/password\n"
    )
    plain = ETC.read_text()
    ETC.write_text(plain.replace('password = "secret"', 'password_credential = "gate"'))
    again = sh("sudo make install && camserver status", cwd=CLONE)
    if (
        again.returncode not in (0, 1)
        or "has been restarted" not in again.stdout
        or "credential" in again.stderr
    ):
        complain(f"upgrade with a credential: {again}")
    ETC.write_text(plain)
    ETC.write_text(f"{ETC.read_text()}\nnonsense = 1\n")
    refused = sh("sudo make install", cwd=CLONE)
    runs_on = not sh("systemctl is-active camserver").returncode
    if not refused.returncode or "the old daemon runs on" not in refused.stderr or not runs_on:
        complain(f"upgrade with a faulty inventory: {refused}")
    ETC.write_text(ETC.read_text().replace("nonsense = 1", ""))
    sh("systemctl stop camserver")
    for command, status in (
        ("status", 69),
        ("leases", 69),
        ("reload", 69),
        (f"snapshot gate -o {HOME}/now.jpg", 0),
        ("doctor gate", 0),
    ):
        asked = sh(f"camserver {command}")
        if asked.returncode != status or (
            status and "camserver.service is stopped" not in asked.stderr
        ):
            complain(f"stopped, {command}: {asked}")
        if sh("systemctl is-active camserver").stdout.strip() != "inactive":
            complain(f"{command} has started a daemon that was stopped")
    if not sh("camserver lease gate -- true; systemctl is-active camserver").stdout.endswith(
        "active\n"
    ):
        complain("a lease did not start the daemon")
    # Boot.sh has mounted it; the program's folder itself can be removed
    sh("umount -l /opt/camserver")
    gone = sh("sudo make uninstall; command -v camserver", cwd=CLONE)
    if "camserver is gone" not in gone.stdout or gone.returncode == 0 or not ETC.exists():
        complain(f"uninstall: {gone}")


def set_up() -> None:
    """A clone with its environment, the documents' cameras, and an editor for `sudoedit`."""
    ignored = shutil.ignore_patterns(
        ".venv", ".git", ".*_cache", ".hypothesis", ".fuzz", "camserver-demo", "*.egg-info"
    )
    shutil.copytree("/checkout", CLONE, ignore=ignored)
    (CLONE / ".venv").symlink_to("/opt/camserver")
    (CLONE / ".venv/.installed").touch()
    Path("/etc/pip.conf").write_text(
        "[global]\nno-index = true\n[install]\nno-build-isolation = false\n"
    )  # no network here
    (HOME / "password").write_text("secret\n")
    editor = Path("/usr/local/bin/editor-of-the-test")
    editor.write_text(f'#!/bin/sh\nexec cp {HOME}/new.toml "$1"\n')
    editor.chmod(0o755)
    Path("/etc/sudoers.d/editor").write_text(f"Defaults editor={editor}\n")
    os.environ.pop("EDITOR", None)
    sh("ip link set lo up")
    for host, sessions in SESSIONS.items():
        sh(f"ip address add {host}/32 dev lo")
        options = (
            f"--cameras 1 --host {host} --base-port 554 --codec h264 --max-sessions {sessions}"
            f" --username viewer --password-file {HOME}/password --record {HOME}/{host}.json"
        )
        background.append(
            subprocess.Popen(
                ["/opt/camserver/bin/camserver", "simulate", *options.split()],
                stdout=subprocess.DEVNULL,
            )
        )
        wait_for(command=f"ss -Hltn src {host} | grep -q LISTEN")


set_up()
readme()
sharing()
upgrade_and_stop()
for process in background:
    process.terminate()
    process.wait()
for record in HOME.glob("192.0.2.*.json"):
    seen = json.loads(record.read_text())["cam1"]
    if seen["refused_full"] or seen["sessions_max"] > SESSIONS[record.stem] or seen["wrong_logins"]:
        complain(f"{record.stem}: {seen}")
sys.exit(bool(wrong))
