"""What a new daemon must know of the last one's leases: kept in a file of the runtime directory, gone with a reboot.

After `kill -9` cameras still count the sessions of the dead daemon, and a wrapped command of another program still has its
own. So held leases come back as cool-downs; another program's can be claimed by its generation until then.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from camserver.events import Event, LeaseAcquired, LeaseReleased


@dataclass(frozen=True, slots=True)
class Remembered:
    """One session: held when the file was written, or cooling until a moment (seconds since 1970)."""

    device: str
    generation: int
    external: bool
    cooling_until: float | None = None


def load(path: Path) -> tuple[int, list[Remembered]]:
    """(the last generation given, sessions); nothing when there is no file, or no sense in it."""
    try:
        data = json.loads(path.read_text())
        sessions = [Remembered(str(s["device"]), int(s["generation"]), bool(s["external"]),
                               None if s["cooling_until"] is None else float(s["cooling_until"])) for s in data["sessions"]]
        return max(0, int(data["generation"])), sessions
    except (OSError, ValueError, TypeError, KeyError):
        return 0, []


class StateFile:
    """A listener that keeps the file true. A directory that can't be written costs the memory, nothing else."""

    def __init__(self, path: Path, cooldown_s: Callable[[str, str], float], clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._cooldown_s = cooldown_s       # of a device, after an end
        self._clock = clock
        self._generation = 0
        self._sessions: dict[int, Remembered] = {}

    def take_over(self, generation: int, sessions: list[Remembered], unclean_cooldown_s: Callable[[str], float]) -> None:
        """Keep what an earlier process left for as long as it may matter to the next one."""
        self._generation = generation
        for s in sessions:
            until = s.cooling_until if s.cooling_until is not None else self._clock() + unclean_cooldown_s(s.device)
            self._sessions[s.generation] = Remembered(s.device, s.generation, s.external, until)

    def __call__(self, event: Event) -> None:
        """A lease was acquired or released."""
        if isinstance(event, LeaseAcquired):
            self._generation = max(self._generation, event.generation)
            self._sessions[event.generation] = Remembered(event.device, event.generation, event.external)
        elif isinstance(event, LeaseReleased):
            until = self._clock() + self._cooldown_s(event.device, event.end)
            self._sessions[event.generation] = Remembered(event.device, event.generation, event.external, until)
        else:
            return
        self._write()

    def _write(self) -> None:
        now = self._clock()
        self._sessions = {g: s for g, s in self._sessions.items() if s.cooling_until is None or s.cooling_until > now}
        text = json.dumps({"generation": self._generation, "sessions": [asdict(s) for s in self._sessions.values()]})
        with contextlib.suppress(OSError):
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(text)
            temporary.replace(self.path)
