"""Habits of snapshot URLs of real cameras: what they answer to a GET that is allowed."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image


@dataclass(slots=True)
class Reply:
    """An answer as it goes out. `stays_open`: nothing follows, and the connection stays."""

    body: bytes
    status: str = "200 OK"
    kind: str = "image/jpeg"
    lines: tuple[str, ...] = ()
    length: str | None = None
    """The text of Content-Length. None: the right one. "": no such line."""
    stays_open: bool = False
    closes: bool = False

    def encode(self) -> bytes:
        """The bytes of the answer."""
        length = str(len(self.body)) if self.length is None else self.length
        lines = [f"HTTP/1.1 {self.status}", f"Content-Type: {self.kind}", *self.lines]
        lines += [f"Content-Length: {length}"] if length else []
        lines += ["Connection: close"] if self.closes else []
        return "\r\n".join([*lines, "", ""]).encode() + self.body


Habit = Callable[[bytes], Reply]
HABITS: dict[str, tuple[str, Habit]] = {
    "length-over": (
        "Content-Length is 48 too large (Dahua)",
        lambda jpeg: Reply(jpeg, length=str(len(jpeg) + 48), stays_open=True),
    ),
    "length-under": (
        "Content-Length is too small",
        lambda jpeg: Reply(jpeg, length=str(len(jpeg) // 2)),
    ),
    "length-twice": (
        "two values of Content-Length",
        lambda jpeg: Reply(jpeg, lines=("Content-Length: 7",)),
    ),
    "chunked-open": (
        "chunks without the last one",
        lambda jpeg: Reply(
            b"%x\r\n%s\r\n" % (len(jpeg), jpeg),
            lines=("Transfer-Encoding: chunked",),
            length="",
            stays_open=True,
        ),
    ),
    "open-end": (
        "neither a length nor an end",
        lambda jpeg: Reply(jpeg, length="", stays_open=True),
    ),
    "trailing": ("more bytes after the picture", lambda jpeg: Reply(jpeg + b"DHAV" + bytes(64))),
    "filled": ("0xFF after the picture", lambda jpeg: Reply(jpeg + b"\xff" * 64)),
    "blanks-first": ("line ends before the picture", lambda jpeg: Reply(b"\r\n\r\n" + jpeg)),
    "gzip": (
        "compresses, whatever is accepted",
        lambda jpeg: Reply(gzip.compress(jpeg, 1), lines=("Content-Encoding: gzip",)),
    ),
    "multipart": (
        "an endless multipart/x-mixed-replace",
        lambda jpeg: Reply(
            b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n",
            kind="multipart/x-mixed-replace; boundary=x",
            length="",
            stays_open=True,
        ),
    ),
    "nameless-line": (
        "a line without a name (GoAhead)",
        lambda jpeg: Reply(jpeg, lines=("Tue, 12 Jun 2012 01:56:34 GMT",)),
    ),
    "blank-before-colon": (
        "a blank before the colon",
        lambda jpeg: Reply(jpeg, lines=(f"Content-Length : {len(jpeg)}",), length=""),
    ),
    "long-header": (
        "9 kB of one header",
        lambda jpeg: Reply(jpeg, lines=("X-Info: " + "x" * 9000,)),
    ),
    "small": ("a quarter of the size", lambda jpeg: Reply(_small(jpeg))),
    "png": ("a PNG", lambda jpeg: Reply(_converted(jpeg, "PNG"), kind="image/png")),
    "webp": ("a WebP", lambda jpeg: Reply(_converted(jpeg, "WEBP"), kind="image/webp")),
    "bmp": ("a BMP", lambda jpeg: Reply(_converted(jpeg, "BMP"), kind="image/bmp")),
    "turned": ("an EXIF orientation", lambda jpeg: Reply(_turned(jpeg))),
    "odd-jfif": (
        "a JFIF version that libjpeg warns of",
        lambda jpeg: Reply(jpeg.replace(b"JFIF\0\1\1", b"JFIF\0\x09\x01", 1)),
    ),
    "json-login": (
        "200 with JSON that wants a login",
        lambda _: Reply(
            json.dumps({"result": -1, "detail": "please login first"}).encode(),
            kind="application/json",
        ),
    ),
    "html-login": (
        "200 with a page",
        lambda _: Reply(b"<html><title>Log in</title></html>", kind="text/html"),
    ),
    "cut": ("half a picture", lambda jpeg: Reply(jpeg[: len(jpeg) // 2])),
    "busy": (
        "503 without a time",
        lambda _: Reply(b"Device Busy", "503 Service Unavailable", "text/plain"),
    ),
}
"""Habits of answers to a GET that is allowed, by name: what it is for a person, and the answer."""
OTHER_HABITS = {
    "redirect": "302 to another path of the same host",
    "redirect-away": "302 to another host",
    "busy-once": "503 with Retry-After: 1, once",
    "silent": "takes the request, and never answers",
    "echo": "200 with a text that repeats the login",
    "frozen": "its first picture again and again",
    "short-401": "a 401 whose body is shorter than its Content-Length",
}


def _converted(jpeg: bytes, kind: str) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as image:
        image.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def _small(jpeg: bytes) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as image:
        image.resize((image.width // 4, image.height // 4)).save(file, "JPEG")
    return file.getvalue()


def _turned(jpeg: bytes) -> bytes:
    """The picture with an EXIF orientation of 6: turn it clockwise to show it."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(file, "JPEG", exif=exif, quality="keep")
    return file.getvalue()
