"""The snapshot URL of a simulated camera: HTTP/1.1, with the habits of real cameras.

It records how many requests it had at once, as a session's record does for RTSP.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from PIL import Image

from camserver.rtsp.messages import Headers, Request
from camserver.simulator.camera import SimulatedCamera
from camserver.simulator.login import SimulatedLogin
from camserver.simulator.pictures import Pictures

PATH = "/snapshot.jpg"
MAX_HEAD_BYTES = 64 * 1024
LATER_S = 3600.0


@dataclass(slots=True)
class Reply:
    """An answer as it goes out. `stays_open`: nothing follows, and the connection stays."""

    body: bytes
    status: str = "200 OK"
    kind: str = "image/jpeg"
    lines: tuple[str, ...] = ()
    length: str | None = None
    """The text of Content-Length. None: the right one. "": no such line."""
    stays_open: bool = False
    closes: bool = False

    def encode(self) -> bytes:
        """The bytes of the answer."""
        length = str(len(self.body)) if self.length is None else self.length
        lines = [f"HTTP/1.1 {self.status}", f"Content-Type: {self.kind}", *self.lines]
        lines += [f"Content-Length: {length}"] if length else []
        lines += ["Connection: close"] if self.closes else []
        return "\r\n".join([*lines, "", ""]).encode() + self.body


Habit = Callable[[bytes], Reply]
HABITS: dict[str, tuple[str, Habit]] = {
    "length-over": (
        "Content-Length is 48 too large (Dahua)",
        lambda jpeg: Reply(jpeg, length=str(len(jpeg) + 48), stays_open=True),
    ),
    "length-under": (
        "Content-Length is too small",
        lambda jpeg: Reply(jpeg, length=str(len(jpeg) // 2)),
    ),
    "length-twice": (
        "two values of Content-Length",
        lambda jpeg: Reply(jpeg, lines=("Content-Length: 7",)),
    ),
    "chunked-open": (
        "chunks without the last one",
        lambda jpeg: Reply(
            b"%x\r\n%s\r\n" % (len(jpeg), jpeg),
            lines=("Transfer-Encoding: chunked",),
            length="",
            stays_open=True,
        ),
    ),
    "open-end": (
        "neither a length nor an end",
        lambda jpeg: Reply(jpeg, length="", stays_open=True),
    ),
    "trailing": ("more bytes after the picture", lambda jpeg: Reply(jpeg + b"DHAV" + bytes(64))),
    "filled": ("0xFF after the picture", lambda jpeg: Reply(jpeg + b"\xff" * 64)),
    "blanks-first": ("line ends before the picture", lambda jpeg: Reply(b"\r\n\r\n" + jpeg)),
    "gzip": (
        "compresses, whatever is accepted",
        lambda jpeg: Reply(gzip.compress(jpeg, 1), lines=("Content-Encoding: gzip",)),
    ),
    "multipart": (
        "an endless multipart/x-mixed-replace",
        lambda jpeg: Reply(
            b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n",
            kind="multipart/x-mixed-replace; boundary=x",
            length="",
            stays_open=True,
        ),
    ),
    "nameless-line": (
        "a line without a name (GoAhead)",
        lambda jpeg: Reply(jpeg, lines=("Tue, 12 Jun 2012 01:56:34 GMT",)),
    ),
    "blank-before-colon": (
        "a blank before the colon",
        lambda jpeg: Reply(jpeg, lines=(f"Content-Length : {len(jpeg)}",), length=""),
    ),
    "long-header": (
        "9 kB of one header",
        lambda jpeg: Reply(jpeg, lines=("X-Info: " + "x" * 9000,)),
    ),
    "small": ("a quarter of the size", lambda jpeg: Reply(_small(jpeg))),
    "png": ("a PNG", lambda jpeg: Reply(_converted(jpeg, "PNG"), kind="image/png")),
    "webp": ("a WebP", lambda jpeg: Reply(_converted(jpeg, "WEBP"), kind="image/webp")),
    "bmp": ("a BMP", lambda jpeg: Reply(_converted(jpeg, "BMP"), kind="image/bmp")),
    "turned": ("an EXIF orientation", lambda jpeg: Reply(_turned(jpeg))),
    "odd-jfif": (
        "a JFIF version that libjpeg warns of",
        lambda jpeg: Reply(jpeg.replace(b"JFIF\0\1\1", b"JFIF\0\x09\x01", 1)),
    ),
    "json-login": (
        "200 with JSON that wants a login",
        lambda _: Reply(
            json.dumps({"result": -1, "detail": "please login first"}).encode(),
            kind="application/json",
        ),
    ),
    "html-login": (
        "200 with a page",
        lambda _: Reply(b"<html><title>Log in</title></html>", kind="text/html"),
    ),
    "cut": ("half a picture", lambda jpeg: Reply(jpeg[: len(jpeg) // 2])),
    "busy": (
        "503 without a time",
        lambda _: Reply(b"Device Busy", "503 Service Unavailable", "text/plain"),
    ),
}
"""Habits of answers to a GET that is allowed, by name: what it is for a person, and the answer."""
OTHER_HABITS = {
    "redirect": "302 to another path of the same host",
    "redirect-away": "302 to another host",
    "busy-once": "503 with Retry-After: 1, once",
    "silent": "takes the request, and never answers",
    "echo": "200 with a text that repeats the login",
    "frozen": "its first picture again and again",
    "short-401": "a 401 whose body is shorter than its Content-Length",
}


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


def _converted(jpeg: bytes, kind: str) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as image:
        image.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def _small(jpeg: bytes) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as image:
        image.resize((image.width // 4, image.height // 4)).save(file, "JPEG")
    return file.getvalue()


def _turned(jpeg: bytes) -> bytes:
    """The picture with an EXIF orientation of 6: turn it clockwise to show it."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(file, "JPEG", exif=exif, quality="keep")
    return file.getvalue()
