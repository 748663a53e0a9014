"""`camserver doctor`: one camera, step by step: reach, login, stream, keyframes, sessions.

Then its inventory entry.

Opens sessions one after the other, each torn down in good order; several at once only when it is
asked to count them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from urllib.parse import urlsplit

from camserver.capture.build import Capture
from camserver.capture.engine_choice import may_be_misread
from camserver.capture.libav import LibavEngine
from camserver.capture.native import MAX_REDIRECTS, NativeEngine, same_host, tls_context
from camserver.capture.session import worst
from camserver.config import Camera
from camserver.doctor.advice import advice
from camserver.doctor.report import Finding, Report
from camserver.errors import CameraError
from camserver.host.tasks import finish
from camserver.model import CodedKeyframe, Result, SessionEnd, Step
from camserver.rtsp.aio.connection import ConnectionClosed
from camserver.rtsp.aio.requests import PORTS
from camserver.rtsp.aio.session import RtspSession
from camserver.rtsp.bitstream import split_annex_b
from camserver.rtsp.login import LoginCache
from camserver.rtsp.refusals import reinterpret_as_full
from camserver.rtsp.session_cache import (
    Keyframe,
    RedirectError,
    SessionCache,
    UnsupportedStreamError,
)

MAX_SESSIONS = 8
GAPS_S = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
"""Pauses between a TEARDOWN and the next session that are tried, the shortest first."""
ONE_SESSION_S = 10.0
OPTIONS_S = 2.0
REST_S = 5.0
"""After refusals, and before sessions are counted: what was closed before may still count."""
PROFILES = {
    66: "Baseline",
    77: "Main",
    88: "Extended",
    100: "High",
    110: "High 10",
    122: "High 4:2:2",
}


class Doctor:
    """Examines one camera.

    `say` hears of each finding as it is made, `scrub` keeps secrets out of what the camera says.

    `new`: it is not in the inventory yet. `other_sessions`: so many other sessions of the device
    are open meanwhile.
    """

    def __init__(
        self,
        camera: Camera,
        capture: Capture,
        say: Callable[[Finding], None],
        *,
        new: bool = True,
        other_sessions: int = 0,
        scrub: Callable[[str], str] = str,
    ) -> None:
        self._camera = camera
        self._capture = capture
        self._say = say
        self._scrub = scrub
        self._other_sessions = other_sessions
        self._last = SessionEnd.NONE  # how the newest session ended
        self._cache = SessionCache(transport=camera.transport)
        self._login = LoginCache(camera.username, camera.password)
        self.report = Report(known="" if new else camera.id)
        keys: dict[str, object] = {
            "id": camera.id,
            "name": camera.name,
            "url": camera.url,
            "sub_url": camera.sub_url,
            "snapshot_url": camera.snapshot_url,
            "username": camera.username,
        }
        self.report.keys |= {key: value for key, value in keys.items() if value and new}

    async def examine(self, *, sessions: bool) -> Report:
        """All steps, as far as they lead."""
        camera = self._camera
        if camera.url is not None and await self._name(camera.url):
            url = await self._first_session(camera.url)
            if url is not None:
                await self._second_session(url)
                if sessions:
                    await self._sessions(url)
        if self.report.login_refused:
            # A wrong password is wrong everywhere, and cameras lock accounts
            return self.report
        if camera.sub_url is not None:
            await self._sub_stream(camera.sub_url)
        if camera.snapshot_url is not None and not self.report.login_refused:
            await self._snapshot_url(camera.snapshot_url)
        return self.report

    def _found(self, step: str, text: str, ms: float | None = None) -> None:
        self._add(
            Finding(step, ok=True, text=self._scrub(text), ms=None if ms is None else round(ms, 1))
        )

    def _failed(self, step: str, failure: CameraError) -> None:
        self.report.login_refused |= failure.login_refused
        self._add(
            Finding(step, ok=False, text=self._scrub(str(failure)), advice=advice(step, failure))
        )

    def _add(self, finding: Finding) -> None:
        self.report.findings.append(finding)
        self._say(finding)

    def _had(self, picture: str, reader: str) -> None:
        """A picture came by a way of its own; the first one is what is told in one line."""
        self.report.pictures += 1
        if not self.report.picture:
            self.report.picture, self.report.reader = picture, reader

    # ---- steps

    async def _name(self, url: str) -> bool:
        parts, started = urlsplit(url), _now()
        try:
            async with asyncio.timeout(ONE_SESSION_S):
                infos = await asyncio.get_running_loop().getaddrinfo(
                    parts.hostname, parts.port or PORTS[parts.scheme], type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError):
            self._failed(
                "name", CameraError(Result.UNREACHABLE, f"the name {parts.hostname} is not known")
            )
            return False
        addresses = ", ".join(dict.fromkeys(str(info[4][0]) for info in infos))
        self._found("name", addresses, (_now() - started) * 1000)
        return True

    async def _first_session(self, url: str) -> str | None:
        """Cold: everything is asked. Returns where the stream is when pictures come from there."""
        for _ in range(MAX_REDIRECTS + 1):
            try:
                return url if await self._cold(url) else None
            except RedirectError as moved:
                try:
                    url = same_host(url, moved.url)
                except CameraError as error:
                    self._failed("session", error)
                    return None
                self._found("redirect", f"it sends us to {url}: polls follow, too")
        self._failed("session", CameraError(Result.ERROR, f"more than {MAX_REDIRECTS} redirects"))
        return None

    async def _cold(self, url: str) -> bool:
        """Two keyframes, so that their distance is known.

        Raises RedirectError before a session is set up.
        """
        session = RtspSession(url, self._cache, self._login, tls=self._tls())
        try:
            async with asyncio.timeout(self._camera.timeout_s):
                await session.open()
                opened = _now()
                self._opened(session, opened)
                shot = await session.keyframe()
            waited_s, pictures = _now() - opened, session.pictures
            self._found("keyframe", f"the first one {waited_s:.1f} s after PLAY", waited_s * 1000)
            await self._distance(session, shot, pictures)
            seen = await self._picture(
                CodedKeyframe(
                    shot.codec,
                    shot.picture.data,
                    b"",
                    datetime.fromtimestamp(shot.captured_s, UTC),
                    "native",
                    shot.camera_clock_offset_s,
                )
            )
            await self._methods(session)
            if seen:
                return True
        except UnsupportedStreamError as error:
            self._found("session", f"not for camserver's own client: {error}")
        except (CameraError, TimeoutError, ConnectionClosed) as error:
            failure = _failure(error, session, self._camera.timeout_s)
            failure = reinterpret_as_full(failure, failure.end, self._other_sessions)
            self._failed("session" if session.step is not Step.KEYFRAME else "keyframe", failure)
            if not may_be_misread(failure):
                return False
        finally:
            await self._close(session)
        return await self._through_libav(url)

    async def _methods(self, session: RtspSession) -> None:
        """What it says it can; pictures come all the same when it doesn't know the question."""
        try:
            async with asyncio.timeout(OPTIONS_S):
                self._found("methods", await session.methods() or "none named")
        except (CameraError, TimeoutError, RedirectError, ConnectionClosed) as error:
            self._found(
                "methods", f"OPTIONS is not answered ({str(error) or f'within {OPTIONS_S:g} s'})"
            )

    async def _through_libav(self, url: str) -> bool:
        """The second engine, which polls fall back to as well."""
        unit = await self._fetched(self._capture.rtsp.libav, url, "libav")
        if unit is not None:
            seen_to = {"native": "", "auto": '; engine = "auto" finds that out after two polls'}
            self._found(
                "libav",
                "libav reads this camera, camserver's own client does not"
                + seen_to.get(self._camera.engine, ""),
            )
            if self._camera.engine == "native":
                self.report.keys["engine"] = "auto"
            await self._picture(unit)
        return False  # how often and how soon again is measured by our own client only

    async def _fetched(
        self, engine: NativeEngine | LibavEngine, url: str, step: str
    ) -> CodedKeyframe | None:
        """As polls do it, with nothing remembered."""
        await asyncio.sleep(self._owed_s)
        session = engine.session(self._camera, url, _now() + self._session_s)
        try:
            async with session:
                return await session.keyframe()
        except CameraError as error:
            self._failed(step, reinterpret_as_full(error, session.end, self._other_sessions))
            return None
        finally:
            self._ended(session.end)

    def _opened(self, session: RtspSession, opened: float) -> None:
        ends = [at for _, at in session.history[1:]] + [opened]
        took = {
            step: (end - at) * 1000 for (step, at), end in zip(session.history, ends, strict=True)
        }
        challenge = session.challenge or self._login.newest
        self._found(
            "connection", "TCP" if self._tls() is None else "TCP and TLS", took[Step.CONNECTING]
        )
        self._found("login", challenge.label if challenge is not None else "none asked for")
        tracks = session.description.tracks if session.description is not None else ()
        self._found(
            "tracks",
            ", ".join(f"{t.kind} {t.encoding or t.payload_type}" for t in tracks) or "none",
        )
        self._found(
            "session",
            f"DESCRIBE, SETUP and PLAY over {self._cache.transport}",
            sum(took.get(step, 0.0) for step in (Step.DESCRIBE, Step.SETUP, Step.PLAY)),
        )
        if self._cache.transport != "tcp":
            self.report.keys["transport"] = self._cache.transport

    async def _picture(self, unit: CodedKeyframe, step: str = "picture") -> bool:
        started = _now()
        try:
            still = await self._capture.decoder.decode(
                unit, width=None, deadline=_now() + ONE_SESSION_S
            )
        except CameraError as error:
            self._failed(step, error)
            return False
        self._had(f"{still.width}x{still.height} {unit.codec}", unit.engine)
        self._found(
            step,
            f"{still.width}x{still.height} {unit.codec} {profile(unit.codec, unit.data)}".rstrip()
            + f", {len(unit.data) // 1024} KB coded, {len(still.jpeg) // 1024} KB as JPEG",
            (_now() - started) * 1000,
        )
        if unit.camera_clock_offset_s is not None and step == "picture":
            self._found(
                "clock", f"the camera's clock is {unit.camera_clock_offset_s:+.1f} s from ours"
            )
        return True

    async def _sub_stream(self, url: str) -> None:
        """Polls take it when the main stream fails."""
        unit = await self._fetched(
            self._capture.rtsp.libav if self._camera.engine == "libav" else NativeEngine(),
            url,
            "sub-stream",
        )
        if unit is not None:
            await self._picture(unit, "sub-stream")

    async def _distance(self, session: RtspSession, first: Keyframe, before: int) -> None:
        """From one keyframe to the next."""
        try:
            async with asyncio.timeout(self._camera.timeout_s):
                second = await session.keyframe()
        except CameraError as error:
            self._failed("distance", error)
            return
        except TimeoutError:
            self._failed(
                "distance",
                CameraError(
                    Result.NO_KEYFRAME, f"no second keyframe within {self._camera.timeout_s:g} s"
                ),
            )
            return
        seconds = second.captured_s - first.captured_s
        self.report.keyframe_every_s = seconds
        self._found(
            "distance", f"a keyframe every {seconds:.1f} s, {session.pictures - before} pictures"
        )
        if seconds > self._camera.timeout_s / 2:
            self.report.keys["timeout"] = f"{2 * seconds + 5:.0f}s"

    async def _second_session(self, url: str) -> None:
        """Warm: whether a session can be opened without DESCRIBE, as polls do."""
        await asyncio.sleep(self._owed_s)
        started = _now()
        try:
            warm = await self._one(url, deepcopy(self._cache))
        except (CameraError, RedirectError) as error:
            if isinstance(error, CameraError) and error.result in (Result.FULL, Result.UNREACHABLE):
                self._found(
                    "fast open",
                    f"not known: the next session was refused ({error}); it may need a cool-down",
                )
                return
            self._found(
                "fast open",
                f"no picture without DESCRIBE ({error}); polls will ask for it each time",
            )
            return
        self._found(
            "fast open",
            "works: SETUP, PLAY, TEARDOWN" if warm else "not taken: DESCRIBE is needed each time",
            (_now() - started) * 1000,
        )

    async def _one(self, url: str, cache: SessionCache) -> bool:
        """One session to its first keyframe; whether it was opened without DESCRIBE.

        Raises CameraError, RedirectError.
        """
        session = RtspSession(url, cache, self._login, tls=self._tls())
        try:
            async with asyncio.timeout(self._session_s):
                await session.open()
                await session.keyframe()
        except TimeoutError:
            raise session.late(self._session_s) from None
        finally:
            await self._close(session)
        return session.warm

    async def _sessions(self, url: str) -> None:
        """How many at once, and how soon after one another."""
        await asyncio.sleep(self._rest_s)  # the sessions before may count for a while
        async with contextlib.AsyncExitStack() as stack:
            opened: list[RtspSession] = []
            why = f"no more were tried than {MAX_SESSIONS}"
            while len(opened) < MAX_SESSIONS:
                try:
                    opened.append(await self._hold(url, stack))
                except CameraError as error:
                    why = f"the next one: {error}"
                    break
            if not opened:
                self._failed("sessions", CameraError(Result.FULL, f"0 at once; {why}"))
                return
            self._found("sessions", f"{len(opened)} at once; {why}")
            if self._camera.max_sessions != len(opened):
                self.report.keys["max_sessions"] = len(opened)
            for gap_s in GAPS_S:
                await self._close(opened.pop())
                await asyncio.sleep(
                    max(gap_s, self._owed_s if self._last is SessionEnd.UNCLEAN else 0.0)
                )
                try:
                    opened.append(await self._hold(url, stack))
                except CameraError:
                    await asyncio.sleep(self._rest_s)  # what was refused may count, too
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
            self._failed(
                "gap",
                CameraError(
                    Result.FULL, f"no new session within {GAPS_S[-1]:g} s after a TEARDOWN"
                ),
            )

    async def _hold(self, url: str, stack: contextlib.AsyncExitStack) -> RtspSession:
        """A session that plays; one that is accepted and gets nothing is none.

        Raises CameraError.
        """
        session = RtspSession(url, deepcopy(self._cache), self._login, tls=self._tls())
        try:
            async with asyncio.timeout(self._session_s):
                await session.open()
                await session.keyframe()
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
            jpeg = await self._capture.http.fetch(
                self._camera, url, _now() + self._camera.timeout_s
            )
            still = await self._capture.decoder.inspect(
                jpeg, width=None, deadline=_now() + ONE_SESSION_S
            )
        except CameraError as error:
            self._failed("snapshot URL", error)
            return
        self._had(f"{still.width}x{still.height} JPEG", "snapshot URL")
        self._found(
            "snapshot URL",
            f"{still.width}x{still.height}, {len(still.jpeg) // 1024} KB",
            (_now() - started) * 1000,
        )

    # ---- sessions

    @property
    def _session_s(self) -> float:
        return max(ONE_SESSION_S, self._camera.timeout_s)

    @property
    def _rest_s(self) -> float:
        return max(REST_S, self._owed_s)

    @property
    def _owed_s(self) -> float:
        """The rest that the device is owed after its newest session."""
        unclean = self._last is SessionEnd.UNCLEAN
        return self._camera.unclean_cooldown_s if unclean else self._camera.cooldown_s

    def _tls(self) -> ssl.SSLContext | None:
        return (
            tls_context(self._camera.tls_verify)
            if (self._camera.url or "").startswith("rtsps")
            else None
        )

    async def _close(self, session: RtspSession) -> SessionEnd:
        """Torn down in good order, also when we are cancelled."""
        end = await finish(session.close())
        self._ended(end)
        return end

    def _ended(self, end: SessionEnd) -> None:
        if end is not SessionEnd.NONE:
            self._last = end
        self.report.end = worst(self.report.end, end)


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
        case _:
            return CameraError(Result.UNREACHABLE, f"{error} at {session.step}")


def _now() -> float:
    return asyncio.get_running_loop().time()
