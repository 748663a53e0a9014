"""Convert an access unit to a JPEG, inside a worker.

This module imports libav and libjpeg. The daemon must never import it.

These pictures are refused: a frame that libav marks as corrupt, a bitstream in which libav finds an
error, an H.265 slice that does not end with its data, and a JPEG that is not whole.

Colours: JFIF means full range and BT.601. PyAV's defaults do not convert BT.709 (25 dB to the
source instead of 37 dB). So the source and the destination of the conversion are both set.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, fields
from typing import Any

import av
import numpy as np
import simplejpeg
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from camserver.capture import slice_ends
from camserver.capture.look import look_at
from camserver.errors import CameraError
from camserver.jpeg_file import exif_segment, whole_jpeg, without_comments
from camserver.model import CELLS_BYTES, References, Result, SessionEnd, Still

MAX_PIXELS = 16384 * 8192
"""No camera sends a larger picture. The worker's memory limit is the second protection."""
AV_CS_BT709, AV_CS_UNSPECIFIED, AV_CS_FCC, AV_CS_BT470BG, AV_CS_SMPTE170M, AV_CS_SMPTE240M = (
    1,
    2,
    4,
    5,
    6,
    7,
)
AV_CS_BT2020 = 9
STILL_CODECS = ("png", "webp", "bmp")
"""What snapshot URLs give besides JPEG."""
_SWS_MATRIX = {  # libavutil's AVColorSpace -> libswscale's matrix
    AV_CS_BT709: Colorspace.ITU709,
    AV_CS_FCC: Colorspace.FCC,
    AV_CS_BT470BG: Colorspace.ITU624,
    AV_CS_SMPTE170M: Colorspace.SMPTE170M,
    AV_CS_SMPTE240M: Colorspace.SMPTE240M,
    AV_CS_BT2020: Colorspace.BT2020,
}


def decode(
    codec: str,
    data: bytes,
    extradata: bytes,
    *,
    width: int | None,
    quality: int,
    references: References | None = None,
) -> Still:
    """Decode one access unit and encode it as JPEG, at most `width` pixels wide.

    `references` None: what the picture looks like is not measured (look.py).

    Raises CameraError(bad-picture) when the picture is not whole.
    """
    started = time.perf_counter()
    frame = _decode_frame(codec, data, extradata)
    if codec == "hevc" and not slice_ends.end_with_their_data(
        data, _planes(frame), lambda d: _planes_of(codec, d, extradata)
    ):
        raise _bad("the keyframe is damaged: a slice does not end where its data ends")
    decoded = time.perf_counter()
    picture = _encode(frame, width, quality)
    encoded = time.perf_counter()
    look = None
    if references is not None:
        look = look_at(picture.planes[0], tuple(picture.planes[1:]), data, references)
    return Still(
        picture.jpeg,
        picture.width,
        picture.height,
        codec,
        decoded - started,
        encoded - decoded,
        look=look,
    )


def inspect(
    data: bytes, *, width: int | None, quality: int, references: References | None = None
) -> Still:
    """Check that a camera's JPEG is whole, and return it.

    It is scaled down if `width` is smaller. `references` is as for `decode`.

    Raises CameraError(bad-picture) when it is not a whole JPEG.
    """
    if not data.startswith(b"\xff\xd8"):
        raise _bad("what came is no JPEG")
    jpeg = whole_jpeg(data)  # RTP payloads may be padded
    if jpeg is None:
        raise _bad("the JPEG is not whole")
    try:
        height, full_width, *_ = simplejpeg.decode_jpeg_header(jpeg, strict=False)
        _check_size(full_width, height)
        readable, small = _readable(jpeg)
        look = None if references is None else look_at(small[:, :, 0], (), data, references)
        if width is None or width >= full_width:
            return Still(jpeg, full_width, height, "mjpeg", look=look)
        rgb = simplejpeg.decode_jpeg(readable, "RGB", min_width=width)
    except ValueError:
        raise _bad("the JPEG is damaged") from None
    scaled = _encode(VideoFrame.from_ndarray(rgb, "rgb24"), width, quality)
    with_orientation = scaled.jpeg[:2] + exif_segment(jpeg) + scaled.jpeg[2:]
    return Still(with_orientation, scaled.width, scaled.height, "mjpeg", look=look)


def _readable(jpeg: bytes) -> tuple[bytes, np.ndarray[Any, np.dtype[np.uint8]]]:
    """A whole JPEG as libjpeg reads it without a warning, and its grey picture at 1/8 size.

    The shape of the grey picture is (height, width, 1). Raises ValueError when it is damaged.

    Decoding at 1/8 size still reads all entropy-coded data. simplejpeg is strict by default: it
    raises where libjpeg only warns. A warning of what comes before the first scan is no damage.
    """
    try:
        small = simplejpeg.decode_jpeg(jpeg, "GRAY", min_factor=8, fastdct=True)
    except ValueError:
        jpeg = without_comments(jpeg)
        small = simplejpeg.decode_jpeg(jpeg, "GRAY", min_factor=8, fastdct=True)
    return jpeg, small


