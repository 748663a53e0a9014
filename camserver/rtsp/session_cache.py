"""What one session leaves for the next, what it gives, and how it can be no session of ours.

Values only.
"""

from __future__ import annotations

from dataclasses import dataclass

from camserver.errors import CameraError
from camserver.rtsp.access_unit import AccessUnit, Proof
from camserver.rtsp.auth import Challenge
from camserver.rtsp.sdp import Track


@dataclass(slots=True)
class SessionCache:
    """What one session leaves for the next of the same stream.

    Fewer round trips, nothing that must be true.
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
    """The camera takes no DESCRIBE before an OPTIONS."""
    all_tracks: bool = False
    """The camera plays nothing unless all its tracks are set up."""
    warm_refusals: int = 0
    """Sessions in a row that failed because no DESCRIBE came before."""
    warm_worked: bool = False
    """A session without DESCRIBE has given a picture."""

    @property
    def may_be_warm(self) -> bool:
        """Whether the next session is tried without DESCRIBE.

        One failure is enough where it has never worked.
        """
        return self.track is not None and self.warm_refusals < (2 if self.warm_worked else 1)


class UnsupportedStreamError(CameraError):
    """Raised when the stream is one this client doesn't speak; another engine may."""


class RedirectError(Exception):
    """Raised when the camera redirects; `url` is where to."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__("redirected")


class Reconnect(Exception):  # noqa: N818 - not an error: what to do
    """Raised when the session has to begin again on a new connection.

    `carried` is the challenge that the new one answers; without one, all that was remembered is to
    be forgotten.
    """

    def __init__(self, carried: Challenge | None = None) -> None:
        self.carried = carried
        super().__init__()


@dataclass(slots=True)
class Keyframe:
    """A key picture, when it was complete (seconds since 1970), and the camera's clock then.

    The clock is None if the camera did not tell it.
    """

    picture: AccessUnit
    codec: str
    captured_s: float
    camera_clock_offset_s: float | None
