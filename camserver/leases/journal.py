"""The journal: a file that tells a new daemon about the leases of the previous one.

It is in the runtime directory, so a reboot removes it.

After `kill -9` cameras still count the sessions of the dead daemon, and the command that another
program has wrapped (`camserver lease`) still has its session. So a held lease comes back as a
cool-down. Another program can claim its lease by the generation, even after several restarts of the
daemon. The journal also keeps what devices said about their budget.

Each change appends one line of JSON. With hundreds of sessions, writing the whole file would block
the event loop for milliseconds each time. The lease manager writes each line before it hands the
lease out. It rewrites the file when it has grown. The journal object keeps no sessions itself.
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
"""The journal is rewritten when it has more lines than this plus twice its lines at the start."""
RETRY_S = 1.0
"""How long the journal is not written after a failure (for example a full disk). No state is lost:
the next write is a rewrite with all sessions that still count.
"""


@dataclass(slots=True)
class JournalState:
    """The content of a journal, with moments in seconds since 1970.

    `generation` is the last one that was given. `sessions` is keyed by device and generation.
    `learned` says how many sessions a device gives.
    """

    generation: int = 0
    sessions: dict[tuple[str, int], SessionEntry] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)

    def on(self, devices: Mapping[str, str]) -> JournalState:
        """A copy that uses the current device of each camera (`devices`: camera id -> device).

        The inventory may have changed since. Then a session counts on both devices: the new name
        may mean the same box, or the old box may still count the session.
        """
        sessions = dict(self.sessions)
        for entry in self.sessions.values():
            device = devices.get(entry.camera, entry.device)
            if device != entry.device:
                sessions[entry.device, entry.generation] = replace(entry, external=False)
                sessions.setdefault((device, entry.generation), replace(entry, device=device))
        return replace(self, sessions=sessions)

    def apply(self, line: str) -> None:
        """Apply one line of the journal. Ignore a line that is not valid (a torn last line)."""
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
    """Read the journal of an earlier process. The state is empty when there is no file."""
    state = JournalState()
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            state.apply(line)
    return state


class LeaseJournal:
    """The journal file.

    When the directory can't be written, nothing is remembered, but leases still work.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Open a `shared` file for appending. For any other, `rewrite` creates and opens the file.

        Several processes write a `shared` file, and they do not know each other's sessions. So
        they only append lines. Only the daemon rewrites the file.
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
        """Whether the file should be rewritten: it has grown, or a line was not written."""
        if self.shared:
            return False
        if self._fd < 0:
            return time.monotonic() >= self._retry_at
        return self._lines > 2 * self._kept + SPARE_LINES

    def session(self, entry: SessionEntry, *, claimed: int = 0) -> None:
        """Record that a session was opened or closed.

        `claimed` is its generation in an earlier process, or 0.
        """
        self._append(_line("session", **asdict(entry), claimed=claimed))

    def learned(self, device: str, learned: Learned) -> None:
        """Record that a device gives fewer sessions than the inventory says."""
        self._append(_learned_line(device, learned))

    def rewrite(self, state: JournalState) -> None:
        """Replace the file by a new one with only `state`."""
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
        """Close the file. Later lines are not written until the next `rewrite`."""
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
        if not whole:  # a torn line would make the next line invalid, too
            self.close()


def session_entries(entries: Iterable[SessionEntry]) -> dict[tuple[str, int], SessionEntry]:
    """`entries` by device and generation, as in JournalState.sessions."""
    return {(entry.device, entry.generation): entry for entry in entries}


def _read_session(entry: Mapping[str, object]) -> SessionEntry:
    """Parse a session line. Raises KeyError, TypeError or ValueError when it is not one."""
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
