"""Programs that take one picture of a camera and write a JPEG, each measured in the same way.

CPU is user + system of everything that had to run for it: of camserver the daemon's process and its
workers, which are warm, as between two polls; of a program that is started for each picture its
process; of others the running process. Servers are not counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import simplejpeg

sys.path.insert(0, str(Path(__file__).parents[1]))

from limits import BareClient, Least
from support import camera

from camserver.capture.build import build_capture
from camserver.config.output import OutputTable
from camserver.errors import CameraError
from camserver.events import Event, LeaseAcquired, LeaseReleased
from camserver.health import PictureHealth
from camserver.leases import Budget, Holder, RtspManager
from camserver.model import Attempt
from camserver.snapshots.service import SnapshotService
from camserver.snapshots.sources import Sources
from camserver.storage import SnapshotStore
from camserver.storage.outcomes import Outcomes
from camserver.workers.pool import WorkerPool
from camserver.workers.template import ENVIRONMENT

FFMPEG = ("ffmpeg", "-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp")
SMALL_PROBE = ("-probesize", "32", "-analyzeduration", "0")
QUALITY = ("-q:v", "3")
"""About as large as libjpeg's quality 85."""
GST_LAUNCH = "rtspsrc location={url} protocols=tcp latency=0 ! decodebin ! videoconvert"
GST_JPEG = "jpegenc quality=85 snapshot=true ! filesink location={target}"
WARM_PEER = Path(__file__).with_name("warm_peer.py")
NO_PICTURE_S = 30.0
LEAST_CONTRAST = 20.0
"""Deviation of the luma, 0 to 255, of a picture that shows something. A grey one has less."""


class NoPictureError(Exception):
    """Raised when a contender gives no picture, or one that shows nothing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One picture. Times are in seconds.

    `wall_s` is from "now" to the JPEG on the disk. At `done_s` everything is closed, too. The rest
    is known of camserver only: `open_s` is how long the camera had a session to keep, `decode_s`
    the wall time of decoding, colours and JPEG; `decode_cpu_s` is the decoder's part of `cpu_s`.
    """

    wall_s: float
    done_s: float
    cpu_s: float = 0.0
    open_s: float = 0.0
    decode_s: float = 0.0
    decode_cpu_s: float = 0.0
    kilobytes: float = 0.0


class Contender(Protocol):
    """Takes one picture at a time. Raises NoPictureError."""

    async def shot(self) -> Measured:
        """Take a picture."""

    async def close(self) -> None:
        """End what runs for it."""


class Ours:
    """What the daemon does for one poll, with its parts, in this process.

    With `cold` each picture is the first one of its camera: nothing is remembered of the stream.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        engine: str,
        health: PictureHealth | None = None,
        *,
        cold: bool = False,
    ) -> None:
        self.camera = camera(
            url=url, max_sessions=4, cooldown_s=0.0, engine=engine, timeout_s=NO_PICTURE_S
        )
        self.cold = cold
        self.capture = build_capture(85)
        self._leased: list[float] = []
        manager = RtspManager(self._note)
        manager.configure({self.camera.device: Budget(4, 0.0, 0.0)})
        self.service = SnapshotService(
            manager,
            Sources(self.capture.rtsp, self.capture.http),
            self.capture.decoder,
            health=health,
        )
        self.store = SnapshotStore(OutputTable(directory=folder, archive=""), Outcomes())

    async def shot(self) -> Measured:
        """Take a picture with workers that run already, as between two polls."""
        needed = [self.capture.decoders]
        needed += [self.capture.sessions] if self.camera.engine == "libav" else []
        if not all(pool.pids for pool in needed):  # they end when they have nothing to do
            await self._shot()
        return await self._shot()

    async def _shot(self) -> Measured:
        if self.cold:
            self.capture.rtsp.forget(self.camera, self.camera.url)
        self._leased.clear()
        started, cpu_s, decode_cpu_s = (
            time.monotonic(),
            self._cpu_s(),
            _workers_s(self.capture.decoders),
        )
        published = 0.0

        async def deliver(attempt: Attempt) -> Attempt:
            nonlocal published
            attempt, _ = await self.store.record(attempt, 0)
            published = time.monotonic()
            return attempt

        attempt = await self.service.take(self.camera, Holder("bench"), deliver=deliver)
        done = time.monotonic()
        if attempt.snapshot is None:
            raise NoPictureError(attempt.error)
        still = attempt.snapshot.still
        return Measured(
            published - started,
            done - started,
            self._cpu_s() - cpu_s,
            self._leased[-1] - self._leased[0],
            (still.decode_s or 0.0) + (still.encode_s or 0.0),
            _workers_s(self.capture.decoders) - decode_cpu_s,
            len(still.jpeg) / 1000,
        )

    async def access_unit(self, folder: Path) -> Path:
        """A file with one access unit of the camera. Its suffix is libav's name of the codec."""
        deadline = asyncio.get_running_loop().time() + NO_PICTURE_S
        try:
            async with self.capture.rtsp.session(self.camera, self.camera.url, deadline) as session:
                unit = await session.keyframe()
        except CameraError as error:
            raise NoPictureError(str(error)) from None
        path = folder / f"unit.{unit.codec}"
        path.write_bytes(unit.extradata + unit.data)
        return path

    def _note(self, event: Event) -> None:
        if isinstance(event, LeaseAcquired | LeaseReleased):
            self._leased.append(time.monotonic())

    def _cpu_s(self) -> float:
        return time.process_time() + _workers_s(self.capture.sessions, self.capture.decoders)

    async def close(self) -> None:
        await self.store.close(1.0)
        await self.capture.close()


