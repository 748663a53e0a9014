"""`camserver doctor`: one camera, step by step: reach, login, stream, keyframes, sessions; then its inventory entry.

Opens sessions one after the other, each torn down in good order; several at once only when it is asked to count them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from urllib.parse import urlsplit

from camserver.capture.decoder import Decoder
from camserver.capture.http import HttpSource
from camserver.capture.native import tls_context
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.host.tasks import finish
from camserver.records import AccessUnit, Result, SessionEnd, Still
from camserver.rtsp.auth import Login
from camserver.rtsp.client import PORTS, RtspSession
from camserver.rtsp.memory import Memory, Moved, Shot, Unsupported
from camserver.rtsp.rtp import split_annex_b
from camserver.rtsp.wire import WireClosed

MAX_SESSIONS = 8
GAPS_S = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
"""Pauses between a TEARDOWN and the next session that are tried, the shortest first."""
ONE_SESSION_S = 10.0
REST_S = 5.0
"""After refusals, and before sessions are counted: what was closed before may still count."""
ADVICE = {
    Result.UNREACHABLE: "Is the camera on, the address right, the RTSP port open (554 on most)? Is RTSP switched on in its "
                        "settings?",
    Result.AUTH: "Check username and password in the camera's own web page. Some have an RTSP or ONVIF user of their own; "
                 "many lock a login for minutes after wrong tries, so don't try on and on.",
    Result.NOT_FOUND: "The path is wrong: the maker's manual or the camera's ONVIF page has it (/stream1, "
                      "/h264Preview_01_main, ...).",
    Result.FULL: "Somebody else has its sessions: go2rtc, an NVR, the maker's app? Close one, or give max_sessions as it is.",
    Result.TIMEOUT: "It accepts the connection and then says nothing: it may be full without saying so, or hang. Restart it, "
                    "or try transport = \"udp\".",
    Result.NO_KEYFRAME: "Its keyframes are far apart: set its I-frame interval to 1 or 2 seconds, or give timeout a larger "
                        "value.",
    Result.BAD_PICTURE: "Packets are lost or damaged on the way (Wi-Fi?), or the camera's encoder is faulty: try "
                        "transport = \"tcp\", a lower bit rate, or the sub-stream.",
    Result.ERROR: "What it offers can't be used as it is; engine = \"libav\" speaks some things that camserver doesn't.",
}
PROFILES = {66: "Baseline", 77: "Main", 88: "Extended", 100: "High", 110: "High 10", 122: "High 4:2:2"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One step: what was found, how long it took, and advice when it failed."""

    step: str
    ok: bool
    text: str
    ms: float | None = None
    advice: str = ""


