"""Tasks with an owner: one that runs beside a block, and one that is awaited to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

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
