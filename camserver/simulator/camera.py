"""One simulated camera: its settings, faults, sessions and record. No I/O."""

from __future__ import annotations

import random
import secrets
from collections import deque
from dataclasses import dataclass, field

CODECS = ("h264", "h265", "mjpeg")
FULL_VOICES = ("453", "503", "403", "401", "rst", "eof-after-play", "silence")
METHODS = ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "GET_PARAMETER", "TEARDOWN")
FAULTS = {
    "none": "healthy",
    "refuse": "nothing listens",
    "deaf": "accepts, never answers",
    "stall": "stall:METHOD, answers nothing from that request on",
    "silent": "no packet after PLAY",
    "no-keyframe": "a drip of pictures, never a keyframe",
    "cut": "closes in the middle of every keyframe",
    "damage": "keyframes with bytes overwritten",
    "status": "status:CODE or status:CODE:METHOD, refuses that request (DESCRIBE)",
    "loss": "loss:P, drops RTP packets with probability P",
    "reorder": "reorder:P, swaps neighbouring RTP packets with probability P",
    "slow": "slow:BYTES, sends so many bytes in a second",
    "reboot": "reboot:GONE:EVERY, gone for GONE seconds every EVERY seconds",
}
STREAMS = ("stream1", "stream2")
"""Paths of the main stream and of the sub-stream. The sub-stream has half the width and height."""
_NUMBERS = {"loss": 1, "reorder": 1, "slow": 1, "reboot": 2}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault with its arguments, from a text such as "status:503:SETUP".

    "cut@stream1" is a fault of one stream only.
    """

    kind: str = "none"
    arguments: tuple[str, ...] = ()
    stream: str = ""

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Parse a fault. Raises ValueError, whose text says what was expected."""
        what, _, stream = text.partition("@")
        kind, *arguments = what.split(":")
        if kind not in FAULTS:
            raise ValueError(f"fault {kind!r} is not known; there are {', '.join(FAULTS)}")
        try:
            if kind == "stall":
                METHODS.index(arguments[0].upper())
            if kind == "status":
                int(arguments[0])
            for position in range(_NUMBERS.get(kind, 0)):
                float(arguments[position])
            if stream:
                STREAMS.index(stream)
        except (IndexError, ValueError):
            raise ValueError(
                f"fault {text!r}: expected {FAULTS[kind]}; @stream1 or @stream2 for one stream only"
            ) from None
        return cls(kind, tuple(arguments), stream)

    def on(self, stream: str) -> Fault:
        """The fault of one stream. A fault of kind "none" if this fault is for another stream."""
        return self if self.stream in ("", stream) else Fault()

    @property
    def number(self) -> float:
        """The first argument as a number."""
        return float(self.arguments[0])

    def stalls(self, method: str) -> bool:
        """Whether a request with this method gets no answer."""
        return self.kind == "deaf" or (self.kind == "stall" and self.arguments[0].upper() == method)

    def refuses(self, method: str) -> int | None:
        """The status with which a request is refused. None when it is not refused."""
        at = self.arguments[1].upper() if len(self.arguments) > 1 else "DESCRIBE"
        return int(self.arguments[0]) if self.kind == "status" and method == at else None


@dataclass(slots=True)
class Record:
    """Counters of what a camera saw.

    In these counters a session is a connection: from accept until the camera knows that it closed.
    """

    sessions_now: int = 0
    sessions_max: int = 0
    opens: int = 0
    ends_clean: int = 0  # TEARDOWN came before the end
    ends_unclean: int = 0  # a session that was set up ended without TEARDOWN
    ends_without: int = 0  # a connection without any session ended
    refused_full: int = 0
    # Answers to a challenge that did not prove the password, including those to old nonces
    wrong_logins: int = 0
    locked: bool = False  # the account was locked after `lock_after` wrong logins
    early: int = 0  # connections that came too early: a cool-down left no session for them
    # Of its snapshot URL. Requests with a challenge as answer are counted as requests only
    http_requests: int = 0
    http_now: int = 0
    http_max: int = 0
    http_refused: int = 0  # more at once than max_http


