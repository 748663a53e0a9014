"""A camera whose answers are made from input bytes.

It answers our client on a virtual clock, without a socket.

The hypothesis tests (`make test`) and the coverage-guided tests (`make fuzz`) share it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from house import fetch
from support import VirtualLoop, camera

from camserver.capture.native import NativeEngine
from camserver.errors import CameraError
from camserver.model import SessionEnd
from camserver.rtsp.messages import Interleaved, MessageParser, Request
from camserver.rtsp.rtp import RtpSender, h264_payloads, h265_payloads

LIMIT_S = 5.0
SPS, PPS, IDR = b"\x67\x42\x00\x1e\xab", b"\x68\xce\x3c\x80", b"\x65\x88" + bytes(range(1, 250)) * 8
PICTURES = (
    list(h264_payloads([SPS, PPS, IDR])),
    list(h264_payloads([b"\x61\x88" + b"x" * 500])),
    list(
        h265_payloads(
            [b"\x40\x01\x0c", b"\x42\x01\x01", b"\x44\x01\xc1", b"\x26\x01\x80" + b"y" * 3000]
        )
    ),
    [bytes((0, 0, 0, 0, 1, 75, 8, 8)) + b"z" * 900],
    [b"\xff\xd8" + b"j" * 300 + b"\xff\xd9"],
    [b""],
)
STATUSES = (*[200] * 40, 401, 302, 404, 453, 455, 461, 500, 999)
VALUES = (
    b"",
    b"*",
    b"rtsp://127.0.0.1/other",
    b"rtsp://elsewhere/",
    b"rtsp://[x/",
    b"1-65536",
    b"\xb2\xff",
    b"9" * 400,
    b'Digest realm="r", nonce="n", qop="auth"',
    b'Basic realm="r"',
    b"Digest nonce=",
    b"7;timeout=0",
    b"7;timeout=99999",
    b"RTP/AVP/TCP;interleaved=4-5",
    b"RTP/AVP;server_port=0-70000",
    b"a\r\n b",
)
NAMES = (
    b"Session",
    b"Transport",
    b"Content-Base",
    b"Content-Location",
    b"Location",
    b"WWW-Authenticate",
    b"CSeq",
    b"X",
)
LINES = (
    b"m=video 0 RTP/AVP 96",
    b"m=video 0 RTP/AVP 26",
    b"m=audio 0 RTP/AVP 8",
    b"a=rtpmap:96 H264/90000",
    b"a=rtpmap:96 H265/90000",
    b"a=rtpmap:96 VP8/0",
    b"a=control:track1",
    b"a=control:rtsp://127.0.0.1/t",
    b"a=fmtp:96 sprop-parameter-sets=Z0IAHqs=,aM48gA==",
    b"a=fmtp:96 sprop-vps=!!;sprop-sps=QgEB",
    b"m=video x \xb2",
    b"=",
)


DESCRIPTIONS = (
    (LINES[0], LINES[3], LINES[6], LINES[8]),
    (LINES[0], LINES[4], LINES[9]),
    (LINES[1],),
    (LINES[2], LINES[0], LINES[3]),
)


class Bytes:
    """Takes numbers and pieces from the input bytes. Numbers are 0 when the bytes are used up."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        self.at += count
        return piece

    def below(self, limit: int) -> int:
        return int.from_bytes(self.take(1) or b"\0", "big") % limit

    def one(self, choices: tuple[Any, ...]) -> Any:
        return choices[self.below(len(choices))]

    def spoil(self, text: bytes) -> bytes:
        """`text`, in most cases unchanged, otherwise with a few changed bytes."""
        for _ in range(max(0, self.below(8) - 5)):
            at = self.below(max(1, len(text)))
            text = text[:at] + self.take(self.below(6)) + text[at + 1 :]
        return text

    @property
    def over(self) -> bool:
        return self.at >= len(self.data)


