"""Films as cameras send them, made by ffmpeg's encoders: noisy, 4 Mbit/s, 25 pictures a second."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

FPS = 25
SECONDS = 8
BITS_A_SECOND, STEADY_BITS = "4M", "1M"
ENCODERS = {
    "h264": ("libx264", ()),
    "h265": ("libx265", ("-x265-params", "log-level=none")),
}
SIZES = {"1080p": "1920x1080", "4K": "3840x2160"}


@dataclass(frozen=True, slots=True)
class Film:
    """What is encoded. `gop_s` is the time between two keyframes in seconds."""

    codec: str = "h264"
    size: str = "1080p"
    gop_s: int = 1
    bare: bool = False
    """An elementary stream with B-pictures and without timestamps: the worst case for probing."""

    steady: bool = False
    """All keyframes are about as large, as those of cameras. Else the first one is much larger."""

    @property
    def name(self) -> str:
        kind = "-bare" * self.bare + "-steady" * self.steady
        return f"{self.codec}-{self.size}-{self.gop_s}s{kind}"


def encode(film: Film, folder: Path) -> Path:
    """The file of a film in `folder`. It is made when it is not there."""
    encoder, options = ENCODERS[film.codec]
    suffix = {"h264": ".264", "h265": ".265"}[film.codec] if film.bare else ".mp4"
    path = folder / (film.name + suffix)
    if not path.exists():
        source = f"testsrc2=s={SIZES[film.size]}:r={FPS}"
        noise = "noise=alls=12:allf=t,format=yuv420p"
        gop = str(film.gop_s * FPS)
        command = [
            *("ffmpeg", "-nostdin", "-loglevel", "error", "-y"),
            *("-f", "lavfi", "-i", source, "-t", str(SECONDS), "-vf", noise),
            *("-c:v", encoder, "-preset", "veryfast", "-b:v", BITS_A_SECOND),
            *("-g", gop, "-keyint_min", gop, "-sc_threshold", "0", *options),
            *(() if film.bare else ("-bf", "0")),
            *(("-maxrate", BITS_A_SECOND, "-bufsize", STEADY_BITS) if film.steady else ()),
        ]
        subprocess.run([*command, str(path)], check=True)
    return path
