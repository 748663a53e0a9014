"""Free memory goes back to the kernel, each minute."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from itertools import pairwise

import pytest

from camserver.host import memory


class Node:
    """An object that may refer to itself."""

    itself: Node


async def test_memory_is_given_back_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, moments = asyncio.get_running_loop(), list[float]()
    begun = loop.time()
    monkeypatch.setattr(memory, "_libc", lambda _: lambda _: moments.append(loop.time() - begun))
    job = asyncio.create_task(memory.keep_giving_back())
    while len(moments) < 3:
        await asyncio.sleep(1)
    job.cancel()
    await asyncio.wait({job})
    assert all(later - earlier >= 60 for earlier, later in pairwise((0.0, *moments)))


async def test_a_libc_without_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_libc", lambda _: None)
    memory.share_heaps()
    await memory.keep_giving_back()


def test_what_is_there_at_a_start_is_not_looked_through_again() -> None:
    """Garbage is collected before: it would stay for ever."""
    garbage = Node()
    garbage.itself, gone = garbage, weakref.ref(garbage)
    del garbage
    before = gc.get_freeze_count()
    try:
        memory.settle()
        assert gone() is None
        assert gc.get_freeze_count() > before + 1000
    finally:
        gc.unfreeze()


def test_glibc_has_both() -> None:
    memory.share_heaps()
    trim = memory._libc("malloc_trim")
    assert trim is not None
    assert trim(0) in (0, 1)


def test_what_a_slow_collection_has_looked_through_is_left_out_then() -> None:
    now = [0.0]
    short = memory.ShortCollections(lambda: now[0])

    def frozen_by(took_s: float, generation: int = memory.OLDEST) -> bool:
        gc.unfreeze()
        short("start", {"generation": generation})
        now[0] += took_s
        short("stop", {"generation": generation})
        return gc.get_freeze_count() > 1000

    try:
        assert not frozen_by(memory.SLOW_S / 2)
        assert not frozen_by(1.0, generation=1)
        assert [frozen_by(1.0) for _ in range(memory.TIMES + 1)] == [*[True] * memory.TIMES, False]
    finally:
        gc.unfreeze()


def test_collections_are_paused_also_when_an_inventory_is_refused() -> None:
    with contextlib.suppress(ValueError), memory.collections_paused():
        assert not gc.isenabled()
        raise ValueError("refused")
    assert gc.isenabled()
