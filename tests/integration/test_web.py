"""The wall's server: read-only, safe to show, right about caches; metrics that Prometheus takes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from pathlib import Path

import simplejpeg
from desk import StartDaemon
from support import free_port
from web import ask, fleet


async def test_pictures_are_cached_rightly_and_made_smaller_once(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    address = f"127.0.0.1:{free_port()}"
    desk = await daemon(fleet(), http=address, interval="100s")
    await desk.until((desk.output / "cam/latest.jpg").exists)
    for query, width in (("", 640), ("?width=300", 320)):
        path = f"/v1/cameras/cam/latest.jpg{query}"
        status, headers, body = await asyncio.to_thread(ask, address, path)
        assert (status, headers["Content-Type"], headers["Cache-Control"]) == (
            200,
            "image/jpeg",
            "no-cache",
        )
        assert simplejpeg.decode_jpeg_header(body)[1] == width
        assert (await asyncio.to_thread(ask, address, path, **{"If-None-Match": headers["Etag"]}))[
            0
        ] == 304
        assert (await asyncio.to_thread(ask, address, path, **{"If-None-Match": '"other"'}))[
            0
        ] == 200
        since = {"If-Modified-Since": headers["Last-Modified"]}
        assert (await asyncio.to_thread(ask, address, path, **since))[0] == 304
    for width in ("0", "-1", "9999999999999999999999", "x", "%00"):
        assert (await asyncio.to_thread(ask, address, f"/v1/cameras/cam/latest.jpg?width={width}"))[
            0
        ] == 400
    assert (await asyncio.to_thread(ask, address, "/v1/cameras/bad/latest.jpg?width=160"))[0] == 404


async def test_it_is_read_only_and_shows_nothing_else(tmp_path: Path, daemon: StartDaemon) -> None:
    """No verbs that act, no way out of the folders, no page for others, no crash by nonsense."""
    address = f"127.0.0.1:{free_port()}"
    desk = await daemon(fleet(), http=address, interval="100s")
    await desk.until((desk.output / "cam/latest.jpg").exists)
    (desk.output / "secret.jpg").write_bytes(b"\xff\xd8")
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        for path in (
            "/v1/cameras/cam/snapshot",
            "/v1/cameras/cam/lease",
            "/v1/reload",
            "/v1/cameras",
            "/",
        ):
            assert (await asyncio.to_thread(ask, address, path, method))[0] in (404, 405)
    assert (await asyncio.to_thread(ask, address, "/", "HEAD"))[0] == 200
    for path in (
        "/v1/cameras/../secret.jpg",
        "/v1/cameras/cam/archive/../../secret.jpg",
        "/wall/../server.py",
        "/wall/%2e%2e/web.py",
        "/v1/cameras/cam/archive/%2e%2e/%2e%2e/secret.jpg",
        "/v1/cameras/cam/archive//etc/passwd",
        "/v1/cameras/cam%00/latest.jpg",
        "/v1/cameras/cam/archive/latest.json",
        "//etc/passwd",
    ):
        assert (await asyncio.to_thread(ask, address, path))[0] in (400, 404), path
    # A name that points here
    assert (await asyncio.to_thread(ask, address, "/", Host="evil.example"))[0] == 403
    assert (await asyncio.to_thread(ask, address, "/", Host="localhost:3000"))[0] == 200
    assert (await asyncio.to_thread(ask, address, "/", Host="[::1"))[0] == 400
    for day in ("9999-12-31", "0000-01-01", "yesterday", ""):
        path = f"/v1/cameras/cam/archive?day={day}"
        assert (await asyncio.to_thread(ask, address, path))[0] == 400
    status, headers, _ = await asyncio.to_thread(ask, address, "/")
    assert status == 200
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert (await asyncio.to_thread(ask, address, "/", **{"X-Big": "y" * 100_000}))[0] == 400
    with socket.create_connection(address.split(":")) as raw:  # type: ignore[arg-type]
        raw.sendall(b"\x16\x03\x01\0\xff\r\n\r\n")
        assert b"400" in raw.recv(1000)
    assert (await asyncio.to_thread(ask, address, "/healthz"))[0] == 200


async def test_a_reload_changes_what_the_page_may_show(tmp_path: Path, daemon: StartDaemon) -> None:
    """Its names, go2rtc's player, and the policy that allows it."""
    address = f"127.0.0.1:{free_port()}"
    desk = await daemon(fleet(), http=address, interval="100s")
    site = json.loads((await asyncio.to_thread(ask, address, "/wall/site.json"))[2])
    assert site == {"actions": False, "go2rtc": None, "timezone": "UTC"}
    desk.http, desk.more = (
        f'{address}"\nhosts = ["wall.example"] #',
        '[go2rtc]\napi = "http://127.0.0.1:1984"',
    )
    desk.write(interval="100s")
    await asyncio.to_thread(desk.client.post, "/v1/reload")
    assert (await asyncio.to_thread(ask, address, "/", Host="wall.example"))[0] == 200
    _, headers, body = await asyncio.to_thread(ask, address, "/wall/site.json")
    assert json.loads(body)["go2rtc"] == "http://127.0.0.1:1984"
    assert "frame-src http://127.0.0.1:1984" in headers["Content-Security-Policy"]


