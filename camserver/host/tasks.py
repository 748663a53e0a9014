"""Awaiting something to its end although we are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
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
