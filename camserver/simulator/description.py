"""The description of a simulated camera's stream (SDP, RFC 8866), with its quirks. Pure."""

from __future__ import annotations

import base64

from camserver.rtsp.rtp import CLOCK_HZ
from camserver.simulator.camera import SimulatedCamera
from camserver.simulator.quirks import AUDIO, METADATA, control

PAYLOAD_TYPES = {"h264": 96, "h265": 96, "mjpeg": 26}


def describe(camera: SimulatedCamera, parameter_sets: list[bytes], base: str) -> bytes:
    """The body of the answer to DESCRIBE.

    `parameter_sets` are NAL units. `base` is the requested URL.
    """
    codec, quirks = camera.codec, camera.quirks
    kind = PAYLOAD_TYPES[codec]
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        f"s={camera.name}",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        *(AUDIO if "tracks" in quirks else ()),
        f"m=video 0 RTP/AVP {kind}",
        f"a=rtpmap:{kind} {'JPEG' if codec == 'mjpeg' else codec.upper()}/{CLOCK_HZ}",
        *control(quirks, base),
        *_formats(camera, kind, parameter_sets),
    ]
    lines += METADATA if "tracks" in quirks else ()
    lines += AUDIO if "all-tracks" in quirks and "tracks" not in quirks else ()
    return "\r\n".join([*lines, ""]).encode()


def _formats(camera: SimulatedCamera, kind: int, parameter_sets: list[bytes]) -> list[str]:
    """The fmtp line. An empty list if there is none."""
    codec, quirks = camera.codec, camera.quirks
    sets = [base64.b64encode(nal).decode() for nal in parameter_sets]
    if "sets-in-band" in quirks or codec == "mjpeg":
        return []
    if "sets-one-field" in quirks:
        name = "sprop-parameter-sets" if codec == "h264" else "sprop-sps"
        field = base64.b64encode(b"".join(b"\0\0\0\1" + nal for nal in parameter_sets)).decode()
        return [f"a=fmtp:{kind} {name}={field}"]
    if codec == "h264":
        return [f"a=fmtp:{kind} packetization-mode=1;sprop-parameter-sets={','.join(sets)}"]
    named = zip(("vps", "sps", "pps"), sets, strict=True)
    return [f"a=fmtp:{kind} " + ";".join(f"sprop-{name}={nal}" for name, nal in named)]
