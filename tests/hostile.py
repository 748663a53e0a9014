"""A camera whose every text is hostile: it is long, clears the screen, and repeats the password.

One server answers RTSP and HTTP. The path of a request says which of its texts is hostile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PASSWORD = "Quagga-4711"
MARK = "<img src=x onerror=document.title='owned'>"
NO_UTF_8 = "\udcff\udca1"
TEXT = (
    f"\x1b[2J\x9b31m\u202egnp.exe\u200b\x07{NO_UTF_8}{MARK} {PASSWORD} rtsp://viewer:{PASSWORD}@x/ "
    + "x" * 6000
)
REALM = TEXT.replace("\x1b", "").replace("\x07", "")[:300]
"""Without control characters: else no login is sent."""
RTSP_PLACES = (
    "reason",
    "server",
    "realm",
    "session-name",
    "codec",
    "control",
    "location",
    "transport",
    "session",
    "header",
    "public",
)
LIBAV_PLACES = ("reason", "realm", "session-name")
HTTP_PLACES = ("reason", "server", "realm", "json", "html", "text", "location", "type", "garbage")


def rtsp_url(port: int, place: str) -> str:
    return f"rtsp://127.0.0.1:{port}/{place}"


def http_url(port: int, place: str) -> str:
    return f"http://127.0.0.1:{port}/{place}"


@asynccontextmanager
async def hostile_camera() -> AsyncIterator[int]:
    """Run the camera. Yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                writer.write(_bytes(_answer(request.decode("utf-8", "replace"))))
                if b"HTTP/1" in request:
                    break
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _answer(request: str) -> str:
    head, *lines = request.split("\r\n")
    method, target, version = head.split(" ", 2)
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
    place = target.split("?")[0].split("/")[3 if "://" in target else 1]
    if version.startswith("HTTP"):
        return _http(place)
    return _rtsp(method, place, f"RTSP/1.0 {{}}\r\nCSeq: {headers.get('cseq', '1')}\r\n{{}}\r\n")


def _rtsp(method: str, place: str, form: str) -> str:
    if method == "OPTIONS" and place != "public":
        return form.format("200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n")
    refusals = {
        "public": ("551 No", f"Public: {TEXT}\r\n"),
        "reason": (f"500 {TEXT}", ""),
        "server": ("500 Error", f"Server: {TEXT}\r\n"),
        "realm": (
            "401 Unauthorized",
            f'WWW-Authenticate: Digest realm="{REALM}", nonce="{REALM}"\r\n',
        ),
        "location": ("302 Moved", f"Location: rtsp://{TEXT}/\r\n"),
        "header": ("200 OK", f"Content-Length: {TEXT}\r\n"),
    }
    if place in refusals:
        return form.format(*refusals[place])
    if method == "DESCRIBE":
        text = _description(**{place: TEXT})
        lines = f"Content-Type: application/sdp\r\nContent-Length: {len(_bytes(text))}\r\n"
        return form.format("200 OK", lines) + text
    if method == "SETUP" and place in ("transport", "session"):
        texts = {"transport": "RTP/AVP/TCP;interleaved=0-1", "session": "1", place: TEXT}
        lines = f"Transport: {texts['transport']}\r\nSession: {texts['session']}\r\n"
        return form.format("200 OK", lines)
    return form.format(f"404 {TEXT}", "")


def _description(**texts: str) -> str:
    name, codec = texts.get("session-name", "s"), "é" + "X" * 6000 if "codec" in texts else "H264"
    return (
        f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns={name}\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
        f"a=rtpmap:96 {codec}/90000\r\na=control:{texts.get('control', 'track1')}\r\n"
    )


def _http(place: str) -> str:
    reason, body, lines = "500 Error", "", ""
    match place:
        case "reason":
            reason = f"500 {TEXT}"
        case "server":
            lines = f"Server: {TEXT}\r\n"
        case "realm":
            reason = "401 Unauthorized"
            lines = f'WWW-Authenticate: Digest realm="{REALM}", nonce="{REALM}"\r\n'
        case "json":
            body = '{"message": "' + TEXT.replace("\x1b", "\\u001b").replace("\x07", "") + '"}'
        case "html":
            body = f"<html><title>{TEXT}</title><body>{TEXT}</body></html>"
        case "text":
            body = TEXT
        case "location":
            reason, lines = "302 Found", f"Location: http://{TEXT}/\r\n"
        case "type":
            reason, lines, body = "200 OK", f"Content-Type: {TEXT}\r\n", TEXT
        case "garbage":
            return TEXT * 3
    length = len(_bytes(body))
    return f"HTTP/1.1 {reason}\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
