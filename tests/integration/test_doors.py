"""The unix socket and the lease command, against users who take everything."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

from desk import StartDaemon

HOARD = """
import socket, sys, time
held = []
for _ in range(600):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    held.append(connection)
print("held", flush=True)
time.sleep(600)
"""


async def test_a_user_cannot_use_up_all_connections(tmp_path: Path, daemon: StartDaemon) -> None:
    """Another user holds as many as it gets; a reload and a status still work."""
    desk = await daemon(interval="100s")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(0o711)
    desk.socket.chmod(0o666)
    hoarder = subprocess.Popen(  # noqa: ASYNC220
        [
            *("setpriv", "--reuid=65534", "--clear-groups"),
            *("/usr/bin/python3", "-c", HOARD, str(desk.socket)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert hoarder.stdout is not None
        assert await asyncio.to_thread(hoarder.stdout.readline) == "held\n"
        assert (await asyncio.to_thread(desk.client.post, "/v1/reload"))["cameras"] == 1
        reload = await desk.run("reload")
        assert await reload.wait() == 0
    finally:
        hoarder.kill()
        hoarder.communicate()


async def test_a_command_ends_with_the_terminal_of_its_session(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """`camserver lease` leads the session of a terminal, as with ssh HOST camserver lease."""
    desk = await daemon(interval="100s", unclean_cooldown="300ms")
    master, terminal = pty.openpty()
    began = tmp_path / "began"

    def lead() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-m", "camserver", "lease", "--socket", str(desk.socket), "cam"]
    process = subprocess.Popen(  # noqa: ASYNC220
        [*command, "--", "sh", "-c", f"trap 'exit 7' HUP; >{began}; while :; do sleep 0.05; done"],
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lead,  # noqa: PLW1509 - one thread
    )
    os.close(terminal)
    try:
        await desk.until(began.exists)
        os.close(master)
        await desk.until(lambda: process.poll() is not None)
        assert process.returncode == 7
        await desk.until(lambda: not desk.held())
    finally:
        process.kill()
        process.wait()
