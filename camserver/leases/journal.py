"""What a new daemon must know of the last one's leases.

A journal in the runtime directory, gone with a reboot.

After `kill -9` cameras still count the sessions of the dead daemon, and a wrapped command of
another program still has its own. So held leases come back as cool-downs; another program's can be
claimed by its generation, however often the daemon dies before that. What devices said of their
budget is kept, too.

A line of JSON is appended for each event, before anything else happens: with hundreds of sessions a
whole file would cost the event loop milliseconds each time. It is written anew when it has grown.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from camserver.events import CapLearned, Event, LeaseAcquired, LeaseReleased, Notice

CLAIM_S = 10.0
"""How long another program may take to claim its lease from the next process."""
SPARE_LINES = 1000
"""Lines before the journal is written anew, beside twice those that it began with."""


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """One session; times in seconds since 1970.

    `cooling_until`: closed; else it was held when it was written down.
    """

    device: str
    generation: int
    external: bool
    cooling_until: float | None = None
    camera: str = ""
    observed: bool = False
    """Nobody asked for it: another program opened it, and nobody will claim it."""
    opened_on: str = ""
    """The device where it was opened, when its camera has another one by now.

    It counts there as well.
    """

    @property
    def claimable(self) -> bool:
        """Whether another program may still have it."""
        return self.external and self.cooling_until is None


@dataclass(slots=True)
class State:
    """The last generation given, sessions by theirs, and what devices give at most: (cap, until.

    Seconds since 1970).
    """

    generation: int = 0
    sessions: dict[int, SessionEntry] = field(default_factory=dict)
    learned: dict[str, tuple[int, float]] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)
    """Those that were registered in go2rtc, and the URL that was written.

    Only they may be changed there.
    """

    def on(self, devices: Mapping[str, str]) -> State:
        """The same, with the names that the cameras' devices have now.

        The inventory may have been changed since.
        """
        sessions = {
            g: replace(s, device=devices[s.camera], opened_on=s.device)
            if devices.get(s.camera, s.device) != s.device
            else s
            for g, s in self.sessions.items()
        }
        return replace(self, sessions=sessions)

    def apply(self, line: str) -> None:
        """One line of the journal; what makes no sense (a torn last line) is left out."""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = dict(json.loads(line))
            match entry.pop("is"):
                case "session":
                    session = SessionEntry(
                        str(entry["device"]),
                        int(entry["generation"]),
                        bool(entry["external"]),
                        None if entry["cooling_until"] is None else float(entry["cooling_until"]),
                        str(entry.get("camera", "")),
                        bool(entry.get("observed")),
                        str(entry.get("opened_on", "")),
                    )
                    self.sessions[session.generation] = session
                    self.generation = max(self.generation, session.generation)
                    self.sessions.pop(int(entry.get("claimed", 0)), None)
                case "learned":
                    self.learned[str(entry["device"])] = int(entry["cap"]), float(entry["until"])
                case "stream":
                    self.streams.pop(str(entry["name"]), None)
                    if entry["registered"]:
                        self.streams[str(entry["name"])] = str(entry.get("source", ""))
                case "generation":
                    self.generation = max(self.generation, int(entry["generation"]))


def load(path: Path) -> State:
    """What an earlier process left; nothing when there is no file."""
    state = State()
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            state.apply(line)
    return state


class LeaseJournal:
    """A listener that keeps the journal.

    A directory that can't be written costs the memory, nothing else.
    """

    def __init__(
        self,
        path: Path,
        cooldown_s: Callable[[str, str], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._cooldown_s = cooldown_s  # of a device, after an end
        self._clock = clock
        self._state = State()
        self._claim_until: dict[int, float] = {}
        self._fd = -1
        self._lines = self._kept = 0
        self._shared = False

    def take_over(self, state: State, unclean_cooldown_s: Callable[[str], float]) -> None:
        """Go on from what an earlier process left.

        It is kept for as long as it may matter to the next one.
        """
        now = self._clock()
        self._state = State(
            state.generation, learned=dict(state.learned), streams=dict(state.streams)
        )
        for s in state.sessions.values():
            unclean_s = unclean_cooldown_s(s.device)
            if s.claimable:
                self._claim_until[s.generation] = now + max(unclean_s, CLAIM_S)
                self._state.sessions[s.generation] = s
            else:
                until = now + unclean_s if s.cooling_until is None else s.cooling_until
                self._state.sessions[s.generation] = replace(s, cooling_until=until)
        self._rewrite()

    def join(self) -> State:
        """Write beside other processes, which do not know each other's numbers.

        Returns what the journal says.
        """
        state = load(self.path)
        self._state.generation = state.generation = max(
            state.generation, int(self._clock() * 1000) * 1000 + os.getpid() % 1000
        )
        self._shared = True
        with contextlib.suppress(OSError):
            self._fd = os.open(
                self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
        return state

    def close(self) -> None:
        """Write no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __call__(self, event: Event) -> None:
        """A lease was acquired or released, or a budget learned."""
        match event:
            case LeaseAcquired():
                entry = _session(
                    SessionEntry(
                        event.device,
                        event.generation,
                        event.external,
                        None,
                        event.camera,
                        event.observed,
                    ),
                    claimed=event.claimed,
                )
            case LeaseReleased():
                until = self._clock() + self._cooldown_s(event.device, event.end)
                entry = _session(
                    SessionEntry(
                        event.device, event.generation, event.external, until, event.camera
                    )
                )
            case CapLearned():
                entry = _line(
                    "learned", device=event.device, cap=event.cap, until=self._clock() + event.for_s
                )
            case Notice(name="go2rtc.registered" | "go2rtc.removed" | "go2rtc.forgotten"):
                entry = _line(
                    "stream",
                    name=event.data["stream"],
                    source=event.data.get("source", ""),
                    registered=event.name == "go2rtc.registered",
                )
            case _:
                return
        self._state.apply(entry)
        self._lines += 1
        written = self._append(entry.encode())
        if not self._shared and (not written or self._lines > 2 * self._kept + SPARE_LINES):
            self._rewrite()

    def _append(self, line: bytes) -> bool:
        """Whether the journal has the whole line.

        After a full disk it is written anew, as soon as that works.
        """
        try:
            return self._fd >= 0 and os.write(self._fd, line) == len(line)
        except OSError:
            return False

    def _rewrite(self) -> None:
        """The facts that still matter, in a new file."""
        now = self._clock()
        for generation, s in list(self._state.sessions.items()):
            until = (
                s.cooling_until
                if s.cooling_until is not None
                else self._claim_until.get(generation, now + 1)
            )
            if until <= now:
                del self._state.sessions[generation]
                self._claim_until.pop(generation, None)
        self._state.learned = {
            device: (cap, until)
            for device, (cap, until) in self._state.learned.items()
            if until > now
        }
        lines = [
            _line("generation", generation=self._state.generation),
            *map(_session, self._state.sessions.values()),
        ]
        lines += [
            _line("learned", device=d, cap=cap, until=until)
            for d, (cap, until) in self._state.learned.items()
        ]
        lines += [
            _line("stream", name=name, source=source, registered=True)
            for name, source in sorted(self._state.streams.items())
        ]
        self._lines = self._kept = len(lines)
        self.close()
        with contextlib.suppress(OSError):
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(lines))
            temporary.replace(self.path)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def _session(session: SessionEntry, **more: object) -> str:
    return _line("session", **asdict(session), **more)


def _line(kind: str, **data: object) -> str:
    return json.dumps({"is": kind, **data}) + "\n"
