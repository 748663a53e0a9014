"""A stand-in for go2rtc in a process of its own, with somebody who watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from support import free_port

STAND_IN = Path(__file__).parent / "integration/go2rtc_stand_in.py"


class Go2rtc:
    """The stand-in, as the tests see it."""

    def __init__(self) -> None:
        self.api, self.rtsp = free_port(), free_port()
        self.table = (
            f'[go2rtc]\napi = "http://127.0.0.1:{self.api}"\n'
            f'rtsp = "rtsp://127.0.0.1:{self.rtsp}"\n'
        )

    @asynccontextmanager
    async def run(self, *streams: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/python3",
            str(STAND_IN),
            str(self.api),
            str(self.rtsp),
            *streams,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @asynccontextmanager
    async def viewer(self, stream: str = "cam") -> AsyncIterator[None]:
        """Somebody who watches in a browser; here when pictures come."""
        process = await asyncio.create_subprocess_exec(
            "ffmpeg",
            "-loglevel",
            "error",
            "-progress",
            "-",
            "-rtsp_transport",
            "tcp",
            "-i",
            f"rtsp://127.0.0.1:{self.rtsp}/{stream}",
            "-f",
            "null",
            "-",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            stdin=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        while b"frame=" not in (line := await process.stdout.readline()):
            assert line, "nothing to watch"
        try:
            yield
        finally:
            if process.returncode is None:  # it ends by itself when go2rtc dies
                process.terminate()
            await process.communicate()

    async def says(self, mode: str) -> None:
        await asyncio.to_thread(
            urlopen, Request(f"http://127.0.0.1:{self.api}/stand-in?mode={mode}", method="POST")
        )
