"""The unix socket and the lease command, against users who take everything."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import socket
import subprocess
import sys
import termios
from pathlib import Path

from aiohttp import web
from desk import StartDaemon

from camserver.api.listener import HttpListener

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


async def test_clients_that_do_not_read_the_end_are_counted(tmp_path: Path) -> None:
    """A closing connection counts until it is closed: otherwise descriptors would be used up."""
    body = bytes(300_000)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    app = web.Application()
    app.add_routes([web.get("/", answer)])
    listener = HttpListener(app, connections=8)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    await listener.open(server)
    before = len(list(Path("/proc/self/fd").iterdir()))
    clients = []
    for _ in range(40):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s", limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(0.01)
        clients.append((reader, writer))
    await asyncio.sleep(0.1)
    held = len(list(Path("/proc/self/fd").iterdir())) - before - len(clients)
    assert held <= 8
    for _, writer in clients:
        writer.transport.abort()
    await listener.close()
