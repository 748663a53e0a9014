"""The answers of a snapshot URL, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from support import camera

from camserver.capture.http import HttpEngine
from camserver.errors import CameraError
from camserver.http.picture import MAX_PICTURE_BYTES
from fuzzed.net import Net
from fuzzed.script import Script

LIMIT_S = 5.0
STATUSES = (*[b"200 OK"] * 30, *[b"401 No"] * 6, b"100 Continue", b"204 No", b"302 Found")
OTHERS = (b"206 Part", b"403 Busy", b"404 No", b"503 Busy", b"999 x", b"20 x", b"-1")
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4 + b"\xff\xd9"
VALUES = (
    b"image/jpeg",
    b"chunked",
    b"gzip",
    b"close",
    b"keep-alive",
    b"multipart/x-mixed-replace; boundary=x",
    b'Digest realm="r", nonce="n", qop="auth"',
    b'Digest realm="r", nonce="m", stale=true, algorithm=SHA-256',
    b'Basic realm="r"',
    b"Bearer",
    b"http://127.0.0.1/other",
    b"1030",
    b"0",
    b"-5",
    b"99999999999999999999",
    b"7, 7",
    b"\xb2\xff",
    b"a" * 9000,
    b"",
)
NAMES = (
    b"Content-Type",
    b"Content-Length",
    b"Transfer-Encoding",
    b"Content-Encoding",
    b"Connection",
    b"WWW-Authenticate",
    b"Location",
    b"Set-Cookie",
    b"X Y",
    b"",
)


class HttpCamera:
    """The camera's side of one connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._heard = b""

    def heard(self, data: bytes) -> Iterator[bytes | None]:
        self._heard += data
        while b"\r\n\r\n" in self._heard:
            _, _, self._heard = self._heard.partition(b"\r\n\r\n")
            yield from self._answer()

    def _answer(self) -> Iterator[bytes | None]:
        script = self.script
        if script.data.startswith(b"HTTP/"):  # an answer of a real camera, as it was sent
            yield script.data
            yield None
            return
        kind = script.below(32)
        if kind == 31:
            yield script.take(script.below(256))
        elif kind == 30:
            yield None
        elif kind < 29:
            for _ in range(1 + max(0, script.below(16) - 13)):
                yield self._message()
            if script.below(3) == 0:
                yield None

    def _message(self) -> bytes:
        script = self.script
        status = script.one((*STATUSES, *OTHERS))
        fields = [
            script.one(NAMES) + b": " + script.spoil(script.one(VALUES))
            for _ in range(script.below(6))
        ]
        body = JPEG if script.below(3) else script.take(script.below(256))
        framing = script.below(4)
        if framing == 1:
            fields.append(b"Content-Length: %d" % len(body))
        if framing == 2:
            fields.append(b"Transfer-Encoding: chunked")
            size = 1 + script.below(200)
            parts = [body[n : n + size] for n in range(0, len(body), size)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        head = b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(fields) + b"\r\n\r\n"
        return script.spoil(head) + script.spoil(body)


def get(data: bytes) -> None:
    """Fetch two pictures from that camera.

    Raises AssertionError when the result is neither bytes nor a CameraError, or when a connection
    stays open.
    """
    script = Script(data)
    loop = Net(script, lambda: HttpCamera(script))
    url = "http://127.0.0.1/snap.jpg"
    target = camera("cam", snapshot_url=url, username="viewer", password="s3cret-word")
    engine = HttpEngine()

    async def work() -> None:
        for _ in range(2):
            begun = loop.time()
            words = ""
            try:
                unit = await engine.session(target, url, begun + LIMIT_S).keyframe()
                assert 0 < len(unit.data) <= MAX_PICTURE_BYTES
            except CameraError as error:
                words = str(error)
            assert "s3cret" not in words
            assert loop.time() - begun <= LIMIT_S + 0.1
            await asyncio.sleep(0)  # a transport says in the next turn that it is closed
            assert not loop.open_transports, "the connection is still open"

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work())
    assert not loop.faults, loop.faults
