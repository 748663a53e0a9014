"""Values of a session: its cache for the next session, its keyframe, and its exceptions."""

from __future__ import annotations

from dataclasses import dataclass

from camserver.errors import CameraError
from camserver.rtsp.access_unit import AccessUnit, Proof
from camserver.rtsp.auth import Challenge
from camserver.rtsp.sdp import Track


@dataclass(slots=True)
class SessionCache:
    """What one session leaves for the next session of the same stream.

    It saves round trips. Its facts may be out of date. Its values are never changed
    in place, so `copy.copy` is enough.
    """

    track: Track | None = None
    track_url: str = ""
    other_tracks: tuple[str, ...] = ()
    """Control URLs of the other tracks."""
    other_types: frozenset[int] = frozenset()
    """Payload types of the other tracks."""
    base: str = ""
    transport: str = "tcp"
    proof: Proof | None = None
    keep_alive: str = "GET_PARAMETER"
    options_first: bool = False
    """The camera accepts no DESCRIBE before an OPTIONS."""
    all_tracks: bool = False
    """The camera plays nothing unless all its tracks are set up."""
    warm_refusals: int = 0
    """The number of warm sessions in a row that failed."""
    warm_worked: bool = False
    """A warm session has given a picture."""

    @property
    def may_be_warm(self) -> bool:
        """Whether the next session is tried without DESCRIBE.

        It is not tried after one failure if it has never worked, else after two in a row.
        """
        return self.track is not None and self.warm_refusals < (2 if self.warm_worked else 1)


class UnsupportedStreamError(CameraError):
    """Raised when this client does not support the stream. Another engine may support it."""


class RedirectError(Exception):
    """Raised when the camera redirects. `url` is the target."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__("redirected")


class Reconnect(Exception):  # noqa: N818 - not an error, but an instruction
    """Raised when the session must begin again on a new connection.

    `carried` is the challenge that the new connection answers. Without it, everything that was
    remembered must be forgotten.
    """

    def __init__(self, carried: Challenge | None = None) -> None:
        self.carried = carried
        super().__init__()


@dataclass(slots=True)
class Keyframe:
    """A keyframe, and the time when it was complete (seconds since 1970).

    `camera_clock_offset_s` is the camera's clock for this picture minus that time. It is None if
    the camera did not send its clock.
    """

    picture: AccessUnit
    codec: str
    captured_s: float
    camera_clock_offset_s: float | None
