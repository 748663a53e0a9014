"""What libc keeps of freed memory (mallopt(3), malloc_trim(3)), and what Python looks through."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterator
from typing import Any

from camserver.host.threads import call_within

_ARENA_MAX = -8
HEAPS = 2
GIVE_BACK_S = 60.0


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


@contextlib.contextmanager
def collections_paused() -> Iterator[None]:
    """Collect no garbage while many objects are made at once, none of which is garbage.

    So many new objects would make Python look at all objects of the process: 0.4 s for 10,000
    cameras that have been polled.
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
