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
    """Changes of the inventory's files are not noticed any more."""

    EVENT: ClassVar[str] = "inventory.watch"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "changes are not watched ({reason}); use systemctl reload"
    reason: str


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
class RetentionDeleted(Event):
    """Old pictures were deleted."""

    EVENT: ClassVar[str] = "retention.deleted"
    TEXT: ClassVar[str] = "{files} pictures ({bytes} bytes) deleted"
    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderUnsealed(Event):
    """The kernel can't seal off the decoder workers."""

    EVENT: ClassVar[str] = "decoder.unsealed"
    LEVEL: ClassVar[Level] = "warning"
    TEXT: ClassVar[str] = "decoders are not sealed off from network and files: {reason}"
    reason: str
