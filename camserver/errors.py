"""Every error camserver raises on purpose, drawn by who must act.

    CamserverError
    ├── InventoryError       operator: the inventory is refused, with every fault at once
    │   └── InventoryUnreadable  the file is not there, or not for this user
    ├── RtspError            caller: a lease was not given, or was used wrongly
    │   ├── RtspBusy         no session of the device came free within lease_wait
    │   └── LeaseStateError  a lease or ticket was used in a state that does not allow it
    ├── CameraError          camera: one attempt at one camera failed; `result` says how
    │   └── UnsupportedStreamError (rtsp/session_cache)  not for our own client
    ├── StorageError         operator: the output directory did not take a picture
    ├── DaemonUnavailableError (client/exchange)    operator: nobody answers on the socket
    ├── ApiRefusal (client/exchange)                caller: the daemon says no, and why
    ├── LeaseLost (cli/doctor_leases)               caller: a lease ended before its session did
    ├── ApiUnavailable (api/unix_server)            operator: no unix socket to listen on
    │   └── AlreadyServed                           somebody else answers there
    ├── WebUnavailable (api/web_server)             operator: no address to listen on
    └── Go2rtcDown (go2rtc/api)                     operator: go2rtc gives no sensible answer

    Outside of the tree, because they steer and are no errors: RedirectError, Reconnect
    (rtsp/session_cache), ConnectionClosed (rtsp/aio/connection), Preempted (leases/lease),
    HttpAnswerError, RtspProtocolError (rtsp/messages: what came is no RTSP), WrongUsage
    (cli/doctor). A fault of ours: SessionStateError (rtsp/session).

Messages are sentences for a person: camera, step, limit, elapsed. No message ever holds a password.
"""

from __future__ import annotations

from dataclasses import dataclass

from camserver.model import Result, SessionEnd, Step


class CamserverError(Exception):
    """Base of all errors raised on purpose."""


class InventoryError(CamserverError):
    """Raised when an inventory is refused; `faults` lists every fault found, not only the first."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class InventoryUnreadable(InventoryError):  # noqa: N818 - it says what is the case
    """Raised when the inventory's own file cannot be read; its one fault says why."""


class RtspError(CamserverError):
    """Base of everything the lease manager raises."""


@dataclass(frozen=True, slots=True)
class SessionHolder:
    """Who has a session of a device: `name` as a person would say it, `kind` of holder, seconds."""

    kind: str
    name: str
    for_s: float


class RtspBusy(RtspError):  # noqa: N818 - it says what is the case
    """Raised when no session of the device came free within the wait.

    `reason` is the message without the camera. `holders` had the device's sessions then, `waiting`
    others waited, too; empty and 0 when that is not known.
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


class LeaseStateError(RtspError):
    """Raised when a ticket gets an event its state does not allow; the message names both."""


class CameraError(CamserverError):
    """Raised when an attempt at a camera failed.

    `result` is the word for latest.json, `end` says how the session ended as far as the transport
    tells. `status` is the camera's answer when it refused a request, `step` what was waited for.
    `login_refused`: a login was sent and refused. `packets_lost`: RTP packets were lost on the way,
    so no client could do better.
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


class StorageError(CamserverError):
    """Raised when the output directory did not take a picture.

    The message names the path and the reason.
    """
