"""Session descriptions (RFC 8866), as far as a video track needs them. Pure; lenient where cameras are.

Track URLs follow RFC 2326, C.1.1, and what cameras make of it: `*` or nothing means the base itself, relative ones are
appended to the base (not resolved against it: cameras leave the trailing slash away), absolute ones stand alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from camserver.rtsp.messages import sendable_url

MAX_TRACKS = 32
STATIC = {26: ("JPEG", 90_000)}     # RFC 3551, table 5
CODECS = {"H264": "h264", "H265": "hevc", "HEVC": "hevc", "JPEG": "mjpeg"}
"""Encoding names of RTP (upper case) that camserver speaks, with libav's names for their decoders."""


@dataclass(frozen=True, slots=True)
class Track:
    """One m= section: what it is and where it is controlled."""

    kind: str
    payload_type: int
    encoding: str = ""
    clock_hz: int = 90_000
    control: str = ""
    parameters: dict[str, str] = field(default_factory=dict)    # of a=fmtp, names in lower case

    @property
    def codec(self) -> str | None:
        """Libav's name of the codec, None when camserver doesn't speak it."""
        return CODECS.get(self.encoding) if self.kind == "video" else None

    def parameter_sets(self) -> list[bytes]:
        """NAL units the description carries (RFC 6184, 8.1; RFC 7798, 7.1); what isn't base64 is left out."""
        names = ("sprop-parameter-sets",) if self.encoding == "H264" else ("sprop-vps", "sprop-sps", "sprop-pps")
        sets = []
        for text in (part for name in names for part in self.parameters.get(name, "").split(",")):
            try:
                nal = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            except (binascii.Error, ValueError):
                continue
            if len(nal) > 1:
                sets.append(nal.removeprefix(b"\0\0\0\1"))
        return sets


@dataclass(frozen=True, slots=True)
class Description:
    """The tracks of a presentation and its own control attribute."""

    tracks: tuple[Track, ...]
    control: str = ""

    def video(self) -> Track | None:
        """The first video track camserver speaks, else the first video track, else None."""
        videos = [t for t in self.tracks if t.kind == "video"]
        return next((t for t in videos if t.codec), videos[0] if videos else None)


def parse_sdp(body: bytes) -> Description:
    """Never raises: what cannot be understood is not there."""
    control = ""
    tracks: list[Track] = []
    section: dict[str, str] = {}
    for line in re.split(r"\r\n|\n|\r", body.decode("utf-8", "replace")):
        name, _, value = line.strip().partition("=")
        if name == "m":
            tracks += _track(section)
            section = {"m": value}
            if len(tracks) >= MAX_TRACKS:
                section = {}
        elif name == "a":
            key, _, rest = value.partition(":")
            if section:
                section.setdefault(f"{key.lower()} {rest.split(' ')[0]}" if key.lower() in ("rtpmap", "fmtp") else key.lower(),
                                   rest)
            elif key.lower() == "control":
                control = rest.strip()
    return Description((*tracks, *_track(section)), control)


def _track(section: dict[str, str]) -> list[Track]:
    words = section.get("m", "").split()
    if len(words) < 4 or not re.fullmatch(r"[0-9]{1,3}", words[3]) or int(words[3]) > 127:
        return []
    payload_type = int(words[3])
    encoding, clock_hz = STATIC.get(payload_type, ("", 90_000))
    if match := re.match(r"[0-9]+\s+([^/\s]+)/([0-9]{1,9})", section.get(f"rtpmap {payload_type}", "")):
        encoding, clock_hz = match[1].upper(), int(match[2]) or clock_hz
    parameters = {}
    for pair in section.get(f"fmtp {payload_type}", "").partition(" ")[2].split(";"):
        key, _, value = pair.strip().partition("=")
        if key:
            parameters[key.lower()] = value.strip()
    return [Track(words[0].lower(), payload_type, encoding, clock_hz, section.get("control", "").strip(), parameters)]


def control_url(base: str, control: str) -> str:
    """The URL a SETUP goes to, from the presentation's base and a control attribute; fit for a request line."""
    if control in ("", "*"):
        url = base
    elif re.match(r"rtsps?://", control, re.IGNORECASE):
        url = control
    else:
        url = f"{base.rstrip('/')}/{control.lstrip('/')}"
    return sendable_url(url)
