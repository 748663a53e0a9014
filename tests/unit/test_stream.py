"""Who listens to events and does not read; a disk that hangs while its size is asked."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from stored import MOMENT

from camserver.api import listener as door
from camserver.api import sse as stream
from camserver.api.sse import EventStream
from camserver.api.turns import Turns
from camserver.events import DaemonFault
from camserver.host.disk import Disk
from camserver.host.redact import Redactor


@pytest.fixture
def anyio_backend() -> str:
    """Real sockets want real time."""
    return "asyncio"


async def test_a_backlog_goes_out_in_slices_and_what_is_gone_is_said() -> None:
    events = EventStream(lambda: str)
    for n in range(stream.KEPT + 100):
        events(DaemonFault(task=f"{n} " + "long " * 200, error=""))
    chunk, seen = events._since(1, None)
    assert chunk.startswith(b"event: lost")
    numbers: list[int] = []
    while chunk:
        assert len(chunk) < 2 * stream.SLICE_BYTES
        numbers += [int(n) for n in re.findall(rb"^id: (\d+)", chunk, re.MULTILINE)]
        chunk, seen = events._since(seen, None)
    assert numbers == list(range(101, stream.KEPT + 101))
    assert events._since(seen - 50, "another") == (b"", seen)


async def test_an_event_is_scrubbed_with_the_secrets_of_its_moment() -> None:
    """It may be serialised much later, when a reload has replaced the passwords twice."""
    redactor = Redactor(["0ld-secret"])
    events = EventStream(redactor.line_of_now)
    events(DaemonFault(task="poll", error="rtsp://viewer said 0ld-secret"))
    redactor.replace_secrets(["new-secret"])
    events(DaemonFault(task="poll", error="rtsp://viewer said new-secret"))
    chunk, _ = events._since(0, None)
    assert b"secret" not in chunk
    assert chunk.count(b"viewer said ***") == 4  # in the text and in a key of both


async def test_an_event_is_serialised_once_when_somebody_listens() -> None:
    """`at` is the moment when it happened, not the one when it was read."""
    clock, scrubbed = [MOMENT], list[str]()

    def scrub(text: str) -> str:
        scrubbed.append(text)
        return text

    events = EventStream(lambda: scrub, lambda: clock[0])
    events(DaemonFault(task="poll", error="gone"))
    clock[0] += timedelta(hours=1)
    assert not scrubbed
    first, _ = events._since(0, None)
    count = len(scrubbed)
    assert count > 0
    assert events._since(0, None) == (first, 1)
    assert len(scrubbed) == count
    assert b'"at": "2026-01-04T09:30:00.250Z"' in first


async def test_what_another_host_says_cannot_stop_the_stream() -> None:
    events = EventStream(lambda: str)
    for data in ({"event": "poll.failed", "text": "\ud800"}, {"event": "poll.failed"}):
        events.add("b", data)
    for rubbish in ({}, {"event": "a\nb"}, {"event": 7.5 * 10**80}):
        with pytest.raises(ValueError, match="no event"):
            events.add("b", rubbish)
    chunk, seen = events._since(0, None)
    assert chunk.count(b"from_host") == 2
    assert events._since(seen, None) == (b"", 2)
    assert events._since(0, None, only_own=True) == (b"", 2)


async def test_a_listener_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is gone, not only its handler: closing in good order would wait for it."""
    monkeypatch.setattr(stream, "STALL_S", 0.1)
    events = EventStream(lambda: str)
    app = web.Application()
    app.add_routes([web.get("/v1/events", events.answer, allow_head=False)])
    served = door.HttpListener(app, connections=10)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    await served.open(listening)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listening.getsockname())
        client.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        server = served._runner.server
        assert server is not None
        async with asyncio.timeout(30):
            while not server.connections:
                await asyncio.sleep(0.01)
            while server.connections:
                for _ in range(200):
                    events(DaemonFault(task="long " * 200, error=""))
                await asyncio.sleep(0.01)
    await served.close()


async def test_who_takes_pictures_slowly_keeps_none_from_others() -> None:
    turns = Turns(most=3, wait_s=0.01)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(turns.turn("10.0.0.9"))
        with pytest.raises(web.HTTPServiceUnavailable):
            await stack.enter_async_context(turns.turn("10.0.0.9"))
        async with turns.turn(""):  # the unix socket
            assert len(turns) == 2
    assert not len(turns)


async def test_many_who_ask_at_once_have_their_turns() -> None:
    turns, at_once, most = Turns(most=3, wait_s=60), 0, 0

    async def take() -> None:
        nonlocal at_once, most
        async with turns.turn("10.0.0.9"):
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(take())
    assert most == 3
    assert not len(turns)


async def test_a_disk_that_hangs_is_told_from_one_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks meanwhile waits no longer than the limit, and no second thread is begun."""
    disk, hung, asked = Disk(), threading.Event(), 0
    measure = shutil.disk_usage

    def hang(path: Path) -> object:
        nonlocal asked
        asked += 1
        hung.wait()
        return measure(path)

    assert await disk.usage(tmp_path) is not None
    assert await disk.usage(tmp_path / "nowhere") is None
    monkeypatch.setattr(shutil, "disk_usage", hang)
    monkeypatch.setattr("camserver.host.disk.LIMIT_S", 0.05)
    assert await asyncio.gather(*(disk.usage(tmp_path) for _ in range(5))) == [None] * 5
    assert asked == 1
    hung.set()
    async with asyncio.timeout(30):
        while await disk.usage(tmp_path) is None:
            await asyncio.sleep(0)
