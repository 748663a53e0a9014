"""Threads for calls that may block for ever, for example on a disk that does not answer.

A thread that hangs can't be cancelled. So these threads are daemon threads: the process can end
without them. The threads of `concurrent.futures` are joined at the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from typing import Any, TypeVar

PR_SET_NAME = 15
T = TypeVar("T")


class DaemonThreads(Executor):
    """`most` threads, which start with the first call.

    All of them start at once, so that the memory of a process does not depend on how many were once
    needed at the same time. There are fewer while the machine has no thread left.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._over = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call `fn` in a thread. Raises RuntimeError after `shutdown`, and without any thread."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whoever awaits the future gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._over:
                raise RuntimeError(f"the threads {self._name!r} take no more work")
            self._start()
            self._work.put(call)
        return future

    def shutdown(
        self,
        wait: bool = True,
        *,
        cancel_futures: bool = False,  # noqa: ARG002 - the parameter of Executor
    ) -> None:
        """Take no more work. `wait`: return when all work is done, which may be never.

        `cancel_futures` is ignored: work that waits is done.
        """
        with self._lock:
            self._over = True
            for _ in self._threads:
                self._work.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _start(self) -> None:
        """Start the threads that are missing. Raises RuntimeError when there is none."""
        while len(self._threads) < self._most:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the machine has no thread left
                if not self._threads:
                    raise
                return
            self._threads.append(thread)

    def _run(self) -> None:
        with contextlib.suppress(Exception):  # the name is for top(1): work goes on without it
            ctypes.CDLL(None).prctl(PR_SET_NAME, self._name.encode()[:15], 0, 0, 0)
        while (call := self._work.get()) is not None:
            call()
            del call  # a picture must not stay in memory while the thread waits


async def call_within(limit_s: float | None, work: Callable[[], T], name: str) -> T:
    """Call `work` in a thread of its own, and return its result.

    Raises TimeoutError after `limit_s` seconds (None: no limit). The thread then stays until `work`
    returns. It raises what `work` raises.
    """
    threads = DaemonThreads(1, name)
    future = asyncio.wrap_future(threads.submit(work))
    threads.shutdown(wait=False)
    done, _ = await asyncio.wait({future}, timeout=limit_s)
    if not done:
        future.add_done_callback(_retrieve)
        raise TimeoutError(f"{name}: no answer within {limit_s:g} s")
    return future.result()


def call_and_say(work: Callable[[], T], say: Callable[[], None], say_s: float, limit_s: float) -> T:
    """Call `work` in a thread of its own and return its result. For use without an event loop.

    `say` is called after `say_s` seconds without a result. Raises TimeoutError after `limit_s`
    seconds. The thread then stays until `work` returns. It raises what `work` raises.
    """
    threads = DaemonThreads(1, "slow call")
    future = threads.submit(work)
    threads.shutdown(wait=False)
    if not wait({future}, say_s).done:
        say()
    if not wait({future}, limit_s - say_s).done:
        raise TimeoutError(f"no answer within {limit_s:g} s")
    return future.result()


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Mark a late result as retrieved, so that asyncio does not report it."""
    if not future.cancelled():
        future.exception()
