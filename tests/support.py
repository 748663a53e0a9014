"""Helpers for all tests.

An event loop with a virtual clock, a camera of an inventory, free ports, and waiting for a
condition.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import selectors
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from camserver.config import Camera

T = TypeVar("T")
_FIRST = 20_000 + 750 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 16)
_PORTS = itertools.cycle(random.SystemRandom().sample(range(_FIRST, _FIRST + 750), 750))


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            ready = super().select(10)
            assert ready, "deadlock: nothing is scheduled and nothing happens"
            return ready
        ready = super().select(0)
        if not ready and timeout > 0:
            # asyncio calls a timer up to 1 ns early; then the clock must not stand still
            self._loop.now += max(timeout, 1e-9)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock: when nothing can run, time jumps to the next timer.

    So an hour of policy takes a millisecond.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now


def run_virtual(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work())


def camera(camera_id: str = "cam", **changes: Any) -> Camera:
    keys: dict[str, Any] = {
        "id": camera_id,
        "name": camera_id,
        "url": f"rtsp://127.0.0.1/{camera_id}",
        "sub_url": None,
        "snapshot_url": None,
        "username": "",
        "password": "",
        "device": camera_id,
        "interval_s": 10.0,
        "timeout_s": 10.0,
        "lease_wait_s": 5.0,
        "max_sessions": 1,
        "cooldown_s": 0.25,
        "unclean_cooldown_s": 5.0,
        "transport": "tcp",
        "engine": "auto",
        "width": None,
        "align": False,
        "go2rtc": None,
        "tls_verify": False,
    }
    return Camera(**(keys | changes))


def free_port() -> int:
    """A free port for a server that starts later.

    It is below the ephemeral ports, so the kernel gives it to no other process meanwhile. Each
    process of pytest-xdist has ports of its own, and gives the same one again after all others.
    """
    for port in _PORTS:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
    raise AssertionError("never: the ports are a cycle")


def until(condition: Callable[[], T], limit_s: float = 30.0, what: str = "") -> T:
    """Wait until `condition` is true. The limit only ends a broken run."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what or condition}"
        time.sleep(0.02)
    return value


def children_of(pid: int) -> list[int]:
    """The process ids of the children of `pid`."""
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def processes_of(pid: int, name: str = "") -> list[int]:
    """The process ids of the children of `pid`, of theirs, and so on.

    `name` is in the name that prctl(2) has set.
    """
    found = []
    for child in children_of(pid):
        with contextlib.suppress(OSError):
            if name in Path(f"/proc/{child}/comm").read_text():
                found.append(child)
        found += processes_of(child, name)
    return found
