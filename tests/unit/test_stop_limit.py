"""A stop that hangs ends all the same, and says what it was waiting for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from camserver.event_log import EventLog
from camserver.events import Event, EventBus

STOP = """
import os, sys
from camserver.host.stop_limit import StopLimit

limit = StopLimit(lambda what, limit_s: print(what, limit_s, flush=True))
limit.start(float(sys.argv[2]))
limit.start(99)
limit.waits_for = "workers"
if sys.argv[3] == "hangs":
    os.open(sys.argv[1], os.O_RDONLY)  # a FIFO that nobody writes
limit.cancel()
print("done")
"""


@pytest.mark.parametrize(
    ("limit_s", "what", "said"),
    [("0.2", "hangs", (1, "workers 0.2\n")), ("60", "ends", (0, "done\n"))],
)
def test_a_stop_has_a_limit(limit_s: str, what: str, said: tuple[int, str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = subprocess.run(
        [sys.executable, "-c", STOP, str(tmp_path / "fifo"), limit_s, what],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == said


def test_the_log_says_what_was_waited_for() -> None:
    events: list[Event] = []
    EventLog(EventBus(events.append)).say_stop_forced("pictures on their way to the disk", 1.5)
    assert [event.EVENT for event in events] == ["daemon.forced"]
    assert "pictures on their way to the disk" in str(events[0])
