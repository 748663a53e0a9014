"""One RTSP session through libav, inside a worker: open, first keyframe, close.

It gives the access unit and decodes nothing.

Measured with PyAV 18 and libav 62: default probing waits up to 5 s and decodes meanwhile. So the
probe is as small as libav allows. Only the codec's name and the first keyframe packet are needed,
and both come without probing.

All texts of FFmpegError contain the URL with the password, and the classes mislead. So errors are
classified first by the clock, then by the status line that libav logged, then by class. Only our
own texts leave this module.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import av
import av.logging
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd, Step
from camserver.rtsp.refusals import refusal
from camserver.workers.pool import EXPEDITE

PROBES = {
    "small": {"probesize": "32", "analyzeduration": "0"},
    "large": {"probesize": "500000", "analyzeduration": "1000000"},
}
AGAIN_S = 0.05
MAX_ACCESS_UNIT_BYTES = 32 * 1024 * 1024
MAX_DESCRIPTORS = 64
"""A worker has its pipes and the sockets of one session."""
# libavformat/rtsp.c
_STATUS = re.compile(r"method (OPTIONS|DESCRIBE|SETUP|PLAY|TEARDOWN) failed: (\d{3})")
_LOSS = re.compile(
    r"bad cseq|missed \d+ packets|dropping old packet|max delay reached", re.IGNORECASE
)  # rtpdec.c


@dataclass(frozen=True, slots=True)
class Order:
    """What to fetch.

    `deadline` is a moment of the host's monotonic clock. `url` is the relay's, without credentials.
    """

    url: str
    transport: str
    deadline: float
    timeout_s: float
    probe: str


def fetch_job(request: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
    """Run the job `fetch`. The reply's blob is extradata, then the access unit."""
    order = Order(
        request["url"],
        request["transport"],
        request["deadline"],
        max(0.1, request["deadline"] - time.monotonic()),
        request["probe"],
    )
    av.logging.set_level(av.logging.WARNING)
    # A camera's second refusal has the same text as the first. It must not be skipped.
    av.logging.set_skip_repeated(False)
    with av.logging.Capture(local=True) as lines, _deaf_from(order.deadline):
        container, probe = _open(order, lines)
        try:
            codec, extradata, data, at = _first_key_packet(container, order, lines)
        finally:
            container.close()
    return {
        "codec": codec,
        "extradata_bytes": len(extradata),
        "at": at,
        "probe": probe,
    }, extradata + data


@contextmanager
def _deaf_from(deadline: float) -> Iterator[None]:
    """End the reading side of libav's socket at the deadline. Then libav stops waiting.

    libav's own time limits are for each phase, not for the job. EXPEDITE, the daemon's signal to
    end the job, has the same effect. The daemon's relay tears down the session.
    """
    over = threading.Event()
    # One thread waits for the signal. libav's C code does not block it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {EXPEDITE})
    while signal.sigtimedwait({EXPEDITE}, 0) is not None:
        pass  # this signal was for the job before, and came too late for it

    def wait() -> None:
        signal.sigtimedwait({EXPEDITE}, max(0.0, deadline - time.monotonic()))
        if over.is_set():
            return
        while True:  # repeated, because there may be no connection yet
            for connection in _connections():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            if over.wait(AGAIN_S):
                return

    waiting = threading.Thread(target=wait, name="deadline", daemon=True)
    waiting.start()
    try:
        yield
    finally:
        over.set()
        if waiting.is_alive() and waiting.ident is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(waiting.ident, EXPEDITE)
        waiting.join()


def _connections() -> Iterator[socket.socket]:
    """A duplicate of the session's TCP socket. A worker has no TCP socket but libav's.

    The worker may not read /proc.
    """
    for number in range(3, MAX_DESCRIPTORS):
        try:
            duplicate = os.dup(number)
        except OSError:
            continue
        if not stat.S_ISSOCK(os.fstat(duplicate).st_mode):
            os.close(duplicate)
            continue
        with socket.socket(fileno=duplicate) as s:
            if s.family in (socket.AF_INET, socket.AF_INET6) and s.type == socket.SOCK_STREAM:
                yield s