@dataclass(slots=True)
class SimulatedCamera:
    """The state of one camera.

    `fault`, `quirk` (names of QUIRKS, joined by "+") and `full_voice` may be changed while it runs.
    """

    id: str
    name: str
    codec: str = "h264"
    width: int = 640
    height: int = 360
    fps: float = 10.0
    gop: int = 20
    max_sessions: int = 1
    cooldown_s: float = 0.0
    unclean_cooldown_s: float = 0.0
    username: str = ""
    password: str = field(default="", repr=False)
    auth: str = "digest"
    lock_after: int = 0  # wrong logins after which the account is locked; 0: never
    nonce: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    """The nonce for quirks that keep one. Without them each connection has its own nonce."""
    join_at_keyframe: bool = False
    clock_offset_s: float = 0.0
    full_voice: str = "453"
    fault: Fault = field(default_factory=Fault)
    quirk: str = ""
    http_quirk: str = ""
    """Habits of its snapshot URL, joined by "+"."""
    max_http: int = 1
    http_s: float = 0.0
    """How long it takes to make a picture for its snapshot URL."""
    record: Record = field(default_factory=Record)
    port: int = 0
    http_port: int | None = None
    """The port of its snapshot URL; 0 means any. None: it has none."""
    snapshots: deque[bytes] = field(default_factory=lambda: deque(maxlen=12), repr=False)
    """The newest pictures of its snapshot URL, before its habits."""
    keyframes: deque[bytes] = field(default_factory=lambda: deque(maxlen=12), repr=False)
    """The newest different keyframes sent, Annex B or JFIF. A picture must equal one of them."""
    requests: deque[str] = field(default_factory=lambda: deque(maxlen=64), repr=False)
    """The methods of the newest requests, of all connections."""
    random: random.Random = field(default_factory=lambda: random.Random(1))
    _set_up: set[object] = field(default_factory=set)
    _cooling_until: list[float] = field(default_factory=list)

    @property
    def quirks(self) -> frozenset[str]:
        """The names of its quirks."""
        return frozenset(self.quirk.split("+")) - {""}

    def shows(self, now: float) -> int:
        """The time that its picture shows, in whole seconds since 1970."""
        return 0 if "frozen" in self.quirks else int(now)

    def wrong_login(self) -> None:
        """Count a wrong login, and lock the account after `lock_after` of them."""
        self.record.wrong_logins += 1
        self.record.locked |= 0 < self.lock_after <= self.record.wrong_logins

    def opened(self, now: float) -> None:
        """Record that a connection was accepted."""
        r = self.record
        r.opens += 1
        r.sessions_now += 1
        r.sessions_max = max(r.sessions_max, r.sessions_now)
        cooling = self._cooling(now)
        r.early += cooling > 0 and r.sessions_now + cooling > self.max_sessions

    def closed(self, session: object, *, torn_down: bool, now: float) -> None:
        """Record that a connection ended, and begin its cool-down."""
        r = self.record
        r.sessions_now -= 1
        had_session = session in self._set_up
        self._set_up.discard(session)
        if torn_down:
            r.ends_clean += 1
        elif had_session:
            r.ends_unclean += 1
        else:
            r.ends_without += 1
        cooldown_s = (
            self.cooldown_s if torn_down else self.unclean_cooldown_s if had_session else 0.0
        )
        if cooldown_s:
            self._cooling_until.append(now + cooldown_s)

    def admit(self, session: object, now: float) -> bool:
        """Whether `session` may be set up. If so, it is counted, else the refusal is counted."""
        if (
            session not in self._set_up
            and len(self._set_up) + self._cooling(now) >= self.max_sessions
        ):
            self.record.refused_full += 1
            return False
        self._set_up.add(session)
        return True

    def torn_down(self, session: object) -> None:
        """Free the session, because TEARDOWN came."""
        self._set_up.discard(session)

    def _cooling(self, now: float) -> int:
        self._cooling_until = [until for until in self._cooling_until if until > now]
        return len(self._cooling_until)
