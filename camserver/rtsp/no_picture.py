"""Find out why a playing session has given no whole keyframe, from its packets. Pure."""

from __future__ import annotations

from camserver.errors import CameraError
from camserver.model import Result, Step
from camserver.rtsp.reception import Reception


def no_picture(seen: Reception, limit_s: float) -> CameraError:
    """The error for a session that got no keyframe within `limit_s` seconds."""
    result, text = _reason(seen, f"within {limit_s:.1f} s")
    return CameraError(result, text, step=Step.KEYFRAME, packets_lost=seen.lost)


def _reason(seen: Reception, within: str) -> tuple[Result, str]:
    reasons = (
        (seen.obstacle, Result.BAD_PICTURE, seen.obstacle),
        (seen.torn_keys, Result.BAD_PICTURE, f"every keyframe {within} was incomplete"),
        (
            seen.unproved_key,
            Result.NO_KEYFRAME,
            f"a keyframe came, but {within} nothing after it that proves it whole "
            "(a camera that sends less than a picture in that time?)",
        ),
        (seen.pictures, Result.NO_KEYFRAME, f"{seen.pictures} pictures but no keyframe {within}"),
        (
            seen.packets,
            Result.NO_KEYFRAME,
            f"{seen.packets} packets came {within}, but no end of a picture (it sends too "
            "slowly, or neither markers nor times)",
        ),
        (True, Result.TIMEOUT, f"silent after PLAY, no picture {within}"),
    )
    return next((result, text) for holds, result, text in reasons if holds)
