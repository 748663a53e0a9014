"""Realms of real cameras: in any encoding. The server here reads and hashes bytes, not texts."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import simplejpeg
from house import HOLDER, House, StartFleet
from support import camera

from camserver.leases import Budget, http_device
from camserver.model import Attempt, Result

USER, PASSWORD = "zoë", "Tür:網"
JPEG = simplejpeg.encode_jpeg(np.full((48, 64, 3), 90, np.uint8), colorspace="RGB")
REALMS = {
    "utf-8": "网络摄像机".encode(),
    "gbk": "网络摄像机".encode("gbk"),
    "latin-1": "Büro, Tür 2".encode("latin-1"),
    "gbk, as a backslash": "昞".encode("gbk") + b" 1",
    "shift-jis": "表示".encode("shift_jis"),
    "shift-jis, at the end": "表".encode("shift_jis"),
    "big5": "功能".encode("big5"),
    "backslash": rb"CORP\cam",
    "tab": b"IP\tCamera",
    "no-break space": b"\xa0cam\xa0",
}


@dataclass
class Logins:
    """What came: logins that were right, and wrong."""

    right: int = 0
    wrong: int = 0


def md5(*parts: bytes) -> bytes:
    return hashlib.md5(b":".join(parts), usedforsecurity=False).hexdigest().encode()


def is_right(realm: bytes, method: bytes, header: bytes) -> bool:
    """Whether a digest over exactly these bytes came, and the realm as it was sent."""
    fields = dict(re.findall(rb'(\w+)="([^"]*)"', header))
    who = md5(USER.encode(), realm, PASSWORD.encode())
    wanted = md5(who, b"n1", md5(method, fields[b"uri"]))
    return (fields[b"realm"], fields[b"username"], fields[b"response"]) == (
        *(realm, USER.encode(), wanted),
    )


@asynccontextmanager
async def server(realm: bytes, logins: Logins) -> AsyncIterator[int]:
    """Ask for a digest login in `realm`, over RTSP and HTTP. Yields the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                method, _, version = request.split(b"\r\n", 1)[0].split(b" ")
                number = re.search(rb"(?i)cseq: (\d+)", request)
                lines = b"\r\nCSeq: " + number[1] if number else b""
                login = re.search(rb"(?i)\r\nauthorization: Digest ([^\r]*)", request)
                if login and is_right(realm, method, login[1]):
                    logins.right += 1
                    body = JPEG if number is None else b""
                    status = b" 200 OK" if number is None else b" 404 No"
                    length = str(len(body)).encode()
                    writer.write(version + status + lines + b"\r\nContent-Length: " + length)
                    writer.write(b"\r\n\r\n" + body)
                    continue
                logins.wrong += login is not None
                lines += b'\r\nWWW-Authenticate: Digest realm="' + realm + b'", nonce="n1"'
                writer.write(version + b" 401 No" + lines + b"\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()


async def take(house: House, scheme: str, port: int) -> Attempt:
    """A picture of the server, by one of our readers."""
    house.manager.configure({"cam": Budget(1, 0.0, 0.0), http_device("cam"): Budget(1, 0.0, 0.0)})
    login = {"username": USER, "password": PASSWORD}
    if scheme == "http":
        urls = {"url": None, "snapshot_url": f"http://127.0.0.1:{port}/x.jpg"}
    else:
        engine = "libav" if "libav" in scheme else "native"
        urls = {"url": f"rtsp://127.0.0.1:{port}/x", "engine": engine}
    return await house.service.take(camera("cam", **urls, **login), HOLDER)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsp by libav", "http"])
@pytest.mark.parametrize("realm", REALMS.values(), ids=REALMS)
async def test_a_right_password_is_right_in_any_realm(
    realm: bytes, scheme: str, fleet: StartFleet
) -> None:
    house, logins = await fleet([]), Logins()
    async with server(realm, logins) as port:
        attempt = await take(house, scheme, port)
    assert (logins.right > 0, logins.wrong) == (True, 0), attempt.error
    assert attempt.result == (Result.OK if scheme == "http" else Result.NOT_FOUND)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsp by libav", "http"])
async def test_a_realm_that_cannot_be_repeated_gets_no_login(
    scheme: str, fleet: StartFleet
) -> None:
    """A control character cannot be sent back. An answer to another realm would be a wrong one."""
    house, logins = await fleet([]), Logins()
    async with server(b"a\x1bb", logins) as port:
        attempt = await take(house, scheme, port)
    assert logins == Logins()
    assert "digest MD5 with control characters" in attempt.error
