"""Quirks: habits of real cameras that are not broken. Pure.

A simulated camera may have any of them, by name.
"""

from __future__ import annotations

import re
import struct

from camserver.rtsp.messages import Response

QUIRKS = {
    "control-absolute": "a=control is a whole URL",
    "control-star": "a=control:* for the only track",
    "control-missing": "no a=control",
    "control-slash": "a=control begins with a slash",
    "content-location": "Content-Location instead of Content-Base",
    "no-base": "neither of them",
    "base-without-slash": "Content-Base without the slash at its end",
    "tracks": "audio before the picture, metadata after it; only the picture's SETUP is taken",
    "sets-in-band": "no parameter sets in the description",
    "rtp-early": "the first picture comes before PLAY is answered",
    "server-requests": "asks OPTIONS itself, and plays when it was answered",
    "renumbered": "other interleaved channels than were offered",
    "lf": "lines end with LF only",
    "folded": "header values stand on a line of their own",
    "lower-case": "header names in lower case",
    "no-tcp": "461 to interleaved transport",
    "no-udp": "461 to UDP",
    "redirect": "302 to another path of the same host",
    "new-nonce": "a new nonce for every request",
    "no-session-id": "no Session header in any answer",
    "describe-first": "takes no SETUP without a DESCRIBE on the same connection",
    "play-needs-describe": (
        "takes SETUP and PLAY without a DESCRIBE, then closes the connection (go2rtc)"
    ),
    "timeout": (
        "ends a session that asked nothing for a second, though it plays; knows OPTIONS only for"
        " that"
    ),
    "marked-units": "an RTP marker on every NAL unit",
    "no-markers": "no RTP marker at all",
    "no-clock": "one RTP timestamp for all pictures",
    "frozen": "sends the same picture again and again, also after a new start",
    "kept-nonce": "one digest nonce for all connections",
    "stale-bare-401": (
        "answers a digest nonce of another connection with a 401 without a challenge, and closes"
        " (MediaMTX)"
    ),
    "stale-closes": "closes the connection at a digest nonce of another one",
    "wrong-login-closes": "closes the connection at a wrong login, without an answer",
    "closes-after-401": (
        "closes the connection after each 401, and takes the answer over the next one (Dahua)"
    ),
    "md5-sess": "digest MD5-sess with qop",
    "sha-256": "offers basic, digest MD5 and digest SHA-256, and takes SHA-256 only",
    "cseq-zero": "answers with CSeq 0",
    "cseq-missing": "answers without a CSeq",
    "no-colon": "a header line without a colon",
    "stray-bytes": "four zero bytes before each interleaved frame of a picture's end",
    "length-short": "a Content-Length that is two bytes too small",
    "options-first": "takes no DESCRIBE before an OPTIONS",
    "all-tracks": "plays nothing unless its audio is set up, too",
    "session-describe": "names its session to DESCRIBE only",
    "sei-broken": "side information that ends too early",
    "unknown-units": "units of a reserved kind before each picture",
    "annex-b": "start codes inside the packets",
    "no-end-bits": "fragments without the end bit",
    "audio-on-channel": "audio packets on the picture's channel",
    "rtcp-on-channel": "RTCP on the picture's channel",
    "repeats": "each third packet comes twice",
    "padding-lie": "the padding bit without any padding",
    "sets-one-field": "all parameter sets in one field of the description, with start codes",
}
TIMEOUT_S = 1
MOVED = "/moved"
AUDIO = ["m=audio 0 RTP/AVP 8", "a=rtpmap:8 PCMA/8000", "a=control:trackID=1"]
METADATA = [
    "m=application 0 RTP/AVP 107",
    "a=rtpmap:107 vnd.onvif.metadata/90000",
    "a=control:trackID=2",
]


def control(quirks: frozenset[str], base: str) -> list[str]:
    """The a=control line of the video track. An empty list if there is none."""
    values = {
        "control-absolute": f"{base}trackID=0",
        "control-star": "*",
        "control-missing": "",
        "control-slash": "/trackID=0",
    }
    value = next((values[quirk] for quirk in sorted(quirks) if quirk in values), "trackID=0")
    return [f"a=control:{value}"] if value else []


def base_header(quirks: frozenset[str], base: str) -> dict[str, str]:
    """The header of the answer to DESCRIBE that gives the base of relative URLs."""
    if "no-base" in quirks:
        return {}
    if "content-location" in quirks:
        return {"Content-Location": base}
    return {"Content-Base": base.rstrip("/") if "base-without-slash" in quirks else base}


def is_track(quirks: frozenset[str], uri: str) -> bool:
    """Whether a SETUP of `uri` is for the video track."""
    return uri.endswith("/trackID=0") or bool(quirks & {"control-star", "control-missing"})


