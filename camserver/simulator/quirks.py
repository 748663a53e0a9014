"""What real cameras do differently though nothing is broken, as data: each is a name that a simulated camera may have. Pure."""

from __future__ import annotations

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
    "play-needs-describe": "takes SETUP and PLAY without a DESCRIBE, then closes the connection (go2rtc)",
    "timeout": "ends a session that asked nothing for a second, though it plays; knows OPTIONS only for that",
    "marked-units": "an RTP marker on every NAL unit",
    "no-markers": "no RTP marker at all",
    "no-clock": "one RTP timestamp for all pictures",
}
TIMEOUT_S = 1
MOVED = "/moved"
AUDIO = ["m=audio 0 RTP/AVP 8", "a=rtpmap:8 PCMA/8000", "a=control:trackID=1"]
METADATA = ["m=application 0 RTP/AVP 107", "a=rtpmap:107 vnd.onvif.metadata/90000", "a=control:trackID=2"]


def control(quirk: str, base: str) -> list[str]:
    """The a=control line of the picture's track."""
    value = {"control-absolute": f"{base}trackID=0", "control-star": "*", "control-missing": "",
             "control-slash": "/trackID=0"}.get(quirk, "trackID=0")
    return [f"a=control:{value}"] if value else []


def base_header(quirk: str, base: str) -> dict[str, str]:
    """How the answer to DESCRIBE says what relative URLs belong to."""
    match quirk:
        case "no-base":
            return {}
        case "content-location":
            return {"Content-Location": base}
        case "base-without-slash":
            return {"Content-Base": base.rstrip("/")}
        case _:
            return {"Content-Base": base}


def is_track(quirk: str, uri: str) -> bool:
    """Whether a SETUP of `uri` means the picture's track."""
    return uri.endswith("/trackID=0") or quirk in ("control-star", "control-missing")


def encode(quirk: str, response: Response) -> bytes:
    """The bytes of an answer."""
    head, separator, body = response.encode().partition(b"\r\n\r\n")
    match quirk:
        case "lf":
            return (head + separator).replace(b"\r\n", b"\n") + body
        case "folded":
            return head.replace(b": ", b":\r\n  ") + separator + body
        case "lower-case":
            first, _, rest = head.partition(b"\r\n")
            fields = (line.partition(b":") for line in rest.split(b"\r\n"))
            lines = (name.lower() + colon + value for name, colon, value in fields)
            return b"\r\n".join((first, *lines)) + separator + body
        case _:
            return head + separator + body


def markers(quirk: str, codec: str, payloads: list[bytes]) -> list[bool]:
    """Which packets of a picture carry the marker."""
    last = len(payloads) - 1
    if quirk == "no-markers":
        return [False] * len(payloads)
    if quirk == "marked-units":
        return [_ends_unit(codec, payload) or i == last for i, payload in enumerate(payloads)]
    return [i == last for i in range(len(payloads))]


def _ends_unit(codec: str, payload: bytes) -> bool:
    """Whether a payload is a whole NAL unit or the last fragment of one."""
    if codec == "h264":
        return payload[0] & 0x1F != 28 or bool(payload[1] & 0x40)
    return codec == "h265" and (payload[0] >> 1 & 0x3F != 49 or bool(payload[2] & 0x40))
