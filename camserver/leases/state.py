"""What a new daemon must know of the last one's leases: kept in a file of the runtime directory, gone with a reboot.

After `kill -9` cameras still count the sessions of the dead daemon, and a wrapped command of another program still has its
own. So held leases come back as cool-downs; another program's can be claimed by its generation, however often the daemon
dies before that. What devices said of their budget is kept, too.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from camserver.events import CapLearned, Event, LeaseAcquired, LeaseReleased

CLAIM_S = 10.0
"""How long another program may take to claim its lease from the next process."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """One session; times in seconds since 1970. `cooling_until`: closed; else it was held when the file was written."""

    device: str
    generation: int
    external: bool
    cooling_until: float | None = None

    @property
    def claimable(self) -> bool:
        """Whether another program may still have it."""
        return self.external and self.cooling_until is None


@dataclass(frozen=True, slots=True)
class State:
    """The last generation given, sessions, and what devices give at most: (device, cap, until; seconds since 1970)."""

    generation: int = 0
    sessions: tuple[Remembered, ...] = ()
    learned: tuple[tuple[str, int, float], ...] = ()


def load(path: Path) -> State:
    """What an earlier process left; nothing when there is no file, or no sense in it."""
    try:
        data = json.loads(path.read_text())
        sessions = tuple(
            Remembered(str(s["device"]), int(s["generation"]), bool(s["external"]),
                       None if s["cooling_until"] is None else float(s["cooling_until"])) for s in data["sessions"])
        learned = tuple((str(device), int(cap), float(until)) for device, cap, until in data["learned"])
        return State(max(0, int(data["generation"])), sessions, learned)
    except (OSError, ValueError, TypeError, KeyError):
        return State()


class StateFile:
    """A listener that keeps the file true. A directory that can't be written costs the memory, nothing else."""

    def __init__(self, path: Path, cooldown_s: Callable[[str, str], float], clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._cooldown_s = cooldown_s       # of a device, after an end
        self._clock = clock
        self._generation = 0
        self._sessions: dict[int, Remembered] = {}
        self._claim_until: dict[int, float] = {}
        self._learned: dict[str, tuple[int, float]] = {}

    def take_over(self, state: State, unclean_cooldown_s: Callable[[str], float]) -> None:
        """Keep what an earlier process left for as long as it may matter to the next one."""
        now = self._clock()
        self._generation = state.generation
        self._learned = {device: (cap, until) for device, cap, until in state.learned}
        for s in state.sessions:
            unclean_s = unclean_cooldown_s(s.device)
            if s.claimable:
                self._claim_until[s.generation] = now + max(unclean_s, CLAIM_S)
                self._sessions[s.generation] = s
            else:
                until = now + unclean_s if s.cooling_until is None else s.cooling_until
                self._sessions[s.generation] = replace(s, cooling_until=until)

    def __call__(self, event: Event) -> None:
        """A lease was acquired or released, or a budget learned."""
        match event:
            case LeaseAcquired():
                self._generation = max(self._generation, event.generation)
                self._sessions[event.generation] = Remembered(event.device, event.generation, event.external)
            case LeaseReleased():
                until = self._clock() + self._cooldown_s(event.device, event.end)
                self._sessions[event.generation] = Remembered(event.device, event.generation, event.external, until)
            case CapLearned():
                self._learned[event.device] = event.cap, self._clock() + event.for_s
            case _:
                return
        self._write()

    def _write(self) -> None:
        now = self._clock()
        for generation, s in list(self._sessions.items()):
            until = s.cooling_until if s.cooling_until is not None else self._claim_until.get(generation, now + 1)
            if until <= now:
                del self._sessions[generation]
                self._claim_until.pop(generation, None)
        self._learned = {device: (cap, until) for device, (cap, until) in self._learned.items() if until > now}
        text = json.dumps({"generation": self._generation, "sessions": [asdict(s) for s in self._sessions.values()],
                           "learned": [[device, cap, until] for device, (cap, until) in self._learned.items()]})
        with contextlib.suppress(OSError):
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(text)
            temporary.replace(self.path)
