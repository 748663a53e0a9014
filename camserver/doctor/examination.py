"""`camserver doctor`: the examination of one camera, and the inventory entry that results.

The steps are the name, the login, the stream, the keyframes and the sessions.

Sessions are opened one after the other, and each is closed with TEARDOWN. Several are open at once
only when the user asks for the number of sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from camserver.capture.build import Capture
from camserver.capture.engine_choice import may_be_misread
from camserver.capture.libav import LibavEngine
from camserver.capture.native import MAX_REDIRECTS, NativeEngine, same_host
from camserver.config import Camera
from camserver.doctor.advice import advice
from camserver.doctor.comparison import StreamSeen, compare, described
from camserver.doctor.probe import GAPS_S, ONE_SESSION_S, Probe
from camserver.doctor.report import Finding, Report
from camserver.doctor.snapshots import snapshots
from camserver.errors import CameraError
from camserver.model import CodedKeyframe, Result, SessionEnd, Step, Still
from camserver.rtsp.aio.connection import ConnectionClosed
from camserver.rtsp.aio.requests import PORTS
from camserver.rtsp.aio.session import RtspSession
from camserver.rtsp.bitstream import profile_name
from camserver.rtsp.session_cache import (
    Keyframe,
    RedirectError,
    UnsupportedStreamError,
)

OPTIONS_S = 2.0


class Doctor:
    """The examination of one camera.

    `say` is called with each finding at once. `scrub` removes secrets from the camera's texts.
    `new` means that the camera is not in the inventory yet. `other_sessions` is the number of other
    sessions of the device that are open at the same time.
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
        self._probe = Probe(camera, other_sessions)
        self.report = Report(known="" if new else camera.id)
        self._stream: StreamSeen | None = None
        keys: dict[str, object] = {
            "id": camera.id,
            "name": camera.name,
            "url": camera.url,
            "sub_url": camera.sub_url,
            "snapshot_url": camera.snapshot_url,
            "username": camera.username,
        }
        self.report.keys |= {key: value for key, value in keys.items() if value and new}

    @property
    def end(self) -> SessionEnd:
        """The worst end of its sessions, for the leases."""
        return self._probe.end

    async def examine(self, *, sessions: bool) -> Report:
        """Do all steps that are possible; `sessions` also counts the sessions."""
        camera = self._camera
        if camera.url is not None and await self._name(camera.url):
            url = await self._first_session(camera.url)
            if url is not None:
                await self._second_session(url)
                if sessions:
                    await self._sessions(url)
        if self.report.login_refused:
            # The other sources take the same login, and cameras lock accounts.
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

    def _count_picture(self, picture: str, reader: str) -> None:
        """Count a source that gave a picture. The first one is shown in the one-line result."""
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
        """Open a cold session (one with DESCRIBE), and follow redirects.

        Returns the URL of the stream when our own client gets pictures from it, else None.
        """
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
        """Open a cold session and wait for two keyframes, to measure the time between them.

        Returns whether our own client gets a picture. Raises RedirectError before a session is set
        up.
        """
        session, began = self._probe.cold_session(url), _now()
        try:
            async with asyncio.timeout(self._camera.timeout_s):
                await session.open()
                opened = _now()
                self._opened(session, opened)
                shot = await session.keyframe()
            waited_s, took_s, pictures = _now() - opened, _now() - began, session.pictures
            self._found("keyframe", f"the first one {waited_s:.1f} s after PLAY", waited_s * 1000)
            changes = await self._distance(session, shot, pictures)
            still = await self._picture(
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
            if still is not None:
                self._stream = StreamSeen(still.width, still.height, took_s, changes)
                return True
        except UnsupportedStreamError as error:
            self._found("session", f"not for camserver's own client: {error}")
        except (CameraError, TimeoutError, ConnectionClosed) as error:
            failure = _failure(error, session, self._camera.timeout_s)
            failure = self._probe.meaning(failure, failure.end)
            self._failed("session" if session.step is not Step.KEYFRAME else "keyframe", failure)
            if not may_be_misread(failure):
                return False
        finally:
            await self._probe.close(session)
        return await self._through_libav(url)

    async def _methods(self, session: RtspSession) -> None:
        """Ask for the methods with OPTIONS. A camera that does not answer it may work anyway."""
        try:
            async with asyncio.timeout(OPTIONS_S):
                self._found("methods", await session.methods() or "none named")
        except (CameraError, TimeoutError, RedirectError, ConnectionClosed) as error:
            self._found(
                "methods", f"OPTIONS is not answered ({str(error) or f'within {OPTIONS_S:g} s'})"
            )

    async def _through_libav(self, url: str) -> bool:
        """Try the second engine, libav, which polls also fall back to. Always returns False."""
        unit = await self._fetched(self._capture.rtsp.libav, url, "libav")
        if unit is not None:
            seen_to = {"native": "", "auto": '; engine = "auto" tries it after two polls'}
            self._found(
                "libav",
                "libav reads this camera, camserver's own client does not"
                + seen_to.get(self._camera.engine, ""),
            )
            if self._camera.engine == "native":
                self.report.keys["engine"] = "auto"
            await self._picture(unit)
        return False  # only our own client can count sessions and measure the pause between two

    async def _fetched(
        self, engine: NativeEngine | LibavEngine, url: str, step: str
    ) -> CodedKeyframe | None:
        try:
            return await self._probe.fetch(engine, url)
        except CameraError as error:
            self._failed(step, error)
            return None

    def _opened(self, session: RtspSession, opened: float) -> None:
        ends = [at for _, at in session.history[1:]] + [opened]
        took = {
            step: (end - at) * 1000 for (step, at), end in zip(session.history, ends, strict=True)
        }
        challenge = session.challenge or self._probe.login.newest
        self._found(
            "connection", "TCP" if self._probe.tls is None else "TCP and TLS", took[Step.CONNECTING]
        )
        self._found("login", challenge.label if challenge is not None else "none asked for")
        tracks = session.description.tracks if session.description is not None else ()
        self._found(
            "tracks",
            ", ".join(f"{t.kind} {t.encoding or t.payload_type}" for t in tracks) or "none",
        )
        self._found(
            "session",
            f"DESCRIBE, SETUP and PLAY over {self._probe.cache.transport}",
            sum(took.get(step, 0.0) for step in (Step.DESCRIBE, Step.SETUP, Step.PLAY)),
        )
        if self._probe.cache.transport != "tcp":
            self.report.keys["transport"] = self._probe.cache.transport

    async def _picture(self, unit: CodedKeyframe, step: str = "picture") -> Still | None:
        started = _now()
        try:
            still = await self._capture.decoder.decode(
                unit, width=None, deadline=_now() + ONE_SESSION_S
            )
        except CameraError as error:
            self._failed(step, error)
            return None
        size = f"{still.width}x{still.height}"
        self._count_picture(f"{size} {unit.codec}", unit.engine)
        self._found(
            step,
            f"{size} {unit.codec} {profile_name(unit.codec, unit.data)}".rstrip()
            + f", {len(unit.data) // 1024} KB coded, {len(still.jpeg) // 1024} KB as JPEG",
            (_now() - started) * 1000,
        )
        if unit.camera_clock_offset_s is not None and step == "picture":
            self._found(
                "clock", f"the camera's clock is {unit.camera_clock_offset_s:+.1f} s from ours"
            )
        return still

    async def _sub_stream(self, url: str) -> None:
        """Take a picture of the sub-stream, which polls use when the main stream fails."""
        unit = await self._fetched(
            self._capture.rtsp.libav if self._camera.engine == "libav" else NativeEngine(),
            url,
            "sub-stream",
        )
        if unit is not None:
            await self._picture(unit, "sub-stream")

    async def _distance(self, session: RtspSession, first: Keyframe, before: int) -> bool | None:
        """Measure the seconds between the keyframe `first` and the next one.

        Returns whether they differ, or None when no second one came.
        """
        try:
            async with asyncio.timeout(self._camera.timeout_s):
                second = await session.keyframe()
        except CameraError as error:
            self._failed("distance", error)
            return None
        except TimeoutError:
            self._failed(
                "distance",
                CameraError(
                    Result.NO_KEYFRAME, f"no second keyframe within {self._camera.timeout_s:g} s"
                ),
            )
            return None
        seconds = second.captured_s - first.captured_s
        self.report.keyframe_every_s = seconds
        self._found(
            "distance", f"a keyframe every {seconds:.1f} s, {session.pictures - before} pictures"
        )
        if seconds > self._camera.timeout_s / 2:
            self.report.keys["timeout"] = f"{2 * seconds + 5:.0f}s"
        return first.picture.data != second.picture.data

    async def _second_session(self, url: str) -> None:
        """Find out whether a warm session works: without DESCRIBE, like the sessions of polls."""
        await asyncio.sleep(self._probe.required_cooldown_s)
        started = _now()
        try:
            session = await self._probe.warm_session(url)
            await self._probe.close(session)
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
            "works: SETUP, PLAY, TEARDOWN"
            if session.warm
            else "not taken: DESCRIBE is needed each time",
            (_now() - started) * 1000,
        )

    async def _sessions(self, url: str) -> None:
        """Count the sessions that the device gives at once, and measure the pause between two."""
        async with contextlib.AsyncExitStack() as stack:
            opened, why = await self._probe.open_many(url, stack)
            count = len(opened)
            if not opened:
                self._failed("sessions", CameraError(Result.FULL, f"0 at once; {why}"))
                return
            self._found("sessions", f"{count} at once; {why}")
            if self._camera.max_sessions != count:
                self.report.keys["max_sessions"] = count
            gap_s = await self._probe.shortest_gap(url, opened, stack)
            if gap_s is None:
                text = f"no new session within {GAPS_S[-1]:g} s after a TEARDOWN"
                self._failed("gap", CameraError(Result.FULL, text))
                return
            self._found("gap", f"a new session {gap_s:g} s after a TEARDOWN works")
            if self._camera.cooldown_s != gap_s:
                self.report.keys["cooldown"] = f"{gap_s:g}s"
            if gap_s > self._camera.unclean_cooldown_s:
                self.report.keys["unclean_cooldown"] = f"{2 * gap_s:g}s"

    async def _snapshot_url(self, url: str) -> None:
        """Take some pictures of the snapshot URL, and compare it with the stream."""
        try:
            shots = [shot async for shot in snapshots(self._capture, self._camera, url)]
        except CameraError as error:
            self._failed("snapshot URL", error)
            return
        self._count_picture(f"{shots[0].size} {shots[0].kind}", "snapshot URL")
        self._found("snapshot URL", described(shots), shots[0].took_s * 1000)
        if self._stream is not None:
            camera = self._camera
            found = compare(shots, self._stream, camera.sources, has_sub=camera.sub_url is not None)
            self._found("sources", found.text)
            if found.sources is not None:
                self.report.keys["sources"] = list(found.sources)


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
