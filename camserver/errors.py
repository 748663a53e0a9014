"""All errors that camserver raises on purpose, with the party that must act.

    CamserverError
    ├── InventoryError       operator: the inventory is refused; the error lists all faults
    │   └── InventoryUnreadable  the file does not exist, or this user may not read it
    │       └── InventoryTimeout   its disk does not answer
    ├── RtspError            caller: a lease was not given, or was used wrongly
    │   ├── RtspBusy         no session of the device came free within lease_wait
    │   └── LeaseStateError  a lease or ticket was used in a state that does not allow it
    ├── CameraError          camera: one attempt at one camera failed; `result` says how
    │   └── UnsupportedStreamError (rtsp/session_cache)  our own client can't read the stream
    ├── DaemonUnavailableError (client/exchange)    operator: no daemon answers on the socket
    ├── ApiRefusal (client/exchange)                caller: the daemon refuses, and says why
    ├── LeaseLost (cli/doctor_leases)               caller: a lease ended before its session did
    ├── ApiUnavailable (api/unix_server)            operator: can't listen on the unix socket
    │   └── AlreadyServed                           another process answers there
    ├── WebUnavailable (api/web_server)             operator: can't listen on the address
    ├── IndexUnavailable (archive/index)            operator: the archive's index can't answer now
    ├── ThumbnailsBusy (api/thumbnails)             caller: too many pictures are made smaller
    └── Go2rtcDown (go2rtc/api)                     operator: go2rtc gives no valid answer

Not in the tree, because they control the flow and are not reported: RedirectError, Reconnect
(rtsp/session_cache), ConnectionClosed (rtsp/aio/connection), Preempted (leases/lease),
HttpAnswerError, RtspProtocolError (rtsp/messages: the bytes are not RTSP), WrongUsage (cli/doctor).
A bug of camserver: SessionStateError (rtsp/session).

Messages are sentences for a person: camera, step, limit, elapsed time. No message contains a
password.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from camserver.model import Result, SessionEnd, Step


class CamserverError(Exception):
    """Base of all errors raised on purpose."""


class InventoryError(CamserverError):
    """Raised when an inventory is refused. `faults` lists all faults, not only the first.

    `sources` are the files that were read (config.sources.InventorySources), or None.
    """

    def __init__(self, faults: tuple[str, ...], sources: Any = None) -> None:
        self.faults = faults
        self.sources = sources
        super().__init__("\n".join(faults))


class InventoryUnreadable(InventoryError):  # noqa: N818 - the name describes the state
    """Raised when the inventory file itself cannot be read. Its only fault says why."""


class InventoryTimeout(InventoryUnreadable):
    """Raised when the disk of the inventory does not answer."""


class RtspError(CamserverError):
    """Base of all errors that the lease manager raises."""


@dataclass(frozen=True, slots=True)
class SessionHolder:
    """A holder of a session of a device.

    `kind` is the kind of holder, `name` is its name for a person, `for_s` is how long it has held
    the session, in seconds.
    """

    kind: str
    name: str
    for_s: float


class RtspBusy(RtspError):  # noqa: N818 - the name describes the state
    """Raised when no session of the device came free within the wait.

    `reason` is the message without the camera. `holders` had the device's sessions at that moment,
    and `waiting` requests were in the queue. They are empty and 0 when this is not known.
    """

    def __init__(
        self,
        reason: str,
        *,
        camera: str = "",
        holders: tuple[SessionHolder, ...] = (),
        waiting: int = 0,
        max_sessions: int = 0,
    ) -> None:
        self.reason = reason
        self.holders = holders
        self.waiting = waiting
        self.max_sessions = max_sessions
        super().__init__(f"{camera}: {reason}" if camera else reason)


class NotOwnerError(CamserverError):
    """Raised in a fleet when this host cannot give leases of a device: it does not own it now."""


class NotPolledError(CamserverError):
    """Raised when a picture is wanted of a camera that this process does not poll, or not any more.

    The message says so.
    """


class LeaseStateError(RtspError):
    """Raised when a ticket's state does not allow an event, or when a device is not known.

    The message names the state and the event, or the device.
    """


class CameraError(CamserverError):
    """Raised when an attempt at a camera failed.

    `result` is the word for latest.json. `end` says how the session ended, as far as the transport
    shows it. `status` is the camera's status code when it refused a request. `step` is what the
    client waited for. `login_refused`: a login was sent and refused. `packets_lost`: RTP packets
    were lost on the way, so another client would not get a better picture.
    """

    def __init__(
        self,
        result: Result,
        message: str,
        end: SessionEnd = SessionEnd.UNCLEAN,
        *,
        status: int | None = None,
        step: Step | None = None,
        login_refused: bool = False,
        packets_lost: bool = False,
    ) -> None:
        self.result = result
        self.end = end
        self.status = status
        self.step = step
        self.login_refused = login_refused
        self.packets_lost = packets_lost
        super().__init__(message)