def _workers_s(*pools: WorkerPool) -> float:
    workers = (Path(f"/proc/{pid}/schedstat").read_text() for pool in pools for pid in pool.pids)
    return sum(int(text.split()[0]) for text in workers) / 1e9


class Program:
    """A program that is started for each picture, and writes it to `target`."""

    def __init__(self, target: Path, *command: str) -> None:
        self._target = target
        self._command = command

    async def shot(self) -> Measured:
        self._target.unlink(missing_ok=True)
        began, started = time.time(), time.monotonic()
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - wait4(2) gives its CPU
                [*self._command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except FileNotFoundError:
            raise NoPictureError(f"{self._command[0]} is not there") from None
        waiting = asyncio.create_task(asyncio.to_thread(os.wait4, process.pid, 0))
        done, _ = await asyncio.wait({waiting}, timeout=NO_PICTURE_S)
        if not done:
            process.kill()
        _, status, usage = await waiting
        done_s = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise NoPictureError(f"{self._command[0]} ended with {process.returncode}")
        measured = Measured(0.0, done_s, usage.ru_utime + usage.ru_stime)
        return looked_at(measured, self._target, began)

    async def close(self) -> None:
        pass


def ffmpeg(url: str, target: Path, *options: str) -> Program:
    """`ffmpeg` as a command for one picture."""
    one = ("-frames:v", "1", *QUALITY, "-y", str(target))
    return Program(target, *FFMPEG, *options, "-i", url, *one)


def gst_launch(url: str, target: Path) -> Program:
    """`gst-launch-1.0` as a command for one picture."""
    words = f"{GST_LAUNCH} ! {GST_JPEG}".split()
    filled = (word.format(url=url, target=target) for word in words)
    return Program(target, "gst-launch-1.0", "-q", *filled)


class WarmPeer:
    """A program that runs all the time (warm_peer.py). It is started again when it hangs."""

    def __init__(self, kind: str, source: str, target: Path) -> None:
        self._kind = kind
        self._target = target
        self._request = json.dumps({"source": source, "target": str(target)}).encode() + b"\n"
        self._process: asyncio.subprocess.Process | None = None

    async def shot(self) -> Measured:
        if self._process is None:
            await self._start()
        self._target.unlink(missing_ok=True)
        began = time.time()
        answer = await self._answer(self._request)
        if "error" in answer:
            raise NoPictureError(f"{self._kind}: {answer['error']}")
        return looked_at(Measured(0.0, answer["done_s"], answer["cpu_s"]), self._target, began)

    async def _start(self) -> None:
        # Its memory allocator is set like that of our decoders
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(WARM_PEER), self._kind),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | ENVIRONMENT,
        )
        await self._answer(b"")

    async def _answer(self, request: bytes) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(request)
        try:
            async with asyncio.timeout(NO_PICTURE_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            await self.close()
            raise NoPictureError(f"{self._kind} hangs, or has ended, or is not there")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


def looked_at(measured: Measured, target: Path, began: float) -> Measured:
    """`measured`, with when the picture was written and how large it is.

    `began` is in seconds since 1970. Raises NoPictureError when the picture shows nothing.
    """
    if not target.exists() or not target.stat().st_size:
        raise NoPictureError("it wrote no picture")
    try:
        grey = simplejpeg.decode_jpeg(target.read_bytes(), "GRAY", min_factor=8, strict=False)
    except ValueError as error:
        raise NoPictureError(f"it wrote no JPEG: {error}") from None
    if float(grey.std()) < LEAST_CONTRAST:
        raise NoPictureError("the picture is grey")
    written = target.stat()
    # The clock of files is some milliseconds behind
    wall_s = min(max(0.0, written.st_mtime - began), measured.done_s)
    return replace(measured, wall_s=wall_s, kilobytes=written.st_size / 1000)


class LeastBytes:
    """Limit (a): bytes and round trips to the end of the first keyframe. It has no picture.

    There are servers that give nothing to a session that has not asked for the description.
    """

    def __init__(self, url: str, *, cold: bool) -> None:
        self._client = BareClient(url)
        self._cold = cold
        self.newest: Least | None = None

    async def shot(self) -> Measured:
        if self._cold:
            self._client.control = ""
        try:
            self.newest = await asyncio.to_thread(self._client.first_keyframe)
        except (OSError, ValueError) as error:
            raise NoPictureError(f"the bare client: {error}") from None
        return Measured(self.newest.wall_s, self.newest.wall_s)

    async def close(self) -> None:
        pass
