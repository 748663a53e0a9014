"""Tasks with an owner: one beside a block, one awaited to its end, one shared by all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """Await `work` to its end however often we are cancelled, then pass the cancellation on.

    `on_cancel` may hurry it.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
            on_cancel()
    if cancelled:
        task.exception()  # fetched, so that it is not reported as lost
        raise asyncio.CancelledError
    return task.result()


class SingleFlight(Generic[K, T]):
    """Work that callers of one key at the same time share.

    It goes on when one of them is cancelled: the others wait for it.
    """

    def __init__(self) -> None:
        self._flights: dict[K, asyncio.Task[T]] = {}

    async def do(self, key: K, work: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
        """What `work` returns or raises; it is begun if nobody has begun it for this key."""
        task = self._flights.get(key)
        if task is None:
            task = self._flights[key] = asyncio.create_task(work(), name=name)
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    async def cancel(self) -> None:
        """End all work that is under way, and wait until it has ended."""
        tasks = list(self._flights.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _landed(self, key: K, task: asyncio.Task[T]) -> None:
        del self._flights[key]
        if not task.cancelled():
            task.exception()  # fetched: nobody may wait any more


@asynccontextmanager
async def child_task(work: Coroutine[Any, Any, T], name: str) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` in a task beside the block, which awaits it.

    When the block fails or is cancelled, the task is cancelled and awaited to its end. Unlike in a
    TaskGroup, the task's own failure waits for the block to fetch it: a picture that cannot be
    decoded must not hurry the end of its session.
    """
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    except BaseException:
        task.cancel()
        await finish(_ended(task))
        raise


async def _ended(task: asyncio.Task[Any]) -> None:
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # fetched; what stopped the block is told instead
