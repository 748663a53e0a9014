"""What a camera means by a status code (RFC 2326, 7.1.1; what makers do with it: design 4.6). Pure."""

from __future__ import annotations

from camserver.errors import CameraError
from camserver.records import Result, SessionEnd

_MEANING = {
    401: (Result.AUTH, "wrong username or password"),
    403: (Result.FULL, "forbidden: its sessions are taken, or this user may not watch"),
    404: (Result.NOT_FOUND, "no such stream"),
    453: (Result.FULL, "its sessions are taken"),
    454: (Result.ERROR, "session not found"),
    461: (Result.ERROR, "unsupported transport"),
    503: (Result.FULL, "busy: its sessions are taken"),
}


def refusal(method: str, status: int) -> CameraError:
    """The error for a refused request; the session's end is none: refused is not opened."""
    result, words = _MEANING.get(status, (Result.ERROR, "refused"))
    return CameraError(result, f"{words} ({status} to {method})", SessionEnd.NONE)
