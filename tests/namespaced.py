"""A daemon in a mount namespace of its own, for tests with disks. The mounts end with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from house import House

from camserver.client import DaemonUnavailableError, SyncLeaseClient

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")


@contextlib.asynccontextmanager
async def daemon_in_namespace(
    folder: Path, house: House, output: str, before: str = "true", more: str = "", **defaults: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, SyncLeaseClient]]:
    """A daemon after the shell command `before`, in a mount namespace of its own."""
    config, socket = folder / "c.toml", folder / "run/api.sock"
    socket.parent.mkdir(exist_ok=True)
    config.write_text(
        f'[http]\nlisten = ""\n[api]\nsocket = "{socket}"\n[output]\ndirectory = "{output}"\n'
        f"{more}\n" + house.fleet.inventory(**({"interval": "300ms"} | defaults))
    )
    command = f"{before} && exec {sys.executable} -m camserver run --config {config}"
    with (folder / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            "unshare", "--mount", "sh", "-c", command, stderr=log
        )
    client = SyncLeaseClient(socket)
    try:
        await until(lambda: answers(client))
        yield process, client
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def answers(client: SyncLeaseClient) -> Any:
    with contextlib.suppress(DaemonUnavailableError):
        return client.get("/healthz")
    return None


async def until(condition: Callable[[], Any], limit_s: float = 60) -> Any:
    async with asyncio.timeout(limit_s):
        while not (value := await asyncio.to_thread(condition)):
            await asyncio.sleep(0.02)
    return value


def in_namespace(process: asyncio.subprocess.Process, command: str) -> None:
    subprocess.run(
        ["nsenter", "--mount", f"--target={process.pid}", "sh", "-c", command], check=True
    )


def outcome(client: SyncLeaseClient, camera: str) -> dict[str, Any]:
    return client.get(f"/v1/cameras/{camera}")["latest"] or {"attempt": {"result": None}}


def result(client: SyncLeaseClient, camera: str) -> str | None:
    found: str | None = outcome(client, camera)["attempt"]["result"]
    return found


def metrics(folder: Path) -> str:
    return subprocess.run(
        ["curl", "-s", "--unix-socket", str(folder / "run/api.sock"), "http://x/metrics"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
