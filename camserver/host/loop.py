"""The event loop of camserver.

It reaps child processes through pidfds. A hung name server delays no other work.

asyncio looks up names in its default executor. Publishing needs that executor, too, and a cancelled
look-up keeps its thread there. So this loop uses a separate thread for each look-up, and stopping
does not wait for it. Concurrent look-ups of the same name share one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
MAX_LOOKUPS = 256
"""The most look-ups at once. More are refused, because the threads of hung look-ups never end."""


class Loop(asyncio.SelectorEventLoop):
    """asyncio's selector loop, with name look-ups that can be abandoned."""

    def __init__(self) -> None:
        super().__init__()
        self._lookups: dict[tuple[Any, ...], asyncio.Future[Any]] = {}

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - socket.getaddrinfo's name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Look up a name, as socket.getaddrinfo does. Raises socket.gaierror."""
        question = (host, port, family, type, proto, flags)
        answer = self._lookups.get(question)
        if answer is None:
            if len(self._lookups) >= MAX_LOOKUPS:
                raise socket.gaierror(socket.EAI_AGAIN, f"{MAX_LOOKUPS} other look-ups hang")
            answer = self._lookups[question] = self.create_future()
            try:
                threading.Thread(
                    target=self._look_up,
                    args=(question, answer),
                    name=f"look-up {host}",
                    daemon=True,
                ).start()
            except RuntimeError:
                del self._lookups[question]
                raise socket.gaierror(socket.EAI_AGAIN, "no thread for the look-up") from None
        return await asyncio.shield(answer)

    def _look_up(self, question: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        """Look up the name (runs in a thread)."""
        try:
            value, error = socket.getaddrinfo(*question), None
        except (OSError, ValueError) as failure:  # ValueError: it is not a valid name
            value, error = (
                [],
                failure
                if isinstance(failure, OSError)
                else socket.gaierror(socket.EAI_NONAME, "no host name"),
            )
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no task waits any more
            self.call_soon_threadsafe(self._answer, question, answer, value, error)

    def _answer(
        self,
        question: tuple[Any, ...],
        answer: asyncio.Future[Any],
        value: Any,
        error: OSError | None,
    ) -> None:
        del self._lookups[question]
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)
            answer.exception()  # marks it as retrieved: the caller may have been cancelled


def run_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work` in a Loop.

    SIGTERM cancels `work`, as SIGINT does, unless `work` handles SIGTERM itself.
    """

    async def inside() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - this code runs in a task
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        if sys.version_info < (3, 12):  # before 3.12 asyncio waits for each child in a thread
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(asyncio.get_running_loop())
            asyncio.set_child_watcher(watcher)
        return await work()

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(inside())
