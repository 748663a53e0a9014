"""How libc keeps memory that was freed (mallopt(3))."""

from __future__ import annotations

import ctypes

_ARENA_MAX = -8
HEAPS = 2


def share_heaps() -> None:
    """Let all threads of this process share two heaps. Call it before threads start.

    glibc gives each thread a heap of its own, and each keeps what it once needed for pictures. So
    the memory of a daemon grew for hours, until every thread had once met a large picture.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has one heap for all
        mallopt(_ARENA_MAX, HEAPS)
