"""The values that all packages share: attempt, coded keyframe, still, snapshot.

This module has no I/O, no clock and no policy. All values are frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Result(StrEnum):
    """How an attempt ended, in the words of latest.json."""

    OK = "ok"
    BUSY = "busy"  # our own budget: no lease within lease_wait
    OVERLOADED = "overloaded"  # this host: no worker came free for what the camera had sent
    FULL = "full"  # the camera says that its sessions are taken
    AUTH = "auth"
    NOT_FOUND = "not-found"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    NO_KEYFRAME = "no-keyframe"
    BAD_PICTURE = "bad-picture"
    CRASHED = "crashed"
    STORAGE = "storage"
    ERROR = "error"


class SessionEnd(StrEnum):
    """How a session ended, known when its transport is closed. It decides the cool-down."""

    NONE = "none"  # no session was ever opened on the device
    CLEAN = "clean"  # TEARDOWN was sent, then the transport was closed
    UNCLEAN = "unclean"  # the transport is closed, but the device may still count the session


class Step(StrEnum):
    """The step a client waits for: the connection, the answer to a request, or a keyframe."""

    CONNECTING = "connecting"
    OPTIONS = "OPTIONS"
    DESCRIBE = "DESCRIBE"
    SETUP = "SETUP"
    PLAY = "PLAY"
    GET_PARAMETER = "GET_PARAMETER"
    TEARDOWN = "TEARDOWN"
    KEYFRAME = "a keyframe"


class Source(StrEnum):
    """The source of a picture."""

    GO2RTC = "go2rtc"
    RTSP = "rtsp"
    RTSP_SUB = "rtsp-sub"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class Phases:
    """How long each phase of one picture took, in seconds.

    A phase is None when the source does not have it or does not know its time.

    `open`: from connecting to the answer of PLAY. `keyframe`: from there to the complete keyframe.
    `cpu`: the CPU time of the decoder worker.
    """

    lease_wait: float = 0.0
    open: float | None = None
    keyframe: float | None = None
    decode: float | None = None
    encode: float | None = None
    store: float | None = None
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class CodedKeyframe:
    """One coded picture as it came from the camera.

    `data` is Annex B for h264 and hevc, and a JFIF file for mjpeg. `extradata` contains the
    parameter sets that the stream gave outside of `data` (may be empty). `captured_at` is the
    moment when the last byte arrived (UTC). `engine` is the engine that spoke RTSP.
    """

    codec: str
    data: bytes
    extradata: bytes
    captured_at: datetime
    engine: str
    camera_clock_offset_s: float | None = None
    open_s: float | None = None
    keyframe_s: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture looks like, as it was measured in the decoder (capture/look.py).

    `brightness` is the mean luma and `contrast` its deviation, from 0 to 1. `sharpness` is how
    abrupt edges are, from 0 to about 1. `colour` is 0 for a grey picture, and None when it is not
    known. Few cells are darker than `shadows` or brighter than `highlights`, which are lumas from 0
    to 1. `change` is the share of the picture that has changed since the one before. `motion` is
    the mean change of its calmer half, in levels of 255. Both are None for the first picture.
    `cells` is the picture in small. `hash` differs in few of its 64 bits for pictures that look
    alike. `digest` is of the coded picture. Both are hexadecimal. `likeness` is to each of the
    scenes that it was compared with, from -1 to 1 for the same scene.
    """

    brightness: float
    contrast: float
    sharpness: float
    shadows: float
    highlights: float
    colour: float | None
    change: float | None
    motion: float | None
    cells: bytes
    hash: str
    digest: str
    likeness: tuple[float, ...] = ()


CELLS_BYTES = 48 * 27 * 2
"""The size of a Look's cells: two bytes for each, in rows of 48."""


@dataclass(frozen=True, slots=True)
class References:
    """What a picture is compared with, all as cells: the picture before, and known scenes.

    `previous` is empty when there is none.
    """

    previous: bytes = b""
    scenes: tuple[bytes, ...] = ()


class Suspicion(StrEnum):
    """What may be wrong with pictures that come. The first one that holds is shown."""

    BLACK = "black"
    WASHED_OUT = "washed-out"
    COVERED = "covered"
    MOVED = "moved"
    FROZEN = "frozen"
    BLURRED = "blurred"
    CLOCK = "clock"


SUSPICION_LABELS = {
    Suspicion.BLACK: "has been black",
    Suspicion.WASHED_OUT: "has been washed out",
    Suspicion.COVERED: "has looked covered",
    Suspicion.MOVED: "has shown another scene",
    Suspicion.FROZEN: "has shown the same picture",
    Suspicion.BLURRED: "has been blurred",
    Suspicion.CLOCK: "has had a wrong clock",
}
"""What a suspicion says of a camera, before "since 09:12"."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the newest pictures of a camera look like, as a whole.

    `suspicions` are in the order of Suspicion, each with the moment since when it holds. None of
    them: the pictures look well, or `is_learning`, because too few have been seen to know more.
    `since` is when this state began.
    """

    since: datetime
    suspicions: tuple[tuple[Suspicion, datetime], ...] = ()
    is_learning: bool = False

    @property
    def state(self) -> str:
        """ok, learning, or the first suspicion."""
        if self.suspicions:
            return self.suspicions[0][0].value
        return "learning" if self.is_learning else "ok"

    @property
    def label(self) -> str:
        """What is said of the camera, before "since 09:12". Empty: nothing is suspected."""
        return SUSPICION_LABELS[self.suspicions[0][0]] if self.suspicions else ""


@dataclass(frozen=True, slots=True)
class Still:
    """A complete JPEG and its facts. Sizes are in pixels, times in seconds."""

    jpeg: bytes
    width: int
    height: int
    codec: str
    decode_s: float | None = None
    encode_s: float | None = None
    cpu_s: float | None = None
    look: Look | None = None
    """None: it was not measured."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A still and the facts published with it. Times are in milliseconds, moments in UTC."""

    camera: str
    name: str
    still: Still
    source: Source
    engine: str | None
    captured_at: datetime
    capture_ms: float
    lease_wait_ms: float
    camera_clock_offset_s: float | None
    phases: Phases = Phases()
    health: Health | None = None
    """None: the camera's pictures are not judged."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt. `error` is a sentence for a person, None when `result` is ok.

    `label` says the same in few words, for tables and the wall. It is empty when the sentence is
    short enough.
    """

    camera: str
    at: datetime
    result: Result
    error: str | None
    snapshot: Snapshot | None = None
    label: str = ""

    @property
    def ok(self) -> bool:
        """Whether the attempt gave a picture."""
        return self.result is Result.OK
