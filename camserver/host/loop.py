"""The event loop camserver runs in.

Children are reaped through pidfds, and a hung name server delays nothing else.

asyncio looks up names in its default executor, which publishing needs too, and a cancelled look-up
keeps its thread there. Here every look-up has a thread of its own that nobody waits for, one for
each question at a time.
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
"""More names than this hanging at once are refused: their threads would never end."""


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with look-ups that can be left behind."""

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
        """As socket.getaddrinfo. Raises socket.gaierror."""
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
        """In a thread."""
        try:
            value, error = socket.getaddrinfo(*question), None
        except (OSError, ValueError) as failure:  # ValueError: no name can be written so
            value, error = (
                [],
                failure
                if isinstance(failure, OSError)
                else socket.gaierror(socket.EAI_NONAME, "no host name"),
            )
        with contextlib.suppress(RuntimeError):  # the loop is closed, nobody asks any more
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
            answer.exception()  # seen: whoever asked may have given up


def run_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work` in a Loop.

    SIGTERM cancels it, unless it handles SIGTERM itself, as SIGINT does.
    """

    async def inside() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - we run in one
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        if sys.version_info < (3, 12):  # before, asyncio waits for each child in a thread
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(asyncio.get_running_loop())
            asyncio.set_child_watcher(watcher)
        return await work()

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(inside())
