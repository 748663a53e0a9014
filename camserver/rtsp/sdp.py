"""Session descriptions (RFC 8866), as far as a video track needs them. Pure.

The parser accepts the mistakes that cameras make.

Track URLs follow RFC 2326, C.1.1, with the habits of cameras. `*` or nothing means the base itself.
A relative URL is appended to the base. It is not resolved against the base, because cameras leave
out the trailing slash. An absolute URL is used as it is.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from dataclasses import dataclass, field
from urllib.parse import urljoin

from camserver.header_text import text_of
from camserver.rtsp.bitstream import split_annex_b
from camserver.rtsp.messages import sendable_url

_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
MAX_TRACKS = 32
STATIC = {26: ("JPEG", 90_000)}  # RFC 3551, table 5
CODECS = {"H264": "h264", "H265": "hevc", "HEVC": "hevc", "JPEG": "mjpeg"}
"""RTP encoding names (upper case) that camserver supports, with libav's names of their decoders."""


@dataclass(frozen=True, slots=True)
class Track:
    """One m= section: its kind of media, and its control URL."""

    kind: str
    payload_type: int
    encoding: str = ""
    clock_hz: int = 90_000
    control: str = ""
    parameters: dict[str, str] = field(default_factory=dict)  # from a=fmtp, names in lower case
    dimensions: tuple[int, int] | None = None
    """Width and height in pixels, if the description names them."""

    @property
    def codec(self) -> str | None:
        """The codec's name in libav. None when camserver does not support it."""
        return CODECS.get(self.encoding) if self.kind == "video" else None

    def parameter_sets(self) -> list[bytes]:
        """The NAL units in the description (RFC 6184, 8.1; RFC 7798, 7.1).

        Parts that are not base64 are left out.
        """
        names = (
            ("sprop-parameter-sets",)
            if self.encoding == "H264"
            else ("sprop-vps", "sprop-sps", "sprop-pps")
        )
        sets = []
        for text in (part for name in names for part in self.parameters.get(name, "").split(",")):
            # Text after the base64 is ignored. Some cameras put several units into one field.
            match = _BASE64.match(text.strip())
            digits = match[0] if match else ""
            try:
                data = base64.b64decode(
                    digits[: len(digits) - (len(digits) % 4 == 1)] + "=" * (-len(digits) % 4)
                )
            except (binascii.Error, ValueError):
                continue
            sets += [unit for unit in split_annex_b(data) if len(unit) > 1]
        return sets

    @property
    def order_numbers(self) -> bool:
        """Whether H.265 payloads carry decoding order numbers.

        The parameter is sprop-max-don-diff (RFC 7798, 7.1).
        """
        return self.encoding != "H264" and self.parameters.get("sprop-max-don-diff", "0") not in (
            "",
            "0",
        )


@dataclass(frozen=True, slots=True)
class Description:
    """The tracks of a presentation and its own control attribute."""

    tracks: tuple[Track, ...]
    control: str = ""

    def video(self) -> Track | None:
        """The first video track of a supported codec, else the first video track, else None."""
        videos = [t for t in self.tracks if t.kind == "video"]
        return next(iter(self.spoken()), videos[0] if videos else None)

    def spoken(self) -> tuple[Track, ...]:
        """The video tracks of supported codecs, in their order."""
        return tuple(track for track in self.tracks if track.codec is not None)


def parse_sdp(body: bytes) -> Description:
    """Parse a description. Parts that cannot be understood are ignored. Never raises."""
    control = ""
    tracks: list[Track] = []
    section: dict[str, str] = {}
    for line in re.split(r"\r\n|\n|\r", text_of(body)):
        name, _, value = line.strip().partition("=")
        if name == "m":
            tracks += _track(section)
            section = {"m": value}
            if len(tracks) >= MAX_TRACKS:
                section = {}
        elif name == "a":
            key, _, rest = value.partition(":")
            key, rest = key.strip().lower(), rest.strip()
            if section and key == "fmtp":  # some cameras write several lines for one format
                payload_type, _, pairs = rest.partition(" ")
                section[f"fmtp {payload_type}"] = (
                    f"{section.get(f'fmtp {payload_type}', '')};{pairs}"
                )
            elif section:
                section.setdefault(f"rtpmap {rest.split(' ')[0]}" if key == "rtpmap" else key, rest)
            elif key == "control":
                control = rest
    return Description((*tracks, *_track(section)), control)


def _track(section: dict[str, str]) -> list[Track]:
    words = section.get("m", "").split()
    if len(words) < 4 or not re.fullmatch(r"[0-9]{1,3}", words[3]) or int(words[3]) > 127:
        return []
    payload_type = int(words[3])
    encoding, clock_hz = STATIC.get(payload_type, ("", 90_000))
    if match := re.match(
        r"[0-9]+\s+([^/\s]+)/([0-9]{1,9})", section.get(f"rtpmap {payload_type}", "")
    ):
        encoding, clock_hz = match[1].upper(), int(match[2]) or clock_hz
    parameters: dict[str, str] = {}
    for pair in section.get(f"fmtp {payload_type}", "").split(";"):
        key, _, value = pair.strip().partition("=")
        if key:
            parameters.setdefault(key.strip().lower(), value.strip())
    return [
        Track(
            words[0].lower(),
            payload_type,
            encoding,
            clock_hz,
            section.get("control", ""),
            parameters,
            _dimensions(section, payload_type),
        )
    ]


def _dimensions(section: dict[str, str], payload_type: int) -> tuple[int, int] | None:
    """(width, height) in pixels, or None.

    Read from a=x-dimensions:WIDTH,HEIGHT or from a=framesize:TYPE WIDTH-HEIGHT (3GPP TS 26.234,
    5.3.3.2).
    """
    named = section.get("x-dimensions") or section.get("framesize", "").removeprefix(
        f"{payload_type} "
    )
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*[,x-]\s*([0-9]{1,5})\s*", named)
    sides = (int(match[1]), int(match[2])) if match else (0, 0)
    return sides if all(0 < side < 65536 for side in sides) else None


def control_url(base: str, control: str) -> str:
    """The URL for SETUP, from the presentation's base and a control attribute.

    It is encoded for a request line.
    """
    if control in ("", "*"):
        url = base
    elif re.match(r"rtsps?://", control, re.IGNORECASE):
        url = control
    elif control.startswith("?"):
        url = base.rstrip("/") + control
    else:
        url = f"{base.rstrip('/')}/{control.lstrip('/')}"
    return sendable_url(url)


def control_from_root(base: str, control: str) -> str | None:
    """The URL of a control attribute that is a path from the server's root (RFC 3986, 5.2).

    None for any other attribute.
    """
    if not control.startswith("/"):
        return None
    with contextlib.suppress(ValueError):
        return sendable_url(
            urljoin(base.replace("rtsp", "http", 1), control).replace("http", "rtsp", 1)
        )
    return None