async def test_a_password_is_asked_for_and_actions_only_of_our_own_page(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    address = f"127.0.0.1:{free_port()}"

    secret = tmp_path / "secret"
    secret.write_text("pass wörd\nrest\n")
    desk = await daemon(
        fleet()[:1],
        http=f'{address}"\npassword_file = "{secret}"\nactions = true #',
        interval="100s",
    )

    def login(password: str) -> str:
        return "Basic " + base64.b64encode(f"camserver:{password}".encode()).decode()

    for headers in (
        {},
        {"Authorization": login("wrong")},
        {"Authorization": "Basic %%%"},
        {"Authorization": "Bearer x"},
    ):
        status, said, body = await asyncio.to_thread(ask, address, "/v1/cameras", **headers)
        assert (status, "Basic" in said["WWW-Authenticate"], b"Gate" in body) == (
            401,
            True,
            False,
        )
    assert (await asyncio.to_thread(ask, address, "/healthz"))[0] == 200
    right = {"Authorization": login("pass wörd")}
    assert (await asyncio.to_thread(ask, address, "/v1/cameras", **right))[0] == 200
    snapshot = "/v1/cameras/cam/snapshot"
    assert (await asyncio.to_thread(ask, address, snapshot, "POST", **right))[0] == 403
    action = right | {"X-Camserver-Action": "snapshot"}
    assert (
        await asyncio.to_thread(
            ask, address, snapshot, "POST", **action, Origin="http://evil.example"
        )
    )[0] == 403
    status, _, body = await asyncio.to_thread(
        ask, address, snapshot, "POST", **action, Origin=f"http://{address}"
    )
    assert (status, json.loads(body)["result"]) == (200, "ok")
    assert "pass w" not in desk.log.read_text()


async def test_a_thousand_listeners_and_slow_ones_do_no_harm(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """They all hear of the next picture; polling goes on; who reads nothing costs nothing."""
    address = f"127.0.0.1:{free_port()}"
    desk = await daemon(fleet()[:1], http=address, interval="200ms")
    host, port = address.split(":")
    connections = []
    for _ in range(1000):
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        connections.append((reader, writer))
    heard = connections[:900]  # a hundred never read
    await asyncio.gather(*(reader.readuntil(b"event: snapshot.published") for reader, _ in heard))
    before = len(list(desk.output.rglob("*Z.jpg")))
    await desk.until(lambda: len(list(desk.output.rglob("*Z.jpg"))) > before + 5)
    for _, writer in connections:
        writer.close()
    with contextlib.suppress(ConnectionError):
        await connections[-1][1].wait_closed()
    assert (await asyncio.to_thread(ask, address, "/healthz"))[0] == 200


async def test_guesses_of_a_password_are_slowed_down_and_logged(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """After ten wrong ones an address waits; another one does not; health needs no login."""
    address = f"127.0.0.1:{free_port()}"
    desk = await daemon(fleet()[:1], http=f'{address}"\npassword = "right-one" #', interval="100s")

    def login(password: str, client: str = "10.0.0.7") -> dict[str, str]:
        secret = base64.b64encode(f"camserver:{password}".encode()).decode()
        return {"Authorization": f"Basic {secret}", "X-Forwarded-For": f"1.2.3.4, {client}"}

    async def status(headers: dict[str, str], path: str = "/v1/cameras") -> int:
        found: int = (await asyncio.to_thread(ask, address, path, **headers))[0]
        return found

    answers = [await status(login(f"try {n} zebra")) for n in range(30)]
    assert answers[:10] == [401] * 10
    assert answers.count(429) >= 15  # a slow machine gives another try every six seconds
    _, headers, _ = await asyncio.to_thread(ask, address, "/", **login("right-one"))
    assert int(headers["Retry-After"]) >= 1
    assert await status(login("right-one", "10.0.0.8")) == 200
    assert await status({}, "/healthz") == 200
    assert await status({}) == 401
    log = desk.log.read_text()
    assert "1 wrong login(s) for the wall from 10.0.0.7" in log
    assert "zebra" not in log
