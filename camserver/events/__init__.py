"""Domain events as frozen values. Logs, metrics and `/v1/events` listen to them.

Event names are stable dotted words. Operators and programs may rely on them. `docs/events.md` lists
them. To add an event, write a class here, a line in that file, and the code that emits it.
"""

from camserver.events.base import (
    Event,
    EventBus,
    Level,
    Listener,
    as_data,
)
from camserver.events.daemon import (
    ApiNotServed,
    ApiSocketDiffers,
    DaemonFault,
    DaemonLocked,
    DaemonReady,
    DaemonStopped,
    DaemonStopping,
    DecoderUnsealed,
    InventoryLoaded,
    InventoryNeedsRestart,
    InventoryRefused,
    InventoryUnwatched,
    InventoryWarning,
    RetentionDeleted,
    StoreCleaned,
    WallNotServed,
)
from camserver.events.polls import (
    CapLearned,
    LeaseAcquired,
    LeaseReleased,
    PollFailed,
    PollSkipped,
    SnapshotPublished,
)
from camserver.events.streams import (
    Go2rtcFallback,
    Go2rtcNotAnswering,
    Go2rtcUp,
    LibavChosen,
    StreamForgotten,
    StreamRegistered,
    StreamRemoved,
)

__all__ = [
    "ApiSocketDiffers",
    "ApiNotServed",
    "CapLearned",
    "DaemonFault",
    "DaemonLocked",
    "DaemonReady",
    "DaemonStopped",
    "DaemonStopping",
    "DecoderUnsealed",
    "Event",
    "EventBus",
    "Go2rtcNotAnswering",
    "Go2rtcFallback",
    "Go2rtcUp",
    "WallNotServed",
    "InventoryLoaded",
    "InventoryNeedsRestart",
    "InventoryRefused",
    "InventoryUnwatched",
    "InventoryWarning",
    "LeaseAcquired",
    "LeaseReleased",
    "Level",
    "LibavChosen",
    "Listener",
    "PollFailed",
    "PollSkipped",
    "RetentionDeleted",
    "SnapshotPublished",
    "StoreCleaned",
    "StreamForgotten",
    "StreamRegistered",
    "StreamRemoved",
    "as_data",
]
