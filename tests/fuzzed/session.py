"""A whole RTSP session: from bytes to a picture or an error, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from house import fetch
from support import camera

from camserver.capture.native import NativeEngine
from camserver.errors import CameraError
from camserver.model import SessionEnd
from camserver.rtsp.messages import Interleaved, MessageParser, Request
from camserver.rtsp.rtp import RtpSender, h264_payloads, h265_payloads
from fuzzed.net import Net
from fuzzed.script import Script

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


class RtspCamera:
    """The camera's side of one connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.parser = MessageParser()
        self.sender = RtpSender(96, 1, 65530)

    def heard(self, data: bytes) -> Iterator[bytes | None]:
        for message in self.parser.feed(data):
            if isinstance(message, Request):
                yield self._answer(message)

    def _answer(self, request: Request) -> bytes | None:
        script = self.script
        kind = script.below(64)
        if kind == 63:
            return b""
        if kind == 62:
            return None
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
        script, made = self.script, b""
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
    script = Script(data)
    loop = Net(script, lambda: RtspCamera(script))
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
