"""What a new daemon must know of the last one's leases: a file in the runtime directory.

It is gone with a reboot.

After `kill -9` cameras still count the sessions of the dead daemon, and a wrapped command of
another program still has its own. So held leases come back as cool-downs; another program's can be
claimed by its generation, however often the daemon dies before that. What devices said of their
budget is kept, too.

A line of JSON is appended for each change: with hundreds of sessions a whole file would cost the
event loop milliseconds each time. The lease manager writes each line before it hands the lease out,
and the whole file anew when it has grown. The journal itself remembers nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from camserver.leases.ticket import Learned, SessionEntry

SPARE_LINES = 1000
"""Lines before the journal is written anew, beside twice those that it began with."""
RETRY_S = 1.0
"""How long after a failure (a full disk) the journal is not written. Nothing is lost by that: it is
written anew then, with all that matters.
"""


@dataclass(slots=True)
class JournalState:
    """The last generation given, sessions by device and generation, and what devices give.

    Moments are seconds since 1970.
    """

    generation: int = 0
    sessions: dict[tuple[str, int], SessionEntry] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)

    def on(self, devices: Mapping[str, str]) -> JournalState:
        """The same, with the names that the cameras' devices have now.

        The inventory may have been changed since. A session then counts under both names: it may
        be the same box, or another that goes on.
        """
        sessions = dict(self.sessions)
        for entry in self.sessions.values():
            device = devices.get(entry.camera, entry.device)
            if device != entry.device:
                sessions[entry.device, entry.generation] = replace(entry, external=False)
                sessions.setdefault((device, entry.generation), replace(entry, device=device))
        return replace(self, sessions=sessions)

    def apply(self, line: str) -> None:
        """One line of the journal; what makes no sense (a torn last line) is left out."""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            match entry["is"]:
                case "session":
                    session = _read_session(entry)
                    self.sessions[session.device, session.generation] = session
                    self.generation = max(self.generation, session.generation)
                    self.sessions.pop((session.device, int(entry.get("claimed", 0))), None)
                case "learned":
                    self.learned[str(entry["device"])] = Learned(
                        int(entry["cap"]), float(entry["until"])
                    )
                case "generation":
                    self.generation = max(self.generation, int(entry["generation"]))


def load(path: Path) -> JournalState:
    """What an earlier process left; nothing when there is no file."""
    state = JournalState()
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            state.apply(line)
    return state


class LeaseJournal:
    """The file. A directory that can't be written costs the memory, nothing else."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Open nothing yet: `rewrite` begins a file.

        A `shared` one is written by several processes, which do not know each other's sessions:
        lines are appended to what is there, and nobody but the daemon writes it anew.
        """
        self.path = path
        self.shared = shared
        self._fd = -1
        self._lines = self._kept = 0
        self._retry_at = 0.0
        if shared:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            with contextlib.suppress(OSError):
                self._fd = os.open(path, flags, 0o644)

    @property
    def is_due(self) -> bool:
        """Whether the file should be written anew: it has grown, or a line was not written."""
        if self.shared:
            return False
        if self._fd < 0:
            return time.monotonic() >= self._retry_at
        return self._lines > 2 * self._kept + SPARE_LINES

    def session(self, entry: SessionEntry, *, claimed: int = 0) -> None:
        """A session was opened or closed; `claimed` is its generation in an earlier process."""
        self._append(_line("session", **asdict(entry), claimed=claimed))

    def learned(self, device: str, learned: Learned) -> None:
        """A device gives less than the inventory says."""
        self._append(_learned_line(device, learned))

    def rewrite(self, state: JournalState) -> None:
        """The facts that still matter, in a new file."""
        lines = [
            _line("generation", generation=state.generation),
            *(_line("session", **asdict(entry)) for entry in state.sessions.values()),
            *(_learned_line(device, learned) for device, learned in state.learned.items()),
        ]
        self._lines = self._kept = len(lines)
        self.close()
        try:
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(lines))
            temporary.replace(self.path)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            self._retry_at = time.monotonic() + RETRY_S

    def close(self) -> None:
        """Write no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, line: str) -> None:
        self._lines += 1
        if self._fd < 0:
            return
        data = line.encode()
        try:
            whole = os.write(self._fd, data) == len(data)
        except OSError:
            whole = False
        if not whole:  # the next line would be lost with the torn one
            self.close()


def session_entries(entries: Iterable[SessionEntry]) -> dict[tuple[str, int], SessionEntry]:
    """By device and generation, as JournalState has them."""
    return {(entry.device, entry.generation): entry for entry in entries}


def _read_session(entry: Mapping[str, object]) -> SessionEntry:
    """Raises KeyError, TypeError and ValueError for a line that is none."""
    until = entry["cooling_until"]
    return SessionEntry(
        str(entry["device"]),
        int(str(entry["generation"])),
        bool(entry["external"]),
        None if until is None else float(str(until)),
        str(entry.get("camera", "")),
        bool(entry.get("observed")),
    )


def _learned_line(device: str, learned: Learned) -> str:
    return _line("learned", device=device, cap=learned.cap, until=learned.until)


def _line(kind: str, **data: object) -> str:
    return json.dumps({"is": kind, **data}) + "\n"