def decode_job(request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Run the job `decode`. The blob is extradata, the references, then the access unit."""
    cut, cpu_s = int(request["extradata_bytes"]), time.process_time()
    references, data = _split(request, blob[cut:])
    still = decode(
        request["codec"],
        data,
        blob[:cut],
        width=request["width"],
        quality=request["quality"],
        references=references,
    )
    return _reply(still, time.process_time() - cpu_s)


def inspect_job(request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Run the job `inspect`. The blob is the references, then a JPEG."""
    cpu_s = time.process_time()
    references, data = _split(request, blob)
    still = inspect(data, width=request["width"], quality=request["quality"], references=references)
    return _reply(still, time.process_time() - cpu_s)


def _split(request: dict[str, Any], blob: bytes) -> tuple[References | None, bytes]:
    """(the references, or None when nothing is to be measured; the rest of the blob)."""
    if "scenes" not in request:
        return None, blob
    cut, count = int(request["previous_bytes"]), int(request["scenes"])
    scenes = tuple(
        blob[at : at + CELLS_BYTES] for at in range(cut, cut + count * CELLS_BYTES, CELLS_BYTES)
    )
    return References(blob[:cut], scenes), blob[cut + count * CELLS_BYTES :]


def warm_up() -> None:
    """Use each function once, so that no file has to be opened or loaded after the seal."""
    for codec in ("h264", "hevc", *STILL_CODECS):
        with contextlib.suppress(CameraError):
            _decode_frame(codec, b"\0\0\0\1", b"")
    picture = _encode(VideoFrame(64, 64, "yuv420p"), 32, 80)
    cells = bytes(CELLS_BYTES)
    inspect(picture.jpeg, width=16, quality=80, references=References(cells, (cells,)))


def _reply(still: Still, cpu_s: float) -> tuple[dict[str, Any], bytes]:
    reply = {
        "width": still.width,
        "height": still.height,
        "codec": still.codec,
        "decode_s": still.decode_s,
        "encode_s": still.encode_s,
        "cpu_s": cpu_s,
    }
    look = still.look
    if look is None:
        return reply, still.jpeg
    facts = {field.name: getattr(look, field.name) for field in fields(look)}
    return {**reply, "look": facts | {"cells": None}}, look.cells + still.jpeg


def _decode_frame(codec: str, data: bytes, extradata: bytes) -> VideoFrame:
    try:
        context = av.CodecContext.create(codec, "r")
        if not isinstance(context, VideoCodecContext):
            raise _bad(f"{codec} is no video codec")
        context.thread_count = 1
        context.options = {"err_detect": "explode"}
        if extradata:
            context.extradata = extradata
        context.skip_frame = "NONKEY"
        frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    except MemoryError:
        raise
    except (FFmpegError, ValueError) as error:
        raise _bad(f"the keyframe is damaged ({type(error).__name__})") from None
    frame = next((f for f in frames if isinstance(f, VideoFrame)), None)
    if frame is None:
        raise _bad("the keyframe gives no picture")
    if frame.is_corrupt:
        raise _bad("the keyframe is damaged")
    _check_size(frame.width, frame.height)
    return frame


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A JPEG, and the planes it was made of: full-range luma, then chroma at half the size."""

    jpeg: bytes
    width: int
    height: int
    planes: list[np.ndarray[Any, np.dtype[np.uint8]]]


def _encode(frame: VideoFrame, width: int | None, quality: int) -> _Encoded:
    out_width, out_height = frame.width, frame.height
    if width is not None and width < frame.width:
        out_width, out_height = width, max(1, round(frame.height * width / frame.width))
    is_rgb = frame.format.name.startswith(("rgb", "bgr", "gbr"))
    is_rgb |= frame.format.name.startswith(("gray", "ya", "pal", "mono"))  # of PNG and BMP
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj") or is_rgb
    planar = frame.reformat(
        out_width,
        out_height,
        "yuv420p",
        src_colorspace=_matrix(frame),
        dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        # At the same size the picture must not be smoothed. POINT is nearer to the source than
        # BICUBIC (38.8 dB against 38.1 on colour bars, 33.0 against 32.1 on testsrc2) and takes a
        # third of its time (5 ms against 15 for 1080p).
        interpolation=Interpolation.AREA if out_width < frame.width else Interpolation.POINT,
        # There are as many workers as cores. Also, a sealed worker cannot start threads.
        threads=1,
    )
    planes = [_pixels(plane) for plane in planar.planes]
    jpeg: bytes = simplejpeg.encode_jpeg_yuv_planes(*planes, quality=quality)
    return _Encoded(jpeg, out_width, out_height, planes)


def _planes(frame: VideoFrame) -> slice_ends.Planes:
    """The planes as arrays of samples, to compare them. A sample over 8 bits takes two bytes."""
    sample = np.dtype(np.uint16 if frame.format.components[0].bits > 8 else np.uint8)
    return [
        np.frombuffer(memoryview(plane), sample).reshape(
            plane.height, plane.line_size // sample.itemsize
        )[:, : plane.width]
        for plane in frame.planes
    ]


def _planes_of(codec: str, data: bytes, extradata: bytes) -> slice_ends.Planes | None:
    try:
        return _planes(_decode_frame(codec, data, extradata))
    except CameraError:
        return None


def _pixels(plane: VideoPlane) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A plane as rows of bytes, without libav's padding at the end of each row."""
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return np.ascontiguousarray(rows[:, : plane.width])


def _matrix(frame: VideoFrame) -> Colorspace:
    """The colour matrix of the stream.

    If the stream names none: BT.709 for HD, BT.601 for smaller pictures. Players (mpv) do the same.
    """
    if frame.colorspace in _SWS_MATRIX:
        return _SWS_MATRIX[frame.colorspace]
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _bad(f"{width}x{height} pixels are more than the {MAX_PIXELS} camserver accepts")


def _bad(message: str) -> CameraError:
    return CameraError(Result.BAD_PICTURE, message, SessionEnd.CLEAN)
