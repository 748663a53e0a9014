"""Events of the daemon itself: its start and stop, the inventory, its sockets and stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from camserver.events.base import Event, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonReady(Event):
    """Polling begins."""

    EVENT: ClassVar[str] = "daemon.ready"
    TEXT: ClassVar[str] = "{cameras} cameras, pictures go to {output}"
    cameras: int
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStopping(Event):
    """A signal requests the orderly stop."""

    EVENT: ClassVar[str] = "daemon.stopping"
    TEXT: ClassVar[str] = "{signal}: stopping"
    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStopped(Event):
    """The daemon has stopped, and everything is closed."""

    EVENT: ClassVar[str] = "daemon.stopped"
    TEXT: ClassVar[str] = "stopped; no session is left open"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonLocked(Event):
    """Another camserver is running already, so this one ends."""

    EVENT: ClassVar[str] = "daemon.locked"
    LEVEL: ClassVar[Level] = "error"
    TEXT: ClassVar[str] = "{reason}"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFault(Event):
    """A task of the daemon has failed. The daemon ends, and systemd starts it again."""

    EVENT: ClassVar[str] = "daemon.fault"
    LEVEL: ClassVar[Level] = "error"
    TEXT: ClassVar[str] = "{task} failed: {error}"
    task: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummarised(Event):
    """From now on, a summary a minute stands for the lines of pictures and leases."""

    EVENT: ClassVar[str] = "log.summarised"
    TEXT: ClassVar[str] = (
        "more than {a_second:g} lines a second of pictures and leases: from now on a summary a"
        " minute, and a line for each change of state; /v1/events has them all"
    )
    a_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDetailed(Event):
    """Pictures and leases have a line each again."""

    EVENT: ClassVar[str] = "log.detailed"
    TEXT: ClassVar[str] = "few lines: each picture and each lease has one again"


@dataclass(frozen=True, slots=True, kw_only=True)
class PollsSummary(Event):
    """What the polls of a minute came to. `sessions` are open at this moment."""

    EVENT: ClassVar[str] = "polls.summary"
    pictures: int
    failures: int
    failing: int
    freshness_p99_s: float | None
    sessions: int

    @property
    def text(self) -> str:
        """The sentence for a person."""
        age = (
            ""
            if self.freshness_p99_s is None
            else f", 99 % younger than {self.freshness_p99_s:.0f} s"
        )
        return (
            f"{self.pictures} pictures, {self.failures} failures in a minute; {self.failing}"
            f" cameras failing{age}; {self.sessions} sessions open"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryLoaded(Event):
    """An inventory was taken over."""

    EVENT: ClassVar[str] = "inventory.loaded"
    TEXT: ClassVar[str] = "{cameras} cameras"
    cameras: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryRefused(Event):
    """A new inventory has a fault. Nothing of it is taken over."""

    EVENT: ClassVar[str] = "inventory.refused"
    LEVEL: ClassVar[Level] = "error"
    TEXT: ClassVar[str] = "{fault}; the running inventory stays"
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryWarning(Event):
    """The inventory contains something that an operator should know."""

    EVENT: ClassVar[str] = "inventory.warning"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{warning}"
    warning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryNeedsRestart(Event):
    """A key was changed that takes effect only after a restart."""

    EVENT: ClassVar[str] = "inventory.restart"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{key} was changed: it takes effect after a restart"
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryUnwatched(Event):
    """The kernel does not tell of changes of the inventory's files. They are looked at instead."""

    EVENT: ClassVar[str] = "inventory.watch"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "changes are not told ({reason}): the files are read every {every_s:g} s"
    reason: str
    every_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CamerasRemoved(Event):
    """Cameras of the running inventory are not in the new one. Their pictures stay."""

    EVENT: ClassVar[str] = "inventory.removed"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "not in the inventory any more: {cameras}"
    cameras: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSocketDiffers(Event):
    """systemd listens on another socket than the inventory says."""

    EVENT: ClassVar[str] = "api.socket"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = (
        "camserver.socket listens on {inherited}, not on {wanted} of the inventory"
    )
    inherited: str
    wanted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiNotServed(Event):
    """The daemon can't listen on the unix socket."""

    EVENT: ClassVar[str] = "api.unavailable"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{reason}: polling goes on without the API"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WallNotServed(Event):
    """The daemon can't listen on the wall's address."""

    EVENT: ClassVar[str] = "http.unavailable"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{reason}: there is no wall page"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongLogins(Event):
    """An address sends wrong logins to the wall. It is said once a minute for each address."""

    EVENT: ClassVar[str] = "http.login"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{count} wrong login(s) for the wall from {address}"
    address: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLost(Event):
    """The output directory can't be used: it can't be locked, or its disk was unmounted."""

    EVENT: ClassVar[str] = "output.lost"
    LEVEL: ClassVar[Level] = "error"
    TEXT: ClassVar[str] = "{directory} {reason}"
    directory: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputBack(Event):
    """The output directory can be used again."""

    EVENT: ClassVar[str] = "output.back"
    TEXT: ClassVar[str] = "{directory} can be used again"
    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalNotWritten(Event):
    """The lease journal can't be written. After a crash its sessions would not be counted."""

    EVENT: ClassVar[str] = "journal.failed"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = (
        "{path} cannot be written: {reason}; leases work, but would not survive a crash"
    )
    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalWritten(Event):
    """The lease journal can be written again. It has all sessions that count."""

    EVENT: ClassVar[str] = "journal.back"
    TEXT: ClassVar[str] = "{path} is written again"
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskWaited(Event):
    """The daemon waits for a disk, and says for what. It goes on without it after a limit."""

    EVENT: ClassVar[str] = "disk.slow"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "{what}: no answer within {limit_s:g} s; going on without it"
    what: str
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopForced(Event):
    """The orderly stop took longer than stop_timeout. The process ends now."""

    EVENT: ClassVar[str] = "daemon.forced"
    LEVEL: ClassVar[Level] = "error"
    TEXT: ClassVar[str] = "not stopped within {limit_s:g} s: still waiting for {what}; ending now"
    what: str
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCleaned(Event):
    """Temporary files of an earlier run were removed."""

    EVENT: ClassVar[str] = "store.cleaned"
    TEXT: ClassVar[str] = "{files} temporary files of an earlier run removed"
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LibavUnsealed(Event):
    """The kernel can't limit what the workers that run libav's RTSP client may reach."""

    EVENT: ClassVar[str] = "libav.unsealed"
    LEVEL: ClassVar[Level] = "info"
    TEXT: ClassVar[str] = "libav's workers may open files or connections of their own: {reason}"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderUnsealed(Event):
    """The kernel can't seal off the decoder workers."""

    EVENT: ClassVar[str] = "decoder.unsealed"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "decoders are not sealed off from network and files: {reason}"
    reason: str
