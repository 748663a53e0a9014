"""Tasks with an owner: a task beside a block, a task awaited to its end, and a shared task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """Await `work` to its end, even when the caller is cancelled several times.

    Raises CancelledError afterwards if the caller was cancelled. Each cancellation calls
    `on_cancel`, which may make `work` end sooner.
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
        task.exception()  # marks it as retrieved, so asyncio does not report it
        raise asyncio.CancelledError
    return task.result()


class SingleFlight(Generic[K, T]):
    """Work that concurrent callers with the same key share.

    The work continues when one caller is cancelled, because the others wait for it.
    """

    def __init__(self) -> None:
        self._flights: dict[K, asyncio.Task[T]] = {}

    async def do(self, key: K, work: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
        """Return or raise what `work` does. It starts only if no work for this key is running."""
        task = self._flights.get(key)
        if task is None:
            task = self._flights[key] = asyncio.create_task(work(), name=name)
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    async def cancel(self) -> None:
        """Cancel all running work, and wait until it has ended."""
        tasks = list(self._flights.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _landed(self, key: K, task: asyncio.Task[T]) -> None:
        del self._flights[key]
        if not task.cancelled():
            task.exception()  # marks it as retrieved: all callers may have been cancelled


@asynccontextmanager
async def child_task(work: Coroutine[Any, Any, T], name: str) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` in a task beside the block. The block awaits the task.

    When the block fails or is cancelled, the task is cancelled and awaited to its end. Unlike in a
    TaskGroup, a failure of the task does not cancel the block: it is raised when the block awaits
    the task. A picture that cannot be decoded must not interrupt the end of its session.
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
        task.exception()  # marks it as retrieved: the error of the block is raised instead
