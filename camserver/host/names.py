"""Addresses of host names, many at once, within one limit: a dead DNS delays nobody for longer, nor the end of the program."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Iterable

THREADS = 16


async def addresses(hosts: Iterable[str], limit_s: float) -> dict[str, set[str]]:
    """The addresses of each host that is found within `limit_s` seconds, all looked up beside one another.

    The threads are daemons: getaddrinfo(3) can't be interrupted, and nobody waits for those that hang.
    """
    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
    names = set(hosts)
    for name in names:
        wanted.put(name)
    loop, found, done = asyncio.get_running_loop(), dict[str, set[str]](), asyncio.Event()

    def note(name: str, result: set[str]) -> None:
        found[name] = result
        if len(found) == len(names):
            done.set()

    def look_up() -> None:
        while True:
            try:
                name = wanted.get_nowait()
            except queue.Empty:
                return
            result = _addresses(name)
            try:
                loop.call_soon_threadsafe(note, name, result)
            except RuntimeError:        # nobody waits any more
                return

    for _ in range(min(THREADS, len(names))):
        threading.Thread(target=look_up, name="names", daemon=True).start()
    if names:
        try:
            async with asyncio.timeout(limit_s):
                await done.wait()
        except TimeoutError:
            pass
    return dict(found)


def _addresses(name: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):     # UnicodeError: no name that DNS could have
        return set()