def encode(quirks: frozenset[str], response: Response) -> bytes:
    """The bytes of an answer, with the quirks."""
    head, separator, body = response.encode().partition(b"\r\n\r\n")
    if "cseq-zero" in quirks:
        head = re.sub(rb"(?i)CSeq: [^\r]*", b"CSeq: 0", head)
    if "cseq-missing" in quirks:
        head = re.sub(rb"(?i)\r\nCSeq: [^\r]*", b"", head)
    if "length-short" in quirks and len(body) > 2:
        head = re.sub(rb"(?i)Content-Length: [^\r]*", b"Content-Length: %d" % (len(body) - 2), head)
    if "folded" in quirks:
        head = head.replace(b": ", b":\r\n  ")
    if "lower-case" in quirks:
        first, _, rest = head.partition(b"\r\n")
        fields = (line.partition(b":") for line in rest.split(b"\r\n"))
        lines = (name.lower() + colon + value for name, colon, value in fields)
        head = b"\r\n".join((first, *lines))
    if "no-colon" in quirks:
        head += b"\r\nCache-Control"
    if "lf" in quirks:
        return (head + separator).replace(b"\r\n", b"\n") + body
    return head + separator + body


def markers(quirks: frozenset[str], codec: str, payloads: list[bytes]) -> list[bool]:
    """For each packet of a picture, whether it has the marker."""
    last = len(payloads) - 1
    if "no-markers" in quirks:
        return [False] * len(payloads)
    if "marked-units" in quirks:
        return [_ends_unit(codec, payload) or i == last for i, payload in enumerate(payloads)]
    return [i == last for i in range(len(payloads))]


def challenges(quirks: frozenset[str], basic: bool, realm: str, nonce: str) -> list[str]:
    """The challenges of a 401."""
    if basic:
        return [f'Basic realm="{realm}"']
    plain = f'Digest realm="{realm}", nonce="{nonce}"'
    if "md5-sess" in quirks:
        return [f'{plain}, algorithm=MD5-sess, qop="auth,auth-int"']
    if "sha-256" in quirks:
        return [
            f'Basic realm="{realm}"',
            f'{plain}, algorithm=SHA-256, qop="auth"',
            f"{plain}, algorithm=MD5",
        ]
    stale = ", stale=true" if "new-nonce" in quirks else ""
    return [f"{plain}, algorithm=MD5{stale}"]


def payloads(quirks: frozenset[str], codec: str, sent: list[bytes]) -> list[bytes]:
    """The payloads of a picture, changed by the quirks."""
    if codec == "mjpeg":
        return sent
    fragment = _is_h264_fragment if codec == "h264" else _is_h265_fragment
    head = 1 if codec == "h264" else 2
    made = []
    for payload in sent:
        if fragment(payload):
            flags = payload[head] & (0xBF if "no-end-bits" in quirks else 0xFF)
            made.append(payload[:head] + bytes((flags,)) + payload[head + 1 :])
        else:
            made.append(b"\0\0\0\1" + payload if "annex-b" in quirks else payload)
    first = []
    if "sei-broken" in quirks:
        first.append((b"\x06" if codec == "h264" else b"\x4e\x01") + b"\x05\xa2" + b"\x11" * 60)
    if "unknown-units" in quirks:
        first.append((b"\x1f" if codec == "h264" else b"\x5e\x01") + b"v" * 40)
    return first + made


def _is_h264_fragment(payload: bytes) -> bool:
    return payload[0] & 0x1F == 28


def _is_h265_fragment(payload: bytes) -> bool:
    return payload[0] >> 1 & 0x3F == 49


def padded(packet: bytes) -> bytes:
    """The packet with the padding bit set, if its last byte is too large for a padding count."""
    lies = packet[-1] > len(packet) - 12
    return bytes((packet[0] | (0x20 if lies else 0),)) + packet[1:]


def non_video_packets(quirks: frozenset[str], number: int) -> list[bytes]:
    """Packets that are not video, on the video channel after packet `number` of a picture."""
    made = []
    if "audio-on-channel" in quirks:
        made.append(struct.pack(">BBHII", 0x80, 8, number & 0xFFFF, number, 0x99) + b"\xd5" * 160)
    if "rtcp-on-channel" in quirks:
        made.append(struct.pack(">BBHI", 0x80, 201, 1, 7))
    return made


def _ends_unit(codec: str, payload: bytes) -> bool:
    """Whether a payload is a whole NAL unit or the last fragment of one."""
    if codec == "h264":
        return payload[0] & 0x1F != 28 or bool(payload[1] & 0x40)
    return codec == "h265" and (payload[0] >> 1 & 0x3F != 49 or bool(payload[2] & 0x40))
