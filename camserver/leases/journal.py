"""The journal: a file that tells a new daemon about the leases of the previous one.

It is in the runtime directory, so a reboot removes it.

After `kill -9` cameras still count the sessions of the dead daemon, and the command that another
program has wrapped (`camserver lease`) still has its session. So a held lease comes back as a
cool-down. Another program can claim its lease by its secret, even after several restarts of the
daemon. The journal also keeps what devices said about their budget.

Each change appends one line of JSON. With hundreds of sessions, writing the whole file would block
the event loop for milliseconds each time. The lease manager writes each line before it hands the
lease out. It rewrites the file when it has grown. The journal object keeps no sessions itself.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from camserver.events import Event, JournalNotWritten, JournalWritten
from camserver.host.files import open_regular, read_regular
from camserver.leases.http_device import alike, box_of
from camserver.leases.ticket import Learned, SessionEntry

SPARE_LINES = 1000
"""The journal is rewritten when it has more lines than this plus twice its lines at the start."""
LINE_BYTES = 512
"""The space that is allocated for one line."""
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
            device = alike(entry.device, devices.get(entry.camera, box_of(entry.device)))
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
        for line in read_regular(path).replace(b"\0", b"").splitlines():
            state.apply(line.decode(errors="replace"))
    return state


class LeaseJournal:
    """The journal file.

    When it can't be written, leases still work, and an event says that a crash would forget them.
    Space for the next lines is allocated in advance, because a full disk is found at the worst
    moment otherwise. The unused part of the file contains NUL bytes.
    """

    def __init__(
        self, path: Path, emit: Callable[[Event], None] = lambda _: None, *, shared: bool = False
    ) -> None:
        """Open a `shared` file for appending. For any other, `rewrite` creates and opens the file.

        Several processes write a `shared` file, and they do not know each other's sessions. So
        they only append lines. Only the daemon rewrites the file.
        """
        self.path = path
        self.shared = shared
        self.is_written = True
        """Whether the file has all sessions that count."""
        self._emit = emit
        self._fd = -1
        self._end = 0  # where the next line is written
        self._lines = self._kept = 0
        self._retry_at = 0.0
        if shared:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with contextlib.suppress(OSError):
                self._fd = open_regular(path, flags)

    @property
    def is_due(self) -> bool:
        """Whether the file should be rewritten: it has grown, or a line was not written."""
        if self.shared:
            return False
        if not self.is_written or self._fd < 0:
            return time.monotonic() >= self._retry_at
        return self._lines > 2 * self._kept + SPARE_LINES and time.monotonic() >= self._retry_at

    def session(self, entry: SessionEntry, *, claimed: int = 0) -> None:
        """Record that a session was opened or closed.

        `claimed` is its generation in an earlier process, or 0.
        """
        self._append(_line("session", **asdict(entry), claimed=claimed))

    def learned(self, device: str, learned: Learned) -> None:
        """Record that a device gives fewer sessions than the inventory says."""
        self._append(_learned_line(device, learned))

    def rewrite(self, state: JournalState) -> None:
        """Replace the file by a new one with only `state`.

        When this fails, the old file is used further as long as it has space.
        """
        lines = [
            _line("generation", generation=state.generation),
            *(_line("session", **asdict(entry)) for entry in state.sessions.values()),
            *(_learned_line(device, learned) for device, learned in state.learned.items()),
        ]
        data = "".join(lines).encode()
        temporary = self.path.with_suffix(".tmp")
        fd = -1
        try:
            fd = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.posix_fallocate(fd, 0, 2 * len(data) + SPARE_LINES * LINE_BYTES)
            _write_all(fd, data, 0)
            temporary.replace(self.path)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            with contextlib.suppress(OSError):
                temporary.unlink()
            self._retry_at = time.monotonic() + RETRY_S
            if not self.is_written or self._fd < 0:
                self._say_failed(error)
            return
        self._close_fd()
        self._fd, self._end, self._lines, self._kept = fd, len(data), len(lines), len(lines)
        if not self.is_written:
            self.is_written = True
            self._emit(JournalWritten(path=str(self.path)))

    def close(self) -> None:
        """Close the file, without its unused space. Later lines are not written."""
        if self._fd >= 0 and not self.shared:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)
        self._close_fd()

    def _close_fd(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, line: str) -> None:
        self._lines += 1
        if self._fd < 0 or not self.is_written:
            return
        data = line.encode()
        try:
            if self.shared:
                # A process that was killed may have left a torn line: a new one begins here
                os.write(self._fd, b"\n" + data)
            else:
                _write_all(self._fd, data, self._end)
                self._end += len(data)
        except OSError as error:
            self._say_failed(error)

    def _say_failed(self, error: OSError) -> None:
        if self.is_written:
            self.is_written = False
            self._emit(JournalNotWritten(path=str(self.path), reason=error.strerror or str(error)))


def _write_all(fd: int, data: bytes, at: int) -> None:
    """Write `data` at a position. A short write means that the disk is full. Raises OSError."""
    if os.pwrite(fd, data, at) != len(data):
        # A torn line would make the next one invalid, too
        os.ftruncate(fd, at)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def state_of(
    generation: int, entries: Iterable[SessionEntry], learned: Mapping[str, Learned], shift_s: float
) -> JournalState:
    """The state of a table, with its moments moved by `shift_s` seconds to the wall clock."""
    return JournalState(
        generation,
        {(entry.device, entry.generation): entry.shifted(shift_s) for entry in entries},
        {device: cap.shifted(shift_s) for device, cap in learned.items()},
    )


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
        str(entry.get("claim_hash", "")),
        None if entry.get("uid") is None else int(str(entry["uid"])),
    )


def _learned_line(device: str, learned: Learned) -> str:
    return _line("learned", device=device, cap=learned.cap, until=learned.until)


def _line(kind: str, **data: object) -> str:
    return json.dumps({"is": kind, **data}) + "\n"
