"""Advice for a person about a failure that `camserver doctor` found, by its step and its result."""

from __future__ import annotations

from camserver.errors import CameraError
from camserver.model import Result

_BY_RESULT = {
    Result.UNREACHABLE: (
        "Is the camera on, the address right, the RTSP port open (554 on most)? Is RTSP switched on"
        " in its settings?"
    ),
    Result.AUTH: (
        "Check username and password in the camera's own web page. Some have an RTSP or ONVIF user"
        " of their own; many lock a login for minutes after wrong tries, so don't try on and on."
    ),
    Result.NOT_FOUND: (
        "The path is wrong: the maker's manual or the camera's ONVIF page has it (/stream1, "
        "/h264Preview_01_main, ...)."
    ),
    Result.OVERLOADED: (
        "This host has no worker free: try again, or raise [polling] decoders or the intervals."
    ),
    Result.FULL: (
        "Somebody else has its sessions: go2rtc, an NVR, the maker's app? Close one, or give"
        " max_sessions as it is."
    ),
    Result.TIMEOUT: (
        "It accepts the connection and then says nothing: it may be full without saying so, or"
        " hang. Restart it."
    ),
    Result.NO_KEYFRAME: (
        "Its keyframes are far apart: set its I-frame interval to 1 or 2 seconds, or give timeout a"
        " larger value."
    ),
    Result.BAD_PICTURE: (
        "Packets are lost or damaged on the way (Wi-Fi?), or the camera's encoder is faulty: try "
        'transport = "tcp", a lower bit rate, or the sub-stream.'
    ),
    Result.CRASHED: (
        "What the camera sends breaks the decoder: try another codec in the camera's settings, or"
        " the sub-stream."
    ),
    Result.ERROR: (
        'What it offers can\'t be used as it is; engine = "libav" speaks some things that'
        " camserver doesn't."
    ),
}
NO_LOGIN = (
    "Give the username and the password of the camera: none was sent. `doctor URL --username NAME`"
    " asks for it."
)
_BY_STEP = {
    (
        "name",
        Result.UNREACHABLE,
    ): "Is the name spelled right? This host's DNS does not know it; an address works without DNS.",
    (
        "connecting",
        Result.TIMEOUT,
    ): (
        "Nothing answers at this address: is the camera on, the address right, a firewall or "
        "another network between?"
    ),
    (
        "PLAY",
        Result.TIMEOUT,
    ): 'It accepts the session and then hangs at PLAY: restart it, or try transport = "udp".',
    (
        "a keyframe",
        Result.TIMEOUT,
    ): (
        "It plays, but sends nothing: it may be full without saying so, or hang. Restart it. With "
        'transport = "udp" a firewall may drop its packets.'
    ),
    (
        "keyframe",
        Result.UNREACHABLE,
    ): (
        "It plays, then ends the connection: restart it, and see its log. Some do so when "
        "another client takes the session."
    ),
    (
        "libav",
        Result.ERROR,
    ): (
        "Neither camserver's own client nor libav can use what it offers: set H.264 or H.265 in its"
        " settings, or use the sub-stream or a snapshot URL."
    ),
    (
        "libav",
        Result.TIMEOUT,
    ): "libav gets no picture either: restart the camera, or use the sub-stream or a snapshot URL.",
    (
        "snapshot URL",
        Result.UNREACHABLE,
    ): "Is the camera on, the address right, its web server on this port (80, or 443 with https)?",
    (
        "snapshot URL",
        Result.NOT_FOUND,
    ): (
        "The path of the picture is wrong: the maker's manual has it (/snap.jpg, "
        "/cgi-bin/snapshot.cgi, /ISAPI/Streaming/channels/101/picture, ...)."
    ),
    (
        "snapshot URL",
        Result.TIMEOUT,
    ): (
        "Its web server accepts the connection and gives no picture: restart the camera, or give "
        "timeout a larger value."
    ),
    (
        "snapshot URL",
        Result.BAD_PICTURE,
    ): (
        "What it answers is no whole picture: open the URL in a browser. A page instead of a "
        "picture means a wrong path, or a login that its page asks for."
    ),
    (
        "snapshot URL",
        Result.AUTH,
    ): (
        "Open the URL in a browser, with this username and password. Many cameras lock a login for"
        " minutes after wrong tries, so don't try on and on."
    ),
    (
        "snapshot URL",
        Result.CRASHED,
    ): "Its picture breaks the decoder: choose another size or quality in its settings.",
    (
        "snapshot URL",
        Result.FULL,
    ): "It is busy or forbids this: may this user take snapshots? Try again in a minute.",
    ("snapshot URL", Result.ERROR): "Open the URL in a browser: it must answer with one picture.",
    (
        "sub-stream",
        Result.NOT_FOUND,
    ): "The path in sub_url is wrong; without it pictures come from the main stream alone.",
    (
        "distance",
        Result.NO_KEYFRAME,
    ): (
        "Its keyframes are far apart: set its I-frame interval to 1 or 2 seconds. A poll waits "
        "for one, and holds the session meanwhile."
    ),
    (
        "distance",
        Result.UNREACHABLE,
    ): "It ends sessions soon after they began: restart it, and see its log.",
    (
        "sessions",
        Result.FULL,
    ): (
        "It gave a session before and gives none now: somebody else has it, or it counts closed "
        "sessions for long. Give a larger cooldown."
    ),
    (
        "gap",
        Result.FULL,
    ): (
        "It counts closed sessions for longer than was tried: give a larger cooldown and"
        " unclean_cooldown."
    ),
}


def advice(found_at: str, failure: CameraError) -> str:
    """Return advice for a failure at the doctor's step `found_at`; "" when there is none."""
    result, step = failure.result, failure.step
    if step is None or found_at == "snapshot URL":
        step_advice = None
    else:
        step_advice = _BY_STEP.get((step, result))
    if result is Result.AUTH and not failure.login_refused:
        return NO_LOGIN
    return _BY_STEP.get((found_at, result)) or step_advice or _BY_RESULT.get(result, "")
