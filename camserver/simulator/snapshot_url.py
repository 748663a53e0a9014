"""The snapshot URL of a simulated camera: HTTP/1.1, with the habits of real cameras.

It records how many requests it had at once, as a session's record does for RTSP.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from base64 import b64encode
from urllib.parse import urlsplit

from camserver.rtsp.messages import Headers, Request
from camserver.simulator.camera import SimulatedCamera
from camserver.simulator.login import SimulatedLogin
from camserver.simulator.pictures import Pictures
from camserver.simulator.snapshot_habits import HABITS, Reply

PATH = "/snapshot.jpg"
MAX_HEAD_BYTES = 64 * 1024
LATER_S = 3600.0


class SnapshotUrl:
    """The HTTP side of one camera, between `start` and `stop`."""

    def __init__(
        self, camera: SimulatedCamera, host: str, tls: ssl.SSLContext | None = None
    ) -> None:
        self._camera = camera
        self._host = host
        self._tls = tls
        self._pictures = Pictures("mjpeg", camera.width, camera.height)
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._was_busy = False
        self._frozen = b""

    async def start(self) -> None:
        """Listen. Raises OSError."""
        self._server = await asyncio.start_server(
            self._serve, self._host, self._camera.http_port, limit=MAX_HEAD_BYTES, ssl=self._tls
        )
        self._camera.http_port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this code runs in a task
        self._running.add(task)
        login = SimulatedLogin(self._camera)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                reply = await self._answer_unless_gone(_request(head), login, reader)
                writer.write(reply.encode())
                await writer.drain()
                if reply.stays_open:
                    await asyncio.sleep(LATER_S)
                if reply.closes:
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()
            self._running.discard(task)

    async def _answer_unless_gone(
        self, request: Request, login: SimulatedLogin, reader: asyncio.StreamReader
    ) -> Reply:
        """The answer. Raises ConnectionError when the client closes before it is there."""
        answering = asyncio.create_task(self._answer(request, login), name="snapshot answer")
        leaving = asyncio.create_task(reader.read(1), name="snapshot client")
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise ConnectionResetError
            return answering.result()
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    async def _answer(self, request: Request, login: SimulatedLogin) -> Reply:
        record, camera = self._camera.record, self._camera
        record.http_requests += 1
        if not login.accepts(request):
            return self._refusal(login, request)
        record.http_now += 1
        record.http_max = max(record.http_max, record.http_now)
        try:
            if record.http_now > camera.max_http:
                record.http_refused += 1
                return Reply(b"Device Busy", "503 Service Unavailable", "text/plain")
            await asyncio.sleep(LATER_S if "silent" in self._habits else camera.http_s)
            return self._picture(request.uri)
        finally:
            record.http_now -= 1

    def _refusal(self, login: SimulatedLogin, request: Request) -> Reply:
        refusal = login.refuse(request)
        lines = tuple(f"WWW-Authenticate: {each}" for each in refusal.challenges)
        reply = Reply(b"no", "401 Unauthorized", "text/html", lines, closes=refusal.closes)
        if "short-401" in self._habits:
            reply.length, reply.closes = "100", True
        return reply

    def _picture(self, target: str) -> Reply:
        habits = self._habits
        path = urlsplit(target).path
        if "redirect" in habits and path == PATH:
            return _redirect("/other" + PATH)
        if "redirect-away" in habits:
            return _redirect("http://elsewhere.invalid/")
        if path not in (PATH, "/other" + PATH):
            return Reply(b"not here", "404 Not Found", "text/plain")
        if "echo" in habits:
            camera = self._camera
            basic = b64encode(f"{camera.username}:{camera.password}".encode()).decode()
            return Reply(f"{camera.username}:{camera.password} {basic}".encode(), kind="text/plain")
        if "busy-once" in habits and not self._was_busy:
            self._was_busy = True
            return Reply(b"", "503 Service Unavailable", "text/plain", ("Retry-After: 1",))
        jpeg = self._frozen or self._pictures.jpeg(self._camera.name, int(time.time()))
        self._frozen = jpeg if "frozen" in habits else b""
        self._camera.snapshots.append(jpeg)
        habit = next((HABITS[name][1] for name in habits if name in HABITS), Reply)
        return habit(jpeg)

    @property
    def _habits(self) -> frozenset[str]:
        return frozenset(self._camera.http_quirk.split("+")) - {""}


def _request(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            headers.add(name, value.strip())
    return Request(method, target, headers)


def _redirect(location: str) -> Reply:
    return Reply(b"", "302 Found", "text/html", (f"Location: {location}",))
