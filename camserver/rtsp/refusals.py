"""The meaning of a camera's status code (RFC 2326, 7.1.1), including makers' habits. Pure."""

from __future__ import annotations

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd, Step
from camserver.rtsp.login import Login, Verdict

_MEANING = {
    401: (Result.AUTH, "wrong username or password"),
    403: (Result.FULL, "forbidden: its sessions are taken, or this user may not watch"),
    404: (Result.NOT_FOUND, "no such stream"),
    453: (Result.FULL, "its sessions are taken"),
    454: (Result.ERROR, "session not found"),
    461: (Result.ERROR, "unsupported transport"),
    503: (Result.FULL, "busy: its sessions are taken"),
}


_MAY_MEAN_FULL = {Result.AUTH, Result.UNREACHABLE, Result.TIMEOUT}


def reinterpret_as_full(error: CameraError, end: SessionEnd, others: int) -> CameraError:
    """What `error` means while the device counts `others` other sessions.

    `others` may include closed sessions that the device still counts. `end` is how the session
    ended that failed with `error`.

    Cameras say "full" with 401 or 403, or with RST, EOF or silence after PLAY. "Wrong password"
    would cause a longer back-off and would count as a login. So while other sessions are open, such
    an error is treated as "full".
    """
    voice = (
        error.status == 401
        or error.result is Result.AUTH
        or (error.result in _MAY_MEAN_FULL and end is not SessionEnd.NONE)
    )
    if not others or not voice:
        return error
    return CameraError(
        Result.FULL,
        f"{error}, while {others} other session(s) of the device are open: taken as full",
        end,
        status=error.status,
        step=error.step,
        login_refused=error.login_refused,
    )


def refusal(method: Step, status: int) -> CameraError:
    """The error for a refused request. Its end is none, because a refusal opens no session."""
    result, words = _MEANING.get(status, (Result.ERROR, "refused"))
    return CameraError(
        result, f"{words} ({status} to {method})", SessionEnd.NONE, status=status, step=method
    )


def login_failure(verdict: Verdict, login: Login, method: Step) -> CameraError:
    """The error for a 401 that is not answered. `verdict` is what it means."""
    match verdict:
        case Verdict.NO_LOGIN:
            return _refused(Result.AUTH, "it asks for a login: give username and password", method)
        case Verdict.NOT_SPOKEN:
            return _refused(Result.ERROR, login.words, method)
        case Verdict.LATER_REFUSED:
            return _refused(
                Result.FULL,
                "it took the login, then refused it: its sessions are taken, or this user may not"
                " watch",
                method,
            )
        case _:
            label = f", login {login.challenge.label}" if login.challenge is not None else ""
            return _refused(
                Result.AUTH, "wrong username or password", method, label, login_refused=True
            )


def login_unanswered(method: Step, why: str = "the camera closed the connection") -> CameraError:
    """The error for a camera that closes the connection instead of answering a login."""
    return CameraError(
        Result.UNREACHABLE,
        f"{why} at {method}, when it was sent the login",
        step=method,
        login_refused=True,
    )


def _refused(
    result: Result, words: str, method: Step, label: str = "", *, login_refused: bool = False
) -> CameraError:
    return CameraError(
        result,
        f"{words} (401 to {method}{label})",
        SessionEnd.NONE,
        status=401,
        step=method,
        login_refused=login_refused,
    )
