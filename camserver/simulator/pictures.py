"""Test pictures with a camera's name and a running clock, cheap enough for a thousand cameras.

This module contains the encoders.

A picture has four slices: bars, name, clock, bars. The slices of one picture may come from
different runs of an encoder if deblocking across slices is off. So the bars are encoded once, a
name once for each camera, and the clock once a second for all cameras. Pictures between keyframes
have "nothing changed" slices. They are encoded once from flat grey, and are valid after any such
keyframe.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
import numpy as np
import simplejpeg
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from PIL import Image, ImageDraw, ImageFont

from camserver.rtsp.bitstream import split_annex_b
from camserver.rtsp.rtp import h264_payloads, h265_payloads, jpeg_payloads

SLICES = 4
NAME_SLICE, CLOCK_SLICE = 1, 2
MAX_GOP = 100
_BARS = (
    (180, 128, 128),
    (168, 86, 132),
    (145, 137, 86),
    (133, 95, 90),
    (63, 160, 166),
    (51, 118, 170),
    (28, 170, 124),
)
"""75 % bars at half saturation, as (Y, U, V).

4:2:0 and JPEG can keep their edges, so a picture can be compared with its source.
"""
_X264 = (
    "slices=4:sliced-threads=0:threads=1:no-deblock=1:keyint=250:scenecut=0:qp=22:repeat-headers=1"
    ":no-cabac=1:bframes=0"
)
_X265 = (
    "slices=4:pools=2:frame-threads=1:wpp=1:no-deblock=1:no-sao=1:keyint=250:scenecut=0:qp=22:"
    "repeat-headers=1:ctu=16:"
    "log-level=none:no-info=1:no-open-gop=1:bframes=0"
)
ENCODERS = {"h264": ("libx264", "x264-params", _X264), "h265": ("libx265", "x265-params", _X265)}

Planes = np.ndarray[Any, np.dtype[np.uint8]]
"""A yuv420p picture, BT.709 limited range, in PyAV's layout. Shape: (3/2 height, width)."""


