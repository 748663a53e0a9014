"""The event loop: hung name servers hold nothing but themselves.

SIGTERM ends what has no handler of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from typing import Any

import pytest

from camserver.host import loop
from camserver.host.loop import run_loop


def test_a_hung_look_up_delays_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given up, it keeps no thread that others need.

    Asked again, it is not started twice; the end does not wait for it.
    """
    asked: list[str] = []
    never = threading.Event()

    def hang(host: str, *_: Any) -> list[Any]:
        asked.append(host)
        if host == "hung":
            never.wait(60)
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def work() -> str:
        running = asyncio.get_running_loop()
        for _ in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await running.create_connection(asyncio.Protocol, "hung", 554)
        with pytest.raises(socket.gaierror):
            await running.create_connection(asyncio.Protocol, "other", 554)
        return await asyncio.to_thread(lambda: "publishing goes on")

    assert run_loop(work) == "publishing goes on"
    assert asked == ["hung", "other"]
    never.set()


def test_only_so_many_look_ups_may_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: never.wait(60))
    monkeypatch.setattr(loop, "MAX_LOOKUPS", 2)

    async def work() -> None:
        tasks = [
            asyncio.create_task(asyncio.get_running_loop().getaddrinfo(name, 1))
            for name in ("a", "b", "c")
        ]
        with pytest.raises(socket.gaierror, match="other look-ups hang"):
            await tasks[2]
        never.set()
        await asyncio.gather(*tasks[:2])

    run_loop(work)


def test_sigterm_cancels_what_has_no_handler_of_its_own() -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        run_loop(work)