def _ended() -> bool:
    """Whether the camera has closed the connection and all that it sent is read."""
    for connection in _connections():
        try:
            return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def _open(order: Order, lines: list[tuple[int, str, str]]) -> tuple[InputContainer, str]:
    left_s = max(0.1, order.deadline - time.monotonic())
    options = {
        "rtsp_transport": order.transport,
        "allowed_media_types": "video",
        "skip_frame": "all",  # no decoding while probing
        **PROBES[order.probe],
    }
    try:
        # PyAV restarts this timeout for each phase. Only connect(2) needs it. The other phases are
        # ended in time by _deaf_from.
        container = av.open(order.url, options=options, timeout=left_s + 0.05)
    except (FFmpegError, OSError, ValueError) as error:
        raise _explain(error, order, lines) from None
    if not container.streams.video or not container.streams.video[0].codec_context:
        container.close()
        if order.probe == "small":
            return _open(replace(order, probe="large"), lines)
        raise CameraError(
            Result.ERROR, "the camera offers no video that libav knows", SessionEnd.CLEAN
        )
    return container, order.probe


def _first_key_packet(
    container: InputContainer,
    order: Order,
    lines: list[tuple[int, str, str]],
) -> tuple[str, bytes, bytes, float]:
    stream = container.streams.video[0]
    codec = stream.codec_context.name
    packets = lost = seen_lines = 0  # lines logged while opening belong to the first packet
    hole = False
    try:
        for packet in container.demux(stream):
            if time.monotonic() >= order.deadline:
                break
            if packet.size == 0:
                if _ended():
                    raise CameraError(
                        Result.UNREACHABLE,
                        "the camera closed the connection before a whole keyframe came",
                    )
                continue  # the rest of a picture without usable data
            packets += 1
            # A gap between two pictures is logged with the first picture. But the beginning of the
            # second picture may be what is missing.
            before, hole = hole, any(_LOSS.search(text) for _, _, text in lines[seen_lines:])
            # After the end of the connection a keyframe packet may be incomplete
            torn = before or hole or packet.is_corrupt or (packet.is_keyframe and _ended())
            seen_lines = len(lines)
            lost += torn
            if packet.is_keyframe and not torn:
                if packet.size > MAX_ACCESS_UNIT_BYTES:
                    raise CameraError(
                        Result.BAD_PICTURE, f"a keyframe of {packet.size} bytes is no camera's"
                    )
                return (
                    codec,
                    bytes(stream.codec_context.extradata or b""),
                    bytes(packet),
                    time.time(),
                )
    except (FFmpegError, OSError, ValueError) as error:
        if _late(order) or packets == 0:
            raise _silence(packets, lost, order) from None
        raise _explain(error, order, lines) from None
    raise _silence(packets, lost, order)


def _silence(packets: int, lost: int, order: Order) -> CameraError:
    if packets == 0:
        return CameraError(
            Result.TIMEOUT, f"silent after PLAY, no picture within {order.timeout_s:.1f} s"
        )
    if lost:
        return CameraError(
            Result.BAD_PICTURE,
            f"RTP packets were lost in every keyframe within {order.timeout_s:.1f} s",
        )
    return CameraError(
        Result.NO_KEYFRAME, f"{packets} pictures but no keyframe within {order.timeout_s:.1f} s"
    )


def _late(order: Order) -> bool:
    return time.monotonic() >= order.deadline - 0.05 * order.timeout_s


def _explain(error: Exception, order: Order, lines: list[tuple[int, str, str]]) -> CameraError:
    """A CameraError with our own text for a failure of libav.

    The clock is checked first, then the camera's status line, then the class.
    """
    if _late(order):
        return CameraError(Result.TIMEOUT, f"no answer within {order.timeout_s:.1f} s")
    statuses = [m for _, _, text in lines if (m := _STATUS.search(text))]
    refused = next(
        (m for m in reversed(statuses) if m[2] != "401"), statuses[-1] if statuses else None
    )
    if refused:
        error_ = refusal(Step(refused[1]), int(refused[2]))
        if refused[1] == Step.PLAY:  # SETUP had made a session, libav has sent TEARDOWN
            error_.end = SessionEnd.CLEAN
        return error_
    if isinstance(error, ConnectionRefusedError):
        return CameraError(
            Result.UNREACHABLE, "connection refused: nothing listens there", SessionEnd.NONE
        )
    # An errno of the host
    if isinstance(error, OSError) and error.errno is not None and 0 < error.errno < 200:
        end = SessionEnd.NONE if error.errno in _NEVER_CONNECTED else SessionEnd.UNCLEAN
        return CameraError(
            Result.UNREACHABLE, f"connection failed: {os.strerror(error.errno)}", end
        )
    # Probing got the rest of a picture. A reset at SETUP looks the same.
    if isinstance(error, InvalidDataError):
        return CameraError(
            Result.UNREACHABLE, "the camera ended the connection, or what came first is damaged"
        )
    return CameraError(
        Result.UNREACHABLE, f"the camera ended the connection ({type(error).__name__})"
    )


_NEVER_CONNECTED = {110, 111, 113, 101}  # timed out, refused, no route, network unreachable