@dataclass(slots=True, eq=False)
class Pictures:
    """Coded and packetised pictures of one codec and size, shared by all cameras that use them."""

    codec: str
    width: int
    height: int
    _heads: list[bytes] = field(default_factory=list)
    _bars: list[bytes] = field(default_factory=list)
    _skips: list[list[bytes]] = field(default_factory=list)
    _names: dict[str, bytes] = field(default_factory=dict)
    _clock: tuple[int, bytes] = (-1, b"")

    def __post_init__(self) -> None:
        if self.codec == "mjpeg":
            return
        self._heads, self._bars = self._split(self._encode([self.draw("", None)])[0])
        grey = np.full((self.height * 3 // 2, self.width), 128, np.uint8)
        self._skips = [
            self._packetise(split_annex_b(unit)) for unit in self._encode([grey] * MAX_GOP)[1:]
        ]

    @property
    def parameter_sets(self) -> list[bytes]:
        """SPS and PPS for the SDP, with H.265 also VPS. Empty for MJPEG."""
        return self._heads

    def keyframe(self, name: str, second: int) -> list[bytes]:
        """The NAL units of a whole keyframe that shows `name` and the time.

        `second` is the time in seconds since 1970.
        """
        if name not in self._names:
            self._names[name] = self._split(self._encode([self.draw(name, None)])[0])[1][NAME_SLICE]
        if self._clock[0] != second:
            self._clock = (
                second,
                self._split(self._encode([self.draw("", second)])[0])[1][CLOCK_SLICE],
            )
        slices = list(self._bars)
        slices[NAME_SLICE], slices[CLOCK_SLICE] = self._names[name], self._clock[1]
        return [*self._heads, *slices]

    def jpeg(self, name: str, second: int) -> bytes:
        """A JFIF file of the same picture."""
        frame = VideoFrame.from_ndarray(self.draw(name, second), "yuv420p")
        rgb = frame.to_ndarray(
            format="rgb24", src_colorspace="ITU709", src_color_range="MPEG", dst_color_range="JPEG"
        )
        jpeg: bytes = simplejpeg.encode_jpeg(rgb, quality=85, colorsubsampling="420")
        return jpeg

    def payloads(self, name: str, index: int, second: int) -> list[bytes]:
        """The RTP payloads of picture number `index` in a group that began at `second`.

        The first one is the keyframe. The others say "nothing changed".
        """
        if self.codec == "mjpeg":
            return _jpeg_payloads(self, name, second)
        return (
            self._packetise(self.keyframe(name, second)) if index == 0 else self._skips[index - 1]
        )

    def sent(self, name: str, second: int) -> bytes:
        """The coded keyframe, Annex B or a JFIF file. A picture is compared with it."""
        if self.codec == "mjpeg":
            return self.jpeg(name, second)
        return b"".join(b"\0\0\0\1" + nal for nal in self.keyframe(name, second))

    def draw(self, name: str, second: int | None) -> Planes:
        """The picture itself: bars, the name in the second quarter, the clock in the third."""
        y = np.empty((self.height, self.width), np.uint8)
        u, v = (np.empty((self.height // 2, self.width // 2), np.uint8) for _ in range(2))
        for plane, channel in ((y, 0), (u, 1), (v, 2)):
            edges = np.linspace(0, plane.shape[1], len(_BARS) + 1).astype(int)
            for bar, left, right in zip(_BARS, edges, edges[1:], strict=False):
                plane[:, left:right] = bar[channel]
        clock = "" if second is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))
        for text, quarter in ((name, NAME_SLICE), (clock, CLOCK_SLICE)):
            self._write(y, u, v, text, quarter)
        return np.concatenate((y.ravel(), u.ravel(), v.ravel())).reshape(
            self.height * 3 // 2, self.width
        )

    def _write(self, y: Planes, u: Planes, v: Planes, text: str, quarter: int) -> None:
        rows = -(-self.height // 16)  # rows of coding blocks; the text must stay inside its slice
        top = (-(-rows * quarter // SLICES) + 1) * 16
        bottom = (rows * (quarter + 1) // SLICES - 1) * 16
        image = Image.new("L", (self.width, bottom - top), 24)
        draw = ImageDraw.Draw(image)
        size = bottom - top
        while size > 8 and draw.textlength(text, font=_font(size)) > self.width * 0.95:
            size -= 2
        draw.text(
            (self.width / 2, (bottom - top) / 2), text, fill=230, font=_font(size), anchor="mm"
        )
        y[top:bottom] = np.asarray(image)
        u[top // 2 : bottom // 2] = v[top // 2 : bottom // 2] = 128

    def _encode(self, pictures: list[Planes]) -> list[bytes]:
        encoder, key, options = ENCODERS[self.codec]
        context = av.CodecContext.create(encoder, "w")
        assert isinstance(context, VideoCodecContext)  # noqa: S101 - both are video encoders
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 10), Fraction(10, 1)
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = (
            1,
            1,
            1,
            1,
        )
        context.options = {"preset": "ultrafast", "tune": "zerolatency", key: options}
        units = []
        for number, picture in enumerate(pictures):
            frame = VideoFrame.from_ndarray(picture, "yuv420p")
            frame.pts = number
            units += [bytes(packet) for packet in context.encode(frame)]
        return units + [bytes(packet) for packet in context.encode(None)]

    def _packetise(self, nals: list[bytes]) -> list[bytes]:
        return list((h264_payloads if self.codec == "h264" else h265_payloads)(nals))

    def _kind(self, nal: bytes) -> int:
        return nal[0] & 0x1F if self.codec == "h264" else (nal[0] >> 1) & 0x3F

    def _split(self, unit: bytes) -> tuple[list[bytes], list[bytes]]:
        """(parameter sets, slices) of a keyframe. SEI messages are left out."""
        nals = split_annex_b(unit)
        slices = [
            n for n in nals if (self._kind(n) == 5 if self.codec == "h264" else self._kind(n) < 32)
        ]
        heads = [
            n for n in nals if self._kind(n) in ((7, 8) if self.codec == "h264" else (32, 33, 34))
        ]
        if len(slices) != SLICES:
            raise ValueError(f"the encoder made {len(slices)} slices instead of {SLICES}")
        return heads, slices


@lru_cache(maxsize=256)
def _jpeg_payloads(pictures: Pictures, name: str, second: int) -> list[bytes]:
    return list(jpeg_payloads(pictures.jpeg(name, second)))


@lru_cache(maxsize=64)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
