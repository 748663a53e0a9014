"""Our own client and what cameras answer: scripted bytes of habits and faults."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from house import fetch
from support import camera

from camserver.capture.native import NativeEngine
from camserver.errors import CameraError
from camserver.model import Result, SessionEnd
from camserver.rtsp.aio.session import RtspSession
from camserver.rtsp.login import LoginCache
from camserver.rtsp.sdp import Track
from camserver.rtsp.session_cache import SessionCache


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def scripted(answers: dict[str, str]) -> tuple[asyncio.Server, str, list[str]]:
    """A camera that answers each method with a text; the list gets what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            method, uri, *_ = line.decode().split()
            cseq = ""
            while header := (await reader.readline()).decode().strip():
                cseq = header if header.lower().startswith("cseq") else cseq
            asked.append(f"{method} {uri}")
            if method in answers:
                writer.write(answers[method].replace("{cseq}", cseq).encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/live", asked


def described(sdp: str, headers: str = "") -> str:
    return (
        f"RTSP/1.0 200 OK\r\n{{cseq}}\r\n{headers}Content-Length: {len(sdp.encode())}\r\n\r\n{sdp}"
    )


OK = "RTSP/1.0 200 OK\r\n{cseq}\r\nSession: 7;timeout=60\r\n\r\n"


SDP = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"


@pytest.mark.parametrize(
    ("answers", "setup", "result", "words"),
    [
        (
            {"DESCRIBE": described(SDP + "a=control:track1\r\n", "Content-Base: {base}/x/\r\n")},
            "{base}/x/track1",
            Result.TIMEOUT,
            "SETUP",
        ),
        ({"DESCRIBE": described(SDP)}, "{base}", Result.TIMEOUT, "SETUP"),
        ({"DESCRIBE": described(SDP + "a=control:*\r\n")}, "{base}", Result.TIMEOUT, "SETUP"),
        (
            {"DESCRIBE": described(SDP + "a=control:rtsp://other/t\r\n")},
            "rtsp://other/t",
            Result.TIMEOUT,
            "SETUP",
        ),
        (
            {"DESCRIBE": described("v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n")},
            "",
            Result.ERROR,
            "VP8",
        ),
        ({"DESCRIBE": described("")}, "", Result.ERROR, "nothing"),
        ({"DESCRIBE": "HTTP/1.1 400 Bad Request\r\n\r\n"}, "", Result.ERROR, "HTTP server"),
        (
            {"DESCRIBE": "RTSP/1.0 302 Moved\r\n{cseq}\r\nLocation: rtsp://elsewhere/x\r\n\r\n"},
            "",
            Result.ERROR,
            "another host",
        ),
        *(
            (
                {"DESCRIBE": f"RTSP/1.0 302 Moved\r\n{{cseq}}\r\nLocation: {where}\r\n\r\n"},
                "",
                Result.ERROR,
                "redirects",
            )
            for where in (
                "rtsp://[x/",
                "rtsp://127.0.0.1:99999/",
                "rtsp://127.0.0.1:abc/",
                "http://127.0.0.1/",
                "",
            )
        ),
        (
            {"DESCRIBE": described("v=0\r\nm=video 0 RTP/AVP \u00b2\r\n")},
            "",
            Result.ERROR,
            "nothing",
        ),
        (
            {"DESCRIBE": "RTSP/1.0 \u00b2\u00b2\u00b2 OK\r\n\r\n"},
            "",
            Result.TIMEOUT,
            "bytes came that are no RTSP",
        ),
        (
            {
                "DESCRIBE": described(SDP),
                "SETUP": OK.replace("Session", f"Transport: x;interleaved={'9' * 5000}\r\nSession"),
            },
            "{base}",
            Result.TIMEOUT,
            "PLAY",
        ),
        (
            {
                "DESCRIBE": described(SDP),
                "SETUP": "RTSP/1.0 302 Moved\r\n{cseq}\r\nLocation: {base}2\r\n\r\n",
            },
            "{base}2",
            Result.ERROR,
            "redirects",
        ),
        (
            {
                "DESCRIBE": described(SDP),
                "SETUP": OK,
                "PLAY": "RTSP/1.0 302 Moved\r\n{cseq}\r\nLocation: {base}2\r\n\r\n",
                "TEARDOWN": OK,
            },
            "{base}",
            Result.ERROR,
            "a session that it had set up",
        ),
        (
            {
                "DESCRIBE": described(SDP),
                "SETUP": OK,
                "PLAY": "RTSP/1.0 455 No\r\n{cseq}\r\n\r\n",
                "TEARDOWN": OK,
            },
            "{base}",
            Result.ERROR,
            "455 to PLAY",
        ),
    ],
)
async def test_quirks(answers: dict[str, str], setup: str, result: Result, words: str) -> None:
    """Control attributes and bases as cameras write them; what isn't understood is named."""
    filled: dict[str, str] = {}
    server, base, asked = await scripted(filled)
    filled.update({method: text.replace("{base}", base) for method, text in answers.items()})
    if "{base}" in answers["DESCRIBE"]:
        filled["DESCRIBE"] = described(SDP + "a=control:track1\r\n", f"Content-Base: {base}/x/\r\n")
    target = camera("cam", url=base)
    ends: list[Any] = []
    with pytest.raises(CameraError, match=words) as caught:
        await fetch(NativeEngine(), target, base, soon(1.0), ends)
    assert caught.value.result is result
    assert ends
    if setup:
        assert f"SETUP {setup.replace('{base}', base)}" in asked
    server.close()


async def test_a_session_without_an_id_is_torn_down_too() -> None:
    """Some cameras name no Session; they count one all the same."""
    bare = "RTSP/1.0 200 OK\r\n{cseq}\r\n\r\n"
    server, base, asked = await scripted(
        {"DESCRIBE": described(SDP), "SETUP": bare, "PLAY": bare, "TEARDOWN": bare}
    )
    ends: list[SessionEnd] = []
    with pytest.raises(CameraError):
        await fetch(NativeEngine(), camera("cam", url=base), base, soon(0.5), ends)
    assert [line.split()[0] for line in asked] == ["DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
    assert ends == [SessionEnd.CLEAN]
    server.close()


async def test_a_camera_that_wants_a_describe_before_each_setup_is_understood_and_costs_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused once, or twice where it has worked, it is not asked that way again.

    Ports of a refused SETUP are closed.
    """
    answers = {"DESCRIBE": described(SDP), "PLAY": OK, "TEARDOWN": OK, "SETUP": OK}
    server, base, asked = await scripted(answers)
    engine = NativeEngine()
    target = camera("cam", url=base, transport="udp")
    memory = engine._cache(target, base)
    # Each shot is cancelled, and would leave nothing
    monkeypatch.setattr(engine, "_cache", lambda *_: memory)

    async def methods() -> list[str]:
        asked.clear()
        task = asyncio.create_task(fetch(engine, target, base, soon(60)))
        while not any(line.startswith("PLAY") for line in asked):
            if asked and asked[-1].startswith("SETUP") and asked[0].startswith("SETUP"):
                answers["SETUP"] = OK  # the one after the DESCRIBE
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        return [line.split()[0] for line in asked]

    before = open_files()
    assert await methods() == ["DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
    for refusals in (1, 2):
        memory.warm_worked, memory.warm_refusals = refusals == 2, 0
        for _ in range(refusals):
            answers["SETUP"] = "RTSP/1.0 455 No\r\n{cseq}\r\n\r\n"
            assert await methods() == ["SETUP", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
        assert await methods() == ["DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]
    async with asyncio.timeout(20):  # the camera's ends are closed a little later than ours
        while open_files() > before:
            await asyncio.sleep(0.01)
    server.close()


@pytest.mark.parametrize(
    ("transport", "connections", "end"),
    [("tcp", 2, SessionEnd.NONE), ("udp", 1, SessionEnd.UNCLEAN)],
)
async def test_a_setup_that_nobody_answered_may_live_on_over_udp(
    transport: str, connections: int, end: SessionEnd
) -> None:
    """The camera closes after a SETUP.

    Over TCP no session is left, so it is asked anew; over UDP one may be.
    """
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/live"
    memory = SessionCache(
        track=Track("video", 96, "H264"),
        track_url=f"{url}/track1",
        base=url,
        transport=transport,
    )
    session = RtspSession(url, memory, LoginCache("", ""))
    with pytest.raises(CameraError):
        await session.open()
    assert await session.close() is end
    assert [line.split()[0] for line in asked] == [b"SETUP", b"DESCRIBE"][:connections]
    server.close()


async def test_after_a_break_the_camera_may_count_what_it_has_not_answered() -> None:
    """SETUP by what is remembered, and a reset instead of an answer: no second one beside it."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/live"
    known = SessionCache(track=Track("video", 96, "H264"), track_url=f"{url}/track1", base=url)
    session = RtspSession(url, known, LoginCache("", ""))
    with pytest.raises(CameraError):
        await session.open()
    assert await session.close() is SessionEnd.UNCLEAN
    assert len(asked) == 1
    server.close()


async def test_a_nonce_that_is_refused_is_not_sent_again_to_keep_a_session_alive() -> None:
    """It expires after PLAY: one request learns that, the others answer the new challenge."""
    sent: list[tuple[str, str]] = []  # method, nonce
    nonce, kept_alive = "first", asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal nonce
        while True:
            with contextlib.suppress(asyncio.IncompleteReadError):
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                method = request.split()[0]
                cseq = next(x for x in request.split("\r\n") if x.lower()[:4] == "cseq")
                given = re.search('nonce="(.*?)"', request)
                sent.append((method, given[1] if given else ""))
                if given is None or given[1] != nonce:
                    refused = f"RTSP/1.0 401 No\r\n{cseq}\r\nWWW-Authenticate: "
                    refused += f'Digest realm="cam", nonce="{nonce}"\r\n\r\n'
                    writer.write(refused.encode())
                    continue
                answer = described(SDP) if method == "DESCRIBE" else OK
                answer = answer.replace("{cseq}", cseq).replace("timeout=60", "timeout=1")
                writer.write(answer.replace("{base}", url).encode())
                if method == "PLAY":
                    nonce = "second"
                if method == "GET_PARAMETER" and sent.count(("GET_PARAMETER", "second")) > 2:
                    kept_alive.set()
                if method != "TEARDOWN":
                    continue
            writer.close()
            return

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/live"
    session = RtspSession(url, SessionCache(), LoginCache("viewer", "s3cret"))
    async with asyncio.timeout(30):
        await session.open()
        await kept_alive.wait()
    assert await session.close() is SessionEnd.CLEAN
    after_play = sent[[method for method, _ in sent].index("PLAY") + 1 :]
    assert after_play.count(("GET_PARAMETER", "first")) == 1
    assert ("TEARDOWN", "first") not in after_play
    server.close()