@dataclass(slots=True)
class Report:
    """All findings in their order, and the keys of the inventory that follow from them."""

    findings: list[Finding] = field(default_factory=list)
    keys: dict[str, object] = field(default_factory=dict)

    known: str = ""
    """Id of a camera that is in the inventory already: then only what should change is said."""
    end: SessionEnd = SessionEnd.NONE
    """Of all sessions the worst."""

    @property
    def ok(self) -> bool:
        """Whether pictures can be had, by one way at least."""
        rtsp = [f.ok for f in self.findings if f.step in ("name", "session", "keyframe", "picture", "sessions")]
        http = [f.ok for f in self.findings if f.step == "snapshot URL"]
        return (bool(rtsp) and all(rtsp)) or (not rtsp and bool(http) and all(http))

    def toml(self) -> str:
        """What to paste; without the password."""
        if self.known:
            lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in self.keys.items()]
            return "\n".join([f"# for camera {self.known}: {'change' if lines else 'nothing to change'}", *lines]) + "\n"
        lines = ["[[camera]]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in self.keys.items())]
        lines += ['# password = "..."'] * ("username" in self.keys)
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """For programs."""
        return json.dumps({"ok": self.ok, "findings": [asdict(f) for f in self.findings], "camera": self.keys}, indent=1)


class Doctor:
    """Examines one camera; `say` hears of each finding as it is made. `new`: it is not in the inventory yet."""

    def __init__(self, camera: Camera, decoder: Decoder, say: Callable[[Finding], None], *, new: bool = True) -> None:
        self._camera = camera
        self._decoder = decoder
        self._say = say
        self._memory = Memory(Login(camera.username, camera.password), transport=camera.transport)
        self.report = Report(known="" if new else camera.id)
        keys: dict[str, object] = {"id": camera.id, "name": camera.name, "url": camera.url, "sub_url": camera.sub_url,
                                   "snapshot_url": camera.snapshot_url, "username": camera.username}
        self.report.keys |= {key: value for key, value in keys.items() if value and new}

    async def examine(self, *, sessions: bool) -> Report:
        """All steps, as far as they lead."""
        camera = self._camera
        if camera.url is not None and await self._name(camera.url):
            first = await self._first_session(camera.url)
            if first is not None:
                await self._second_session(camera.url)
                if sessions:
                    await self._sessions(camera.url)
        if camera.snapshot_url is not None:
            await self._snapshot_url(camera.snapshot_url)
        return self.report

    def _found(self, step: str, text: str, ms: float | None = None, *, result: Result | None = None) -> None:
        finding = Finding(step, result is None, text, None if ms is None else round(ms, 1),
                          ADVICE.get(result, "") if result is not None else "")
        self.report.findings.append(finding)
        self._say(finding)

    # ---- steps

    async def _name(self, url: str) -> bool:
        parts, started = urlsplit(url), _now()
        try:
            async with asyncio.timeout(ONE_SESSION_S):
                infos = await asyncio.get_running_loop().getaddrinfo(
                    parts.hostname, parts.port or PORTS[parts.scheme], type=socket.SOCK_STREAM)
        except (OSError, TimeoutError):
            self._found("name", f"the name {parts.hostname} is not known", result=Result.UNREACHABLE)
            return False
        addresses = ", ".join(dict.fromkeys(str(info[4][0]) for info in infos))
        self._found("name", addresses, (_now() - started) * 1000)
        return True

    async def _first_session(self, url: str) -> Shot | None:
        """Cold: everything is asked. Two keyframes, so that their distance is known."""
        steps: list[tuple[str, float]] = [("connecting", _now())]
        session = self._session(url, lambda step: steps.append((step, _now())))
        try:
            async with asyncio.timeout(self._camera.timeout_s):
                methods = await session.methods()
                await session.open()
                self._opened(session, steps, methods)
                shot = await session.key_picture()
            waited_s, pictures = _since(steps, "a keyframe"), session.pictures
            self._found("keyframe", f"the first one {waited_s:.1f} s after PLAY", waited_s * 1000)
            await self._distance(session, shot, pictures)
            await self._picture(shot)
        except (CameraError, TimeoutError, Moved, WireClosed) as error:
            failure = _failure(error, session, self._camera.timeout_s)
            self._found("session" if session.step != "a keyframe" else "keyframe", str(failure), result=failure.result)
            if isinstance(error, Unsupported):
                self.report.keys["engine"] = "libav"
            return None
        finally:
            await self._close(session)
        return shot

    def _opened(self, session: RtspSession, steps: list[tuple[str, float]], methods: str) -> None:
        took = {name: (after - at) * 1000 for (name, at), (_, after) in pairwise(steps)}
        login = self._memory.login
        self._found("connection", "TCP" if self._tls() is None else "TCP and TLS", took["connecting"])
        self._found("methods", methods or "none named")
        algorithm = login.challenge.get("algorithm", "MD5") if login.scheme == "digest" else ""
        self._found("login", f"{login.scheme} {algorithm}".strip() if login.scheme else "none asked for")
        tracks = session.description.tracks if session.description is not None else ()
        self._found("tracks", ", ".join(f"{t.kind} {t.encoding or t.payload_type}" for t in tracks) or "none")
        self._found("session", f"DESCRIBE, SETUP and PLAY over {self._memory.transport}",
                    sum(ms for name, ms in took.items() if name in ("DESCRIBE", "SETUP", "PLAY")))
        if self._memory.transport != "tcp":
            self.report.keys["transport"] = self._memory.transport

    async def _picture(self, shot: Shot) -> Still | None:
        unit = AccessUnit(shot.codec, shot.picture.data, b"", datetime.fromtimestamp(shot.captured_s, UTC), "native")
        started = _now()
        try:
            still = await self._decoder.decode(unit, width=None, deadline=_now() + ONE_SESSION_S)
        except CameraError as error:
            self._found("picture", str(error), result=error.result)
            return None
        self._found("picture", f"{still.width}x{still.height} {shot.codec} {profile(shot.codec, shot.picture.data)}".rstrip()
                    + f", {len(shot.picture.data) // 1024} KB coded, {len(still.jpeg) // 1024} KB as JPEG",
                    (_now() - started) * 1000)
        if shot.camera_clock_offset_s is not None:
            self._found("clock", f"the camera's clock is {shot.camera_clock_offset_s:+.1f} s from ours")
        return still

    async def _distance(self, session: RtspSession, first: Shot, before: int) -> None:
        """From one keyframe to the next."""
        try:
            async with asyncio.timeout(self._camera.timeout_s):
                second = await session.key_picture()
        except (CameraError, TimeoutError):
            self._found("distance", f"no second keyframe within {self._camera.timeout_s:g} s", result=Result.NO_KEYFRAME)
            return
        seconds = second.captured_s - first.captured_s
        self._found("distance", f"a keyframe every {seconds:.1f} s, {session.pictures - before} pictures")
        if seconds > self._camera.timeout_s / 2:
            self.report.keys["timeout"] = f"{2 * seconds + 5:.0f}s"

    async def _second_session(self, url: str) -> None:
        """Warm: whether a session can be opened without DESCRIBE, as polls do."""
        await asyncio.sleep(self._camera.cooldown_s)
        started = _now()
        try:
            warm = await self._one(url, deepcopy(self._memory))
        except (CameraError, Moved) as error:
            if isinstance(error, CameraError) and error.result in (Result.FULL, Result.UNREACHABLE):
                self._found("fast open", f"not known: the next session was refused ({error}); it may need a cool-down")
                return
            self._found("fast open", f"no picture without DESCRIBE ({error}); polls will ask for it each time")
            return
        self._found("fast open", "works: SETUP, PLAY, TEARDOWN" if warm else "not taken: DESCRIBE is needed each time",
                    (_now() - started) * 1000)

    async def _one(self, url: str, memory: Memory) -> bool:
        """One session to its first keyframe; whether it was opened without DESCRIBE. Raises CameraError, Moved."""
        session = RtspSession(url, memory, tls=self._tls())
        try:
            async with asyncio.timeout(self._session_s):
                await session.open()
                await session.key_picture()
        except TimeoutError:
            raise session.late(self._session_s) from None
        finally:
            await self._close(session)
        return session.warm

    async def _sessions(self, url: str) -> None:
        """How many at once, and how soon after one another."""
        await asyncio.sleep(self._rest_s)     # the sessions before may count for a while
        async with contextlib.AsyncExitStack() as stack:
            opened: list[RtspSession] = []
            why = f"no more were tried than {MAX_SESSIONS}"
            while len(opened) < MAX_SESSIONS:
                try:
                    opened.append(await self._hold(url, stack))
                except CameraError as error:
                    why = f"the next one: {error}"
                    break
            self._found("sessions", f"{len(opened)} at once; {why}", result=None if opened else Result.FULL)
            if not opened:
                return
            if self._camera.max_sessions != len(opened):
                self.report.keys["max_sessions"] = len(opened)
            for gap_s in GAPS_S:
                await self._close(opened.pop())
                await asyncio.sleep(gap_s)
                try:
                    opened.append(await self._hold(url, stack))
                except CameraError:
                    await asyncio.sleep(self._rest_s)     # what was refused may count, too
                    with contextlib.suppress(CameraError):
                        opened.append(await self._hold(url, stack))
                    if not opened:
                        break
                    continue
                self._found("gap", f"a new session {gap_s:g} s after a TEARDOWN works")
                if self._camera.cooldown_s != gap_s:
                    self.report.keys["cooldown"] = f"{gap_s:g}s"
                if gap_s > self._camera.unclean_cooldown_s:
                    self.report.keys["unclean_cooldown"] = f"{2 * gap_s:g}s"
                return
            self._found("gap", f"no new session within {GAPS_S[-1]:g} s after a TEARDOWN", result=Result.FULL)

    async def _hold(self, url: str, stack: contextlib.AsyncExitStack) -> RtspSession:
        """A session that plays; one that is accepted and gets nothing is none. Raises CameraError."""
        session = RtspSession(url, deepcopy(self._memory), tls=self._tls())
        try:
            async with asyncio.timeout(self._session_s):
                await session.open()
                await session.key_picture()
        except TimeoutError:
            failure = session.late(self._session_s)
            await self._close(session)
            raise failure from None
        except BaseException:
            await self._close(session)
            raise
        stack.push_async_callback(self._close, session)
        return session

    async def _snapshot_url(self, url: str) -> None:
        started = _now()
        try:
            jpeg = await HttpSource().fetch(self._camera, url, _now() + self._camera.timeout_s)
            still = await self._decoder.inspect(jpeg, width=None, deadline=_now() + ONE_SESSION_S)
        except CameraError as error:
            self._found("snapshot URL", str(error), result=error.result)
            return
        self._found("snapshot URL", f"{still.width}x{still.height}, {len(still.jpeg) // 1024} KB", (_now() - started) * 1000)

    # ---- sessions

    @property
    def _session_s(self) -> float:
        return max(ONE_SESSION_S, self._camera.timeout_s)

    @property
    def _rest_s(self) -> float:
        return max(REST_S, self._camera.cooldown_s)

    def _session(self, url: str, on_step: Callable[[str], None]) -> RtspSession:
        return RtspSession(url, self._memory, tls=self._tls(), on_step=on_step)

    def _tls(self) -> ssl.SSLContext | None:
        return tls_context(self._camera.tls_verify) if (self._camera.url or "").startswith("rtsps") else None

    async def _close(self, session: RtspSession) -> SessionEnd:
        """Torn down in good order, also when we are cancelled."""
        end = await finish(session.close())
        self.report.end = max(self.report.end, end, key=list(SessionEnd).index)
        return end


def profile(codec: str, data: bytes) -> str:
    """The profile that a key picture's parameter set names (H.264, 7.3.2.1.1; H.265, 7.3.3)."""
    for nal in split_annex_b(data):
        if codec == "h264" and len(nal) > 3 and nal[0] & 0x1F == 7:
            return f"{PROFILES.get(nal[1], f'profile {nal[1]}')} {nal[3] / 10:g}"
        if codec == "hevc" and len(nal) > 3 and nal[0] >> 1 & 0x3F == 33:
            return {1: "Main", 2: "Main 10"}.get(nal[3] & 0x1F, f"profile {nal[3] & 0x1F}")
    return ""


def _failure(error: Exception, session: RtspSession, limit_s: float) -> CameraError:
    match error:
        case CameraError():
            return error
        case TimeoutError():
            return session.late(limit_s)
        case Moved():
            return CameraError(Result.ERROR, f"it redirects to {error.url[:200]!r}: put that into the inventory")
        case _:
            return CameraError(Result.UNREACHABLE, f"{error} at {session.step}")


def _since(steps: list[tuple[str, float]], name: str) -> float:
    return _now() - next(at for step, at in reversed(steps) if step == name)


def _now() -> float:
    return asyncio.get_running_loop().time()
