"""Sequences of pictures as a camera would send them: real and drawn scenes, and what befalls them.

A picture is an array of the shape (height, width, 3), RGB. The real scene is a surveillance clip of
Debian's package opencv-doc (`make footage` gets it).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CLIP = Path(__file__).parents[1] / ".footage" / "vtest.avi"
WIDTH, HEIGHT = 768, 576
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Scene = Callable[[int], Pixels]
"""Gives the picture with a number."""
Effect = Callable[[Pixels, int], Pixels]
"""Changes the picture with a number."""


# ---- scenes


@cache
def _clip() -> tuple[Pixels, ...]:
    with av.open(str(CLIP)) as container:
        frames = [
            np.asarray(frame.to_image())
            for number, frame in enumerate(container.decode(video=0))
            if number % 10 == 0
        ]
    return tuple(frames)


def clip(number: int) -> Pixels:
    """People cross a place: the real clip, one picture a second, over and over."""
    return _clip()[number % len(_clip())]


def _drawn(seed: int) -> Pixels:
    """A drawn place of walls, windows and ground, with texture."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (WIDTH, HEIGHT), (120, 150, 190))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 330, WIDTH, HEIGHT), fill=(95, 105, 85))
    for _ in range(14):
        x, y = int(random.integers(0, WIDTH - 60)), int(random.integers(60, 400))
        w, h = int(random.integers(40, 200)), int(random.integers(40, 180))
        wall = [int(value) for value in random.integers(40, 210, 3)]
        draw.rectangle((x, y, x + w, y + h), fill=tuple(wall))
        for window in range(x + 8, x + w - 14, 26):
            draw.rectangle((window, y + 10, window + 12, y + 26), fill=(30, 34, 44))
    texture = random.normal(0, 6, (HEIGHT, WIDTH, 1))
    return _clipped(np.asarray(image) + texture)


@cache
def _place(seed: int) -> Pixels:
    return _drawn(seed)


def yard(number: int) -> Pixels:
    """A drawn yard, through which something drives now and then."""
    picture = _place(1)
    if number % 7 < 2:
        picture, x = picture.copy(), (number * 97) % (WIDTH - 140)
        picture[400:470, x : x + 140] = (170, 40, 40)
    return picture


def warehouse(_: int) -> Pixels:
    """A drawn warehouse in which nothing ever moves."""
    return _place(2)


def elsewhere(_: int) -> Pixels:
    """Another place."""
    return _place(3)


SCENES: dict[str, Scene] = {"clip": clip, "yard": yard, "warehouse": warehouse}


# ---- what befalls them


def _clipped(picture: Any) -> Pixels:
    return np.clip(picture, 0, 255).astype(np.uint8)


def defocus(radius: float) -> Effect:
    """Out of focus, by so many pixels."""
    return lambda picture, _: np.asarray(
        Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius))
    )


def gain(factor: float, offset: float = 0.0) -> Effect:
    """Lighter or darker."""
    return lambda picture, _: _clipped(picture * factor + offset)


def dusk(pictures: int, darkest: float) -> Effect:
    """It gets dark, slowly: after so many pictures only this share of the light is left."""

    def effect(picture: Pixels, number: int) -> Pixels:
        left = 1 - (1 - darkest) * min(1.0, number / pictures)
        return _clipped(255 * (picture / 255.0) ** (1 + (1 - left) * 0.8) * left)

    return effect


def infrared(picture: Pixels, _: int) -> Pixels:
    """Grey, and lit by the camera: bright in the middle."""
    grey = picture.mean(axis=2, keepdims=True)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    away = np.hypot((x - WIDTH / 2) / WIDTH, (y - HEIGHT / 2) / HEIGHT)[..., None]
    return _clipped(np.repeat(grey * (1.15 - 1.1 * away), 3, axis=2))


def fog(density: float) -> Effect:
    """Fog, denser above."""
    share = np.clip(density * np.linspace(1.2, 0.6, HEIGHT), 0, 0.95)[:, None, None]
    return lambda picture, _: _clipped(picture * (1 - share) + 190 * share)


def snow(picture: Pixels, number: int) -> Pixels:
    """Snow lies and falls."""
    random = np.random.default_rng(number)
    white = picture.astype(np.float32)
    white[300:] = white[300:] * 0.35 + 150
    for x, y in random.integers((0, 0), (WIDTH - 4, HEIGHT - 4), (400, 2)):
        white[y : y + 4, x : x + 3] = 245
    return _clipped(white)


def rain(picture: Pixels, number: int) -> Pixels:
    """Rain: streaks, and less contrast."""
    random = np.random.default_rng(number)
    wet = picture * 0.8 + 20
    for x, y in random.integers((0, 0), (WIDTH - 2, HEIGHT - 30), (250, 2)):
        wet[y : y + 28, x] += 35
    return _clipped(wet)


def truck(share: float) -> Effect:
    """Something large stands in front of this share of the picture's width."""

    def effect(picture: Pixels, _: int) -> Pixels:
        hidden, to = picture.copy(), int(WIDTH * share)
        hidden[80:, :to] = (150, 150, 160)
        hidden[300:310, :to] = (90, 20, 20)
        return hidden

    return effect


def cloth(level: float) -> Effect:
    """Something lies on the lens: a soft grey, of this level."""
    soft = np.linspace(level - 10, level + 10, WIDTH)[None, :, None]
    return lambda picture, _: _clipped(np.broadcast_to(soft, picture.shape))


def spray(strength: float) -> Effect:
    """Paint on the lens: nearly nothing of the scene is left."""

    def effect(picture: Pixels, _: int) -> Pixels:
        soft = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(40)))
        return _clipped(soft * (1 - strength) + 110 * strength)

    return effect


def pan(pixels: int) -> Effect:
    """The camera was turned by so many pixels."""
    return lambda picture, _: np.roll(picture, pixels, axis=1)


def other(_: Pixels, number: int) -> Pixels:
    """The camera shows another place."""
    return elsewhere(number)


def noise(levels: float) -> Effect:
    """The sensor's noise."""

    def effect(picture: Pixels, number: int) -> Pixels:
        random = np.random.default_rng(number)
        return _clipped(picture + random.normal(0, levels, picture.shape[:2])[..., None])

    return effect


def overlay(text: str) -> Effect:
    """A line of text in a corner, as cameras write their clock."""
    font = ImageFont.load_default(22)

    def effect(picture: Pixels, _: int) -> Pixels:
        image = Image.fromarray(picture)
        ImageDraw.Draw(image).text((8, 8), text, fill=(255, 255, 255), font=font)
        return np.asarray(image)

    return effect


# ---- as it is sent


def keyframe(picture: Pixels, crf: int = 25) -> bytes:
    """A picture as an H.264 keyframe with its parameter sets."""
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
    context.time_base = Fraction(1, 25)
    context.thread_count = 1
    context.options = {"preset": "ultrafast", "crf": str(crf), "tune": "zerolatency"}
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
    return b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))