class Net(VirtualLoop):
    """An event loop in which every connection leads to the camera made from bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.script = Bytes(data)
        self.open_transports: set[FakeTransport] = set()
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.faults.append(context))

    async def create_connection(  # type: ignore[override]
        self, factory: Callable[[], Any], *_: Any, **__: Any
    ) -> Any:
        transport = FakeTransport(self, factory())
        return transport, transport.protocol


class FakeTransport(asyncio.Transport):
    """The transport to that camera."""

    def __init__(self, loop: Net, protocol: Any) -> None:
        super().__init__()
        self.loop, self.protocol = loop, protocol
        self.closing = False
        self.parser = MessageParser()
        self.sender = RtpSender(96, 1, 65530)
        loop.open_transports.add(self)
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)}.get(name, default)

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: Any) -> None:
        for message in self.parser.feed(bytes(data)):
            if isinstance(message, Request):
                self.loop.call_soon(self._say, self._answer(message))

    def pause_reading(self) -> None:
        """Do nothing: data that is already on its way arrives anyway."""

    def resume_reading(self) -> None:
        """Do nothing: no data was held back."""

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.loop.call_soon(self._lost)

    abort = close

    def _lost(self) -> None:
        self.loop.open_transports.discard(self)
        self.protocol.connection_lost(None)

    def _say(self, data: bytes) -> None:
        script = self.loop.script
        for _ in range(40):
            if self.closing or not data:
                return
            cut = len(data) if script.over else 1 + script.below(200) * 8
            self.protocol.data_received(data[:cut])
            data = data[cut:]
        if not self.closing and data:
            self.protocol.data_received(data)

    def _answer(self, request: Request) -> bytes:
        script = self.loop.script
        kind = script.below(64)
        if kind == 63:
            return b""
        if kind == 62:
            self.loop.call_soon(self.close)
            return b""
        if kind == 61:
            return script.take(script.below(256))
        body = b""
        if request.method == "DESCRIBE":
            lines = (
                script.one(DESCRIPTIONS)
                if script.below(4)
                else [script.one(LINES) for _ in range(1 + script.below(8))]
            )
            body = b"\r\n".join(script.spoil(line) for line in lines)
        fields = [b"CSeq: " + request.headers.get("CSeq").encode()]
        fields += [
            script.one(NAMES) + b": " + script.spoil(script.one(VALUES))
            for _ in range(max(0, script.below(16) - 12))
        ]
        if body:
            fields.append(b"Content-Length: %d" % len(body))
        head = (
            b"RTSP/1.0 %d X\r\n" % (200 if script.over else script.one(STATUSES))
            + b"\r\n".join(fields)
            + b"\r\n\r\n"
        )
        answer = script.spoil(head) + body
        return answer + self._film() if request.method == "PLAY" else answer

    def _film(self) -> bytes:
        script, made = self.loop.script, b""
        for number in range(script.below(12)):
            for payload in script.one(PICTURES):
                packet = self.sender.packet(
                    script.spoil(payload), number * 3000, marker=script.below(3) == 0
                )
                if script.below(8):
                    made += Interleaved(
                        script.one((0, 0, 0, 1, 4, 5)), script.spoil(packet)[:65000]
                    ).encode()
        return made


def talk(data: bytes) -> None:
    """Try to take two pictures from that camera.

    Raises AssertionError when the result is neither a picture nor a CameraError, or when the
    session does not end as it must.
    """
    loop = Net(data)
    engine = NativeEngine()
    target = camera(
        "cam",
        url="rtsp://127.0.0.1/live",
        username="viewer",
        password="s3cret-word",
        timeout_s=LIMIT_S,
    )

    async def work() -> None:
        for _ in range(2):
            ends: list[SessionEnd] = []
            begun = loop.time()
            words = ""
            try:
                unit = await fetch(engine, target, target.url or "", begun + LIMIT_S, ends)
                assert unit.data
            except CameraError as error:
                words = str(error)
            assert "s3cret" not in words
            assert ends, "nobody was told how it ended"
            assert not loop.open_transports, "the lease would end before the transport"
            assert loop.time() - begun <= LIMIT_S + 2.1

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work())
    assert not loop.faults, loop.faults
