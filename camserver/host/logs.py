"""Logging with structlog, to the systemd journal or to a console.

This is the only module that uses structlog and systemd.journal.

Under systemd each line goes to the journal with structured fields (EVENT=, CAMERA=, DEVICE=, ...).
A hung journald blocks its writers after about a dozen messages. So the event loop only puts lines
into a queue, and a thread writes them.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import sys
from collections.abc import Callable
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from camserver.events import Event, Listener, as_data
from camserver.host.redact import Redactor

QUEUE_LINES = 10_000
"""The most lines that wait for a slow journal. When the queue is full, new lines are dropped: the
daemon never waits.
"""


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """A queue handler that drops lines when the queue is full, and removes secrets from them.

    It also covers the lines of libraries. They may contain secrets, also in tracebacks.
    """

    def __init__(self, lines: queue.Queue[logging.LogRecord], redactor: Redactor) -> None:
        super().__init__(lines)
        self._redactor = redactor

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.msg, record.args = self._redactor.scrub(record.getMessage()), None
        kind = record.exc_info[0] if record.exc_info else None
        if kind is not None and kind.__module__.startswith("aiohttp.http"):
            # A client sent no valid HTTP. The traceback would show what it sent, also a login
            record.msg, record.exc_info = f"a client sent no valid HTTP ({kind.__name__})", None
        if record.exc_info:
            record.exc_text = self._redactor.scrub(
                logging.Formatter().formatException(record.exc_info)
            )
            record.exc_info = None
        return record  # the thread is in this process, so nothing must be pickled


def under_journal() -> bool:
    """Whether stderr is the journal (sd_journal_print(3), JOURNAL_STREAM)."""
    try:
        device, inode = os.environ.get("JOURNAL_STREAM", "").split(":")
        stat = os.fstat(sys.stderr.fileno())
    except (ValueError, OSError):
        return False
    return (stat.st_dev, stat.st_ino) == (int(device), int(inode))


def set_up(
    redactor: Redactor,
    *,
    level: str = "info",
    journal: bool | None = None,
    stream: TextIO = sys.stderr,
) -> Callable[[], None]:
    """Send all logging of the process to the journal or to `stream`.

    Returns a function that flushes and stops the logging.
    """
    journal = under_journal() if journal is None else journal
    lines: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_LINES)
    target: logging.Handler = _journal_handler() if journal else logging.StreamHandler(stream)
    listener = logging.handlers.QueueListener(lines, target)
    root = logging.getLogger()
    root.handlers = [_DroppingQueueHandler(lines, redactor)]
    root.setLevel(logging.WARNING)  # the info lines of libraries do not help an operator
    set_level(level)

    def scrub(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {
            key: _scrubbed(redactor, key, value) if isinstance(value, str) else value
            for key, value in event.items()
        }

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.format_exc_info,
        scrub,
    ]
    render: Processor = (
        _to_journal
        if journal
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            *([] if journal else [structlog.processors.TimeStamper(fmt="%H:%M:%S")]),
            render,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    listener.start()
    return listener.stop


def _scrubbed(redactor: Redactor, key: str, value: str) -> str:
    """A value of a line. Only a traceback may have several lines, and be long."""
    return redactor.scrub(value) if key == "exception" else redactor.line(value)


def set_level(level: str) -> None:
    """Write only lines from this level on: debug, info, warning, error."""
    logging.getLogger("camserver").setLevel(level.upper())


def _journal_handler() -> logging.Handler:
    from systemd.journal import JournalHandler  # noqa: PLC0415 - Linux only, and only under systemd

    handler: logging.Handler = JournalHandler(SYSLOG_IDENTIFIER="camserver")
    return handler


def _to_journal(
    _: WrappedLogger, __: str, event: EventDict
) -> tuple[tuple[str], dict[str, object]]:
    message = str(event.pop("event"))
    event.pop("level", None)
    data = {key.upper(): str(value) for key, value in event.items() if value is not None}
    return (message,), {"extra": data}


def event_logger() -> Listener:
    """A listener that writes one log line for each domain event, with its fields as keys."""
    log = structlog.get_logger("camserver")

    def write(event: Event) -> None:
        data = as_data(event)
        level = data.pop("level")
        getattr(log, level)(event.text, EVENT=data.pop("event"), **data)

    return write
