"""What libc keeps of freed memory (mallopt(3), malloc_trim(3)), and what Python looks through."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

from camserver.host.clock import Seconds
from camserver.host.threads import call_within

_ARENA_MAX = -8
HEAPS = 2
GIVE_BACK_S = 60.0
OLDEST = 2
"""The generation of a full collection."""
SLOW_S, TIMES = 0.02, 32


def share_heaps() -> None:
    """Let all threads of this process share two heaps. Call it before threads start.

    glibc gives each thread a heap of its own, and each keeps what it once needed for pictures.
    """
    if mallopt := _libc("mallopt"):
        mallopt(_ARENA_MAX, HEAPS)


async def keep_giving_back() -> None:
    """Give free memory back to the kernel each minute, until cancelled.

    Pictures come and go in all sizes, and free pages stay between what is used. Without this the
    memory of a daemon grows for hours.
    """
    trim = _libc("malloc_trim")
    while trim is not None:
        await asyncio.sleep(GIVE_BACK_S)
        await call_within(None, lambda: trim(0), "give memory back")


def settle() -> None:
    """Leave what is there now out of all later collections of garbage.

    Call it once, at the end of a start: most objects live as long as the daemon. Each full
    collection would look at all of them, and the event loop waits meanwhile: 75 ms for 10,000
    cameras.
    """
    gc.collect()
    gc.freeze()


class ShortCollections:
    """A callback of the garbage collector (gc.callbacks) that keeps full collections short.

    After one that took SLOW_S, what is there is left out of all later ones. Most of it stays: what
    is known of cameras that were polled for the first time. It is done TIMES at most, because what
    is only in use at that moment is left out, too: it would stay if it became garbage in a cycle.
    """

    def __init__(self, clock: Seconds = time.thread_time) -> None:
        """`clock`: CPU time. On a busy host a short collection may take long."""
        self._clock = clock
        self._began = 0.0
        self._left = TIMES

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """Follow the phases of a collection: "start" and "stop"."""
        if info["generation"] != OLDEST:
            return
        if phase == "start":
            self._began = self._clock()
        elif self._left and self._clock() - self._began >= SLOW_S:
            self._left -= 1
            gc.freeze()


@contextlib.contextmanager
def collections_paused() -> Iterator[None]:
    """Collect no garbage while many objects are made at once that are used.

    The caller limits the time: what becomes garbage meanwhile waits. So many new objects would make
    Python look at all objects of the process: 0.4 s for 10,000 cameras that have been polled.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _libc(name: str) -> Callable[..., Any] | None:
    """A function of glibc. None: it is another libc, which has one heap for all."""
    return getattr(ctypes.CDLL(None), name, None)
