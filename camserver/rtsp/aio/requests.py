"""Requests over one connection to a camera, each with its answer, and the login.

Rule two lives here and in camserver.rtsp.login: a right password is never sent in a way that a
camera can count as a wrong one. What fails after anything remembered raises Reconnect: the session
begins again on a new connection, and begins that one cold.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
from collections.abc import Callable
from typing import NoReturn
from urllib.parse import urlsplit

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd
from camserver.rtsp.aio.connection import ConnectionClosed, RtspConnection
from camserver.rtsp.auth import Challenge
from camserver.rtsp.login import Login, LoginCache, Verdict
from camserver.rtsp.messages import Response
from camserver.rtsp.refusals import refusal
from camserver.rtsp.session_cache import RedirectError

PORTS = {"rtsp": 554, "rtsps": 322}
USER_AGENT = "camserver"
CLOSING_S = 0.3
"""How long a camera is given to close the connection after its 401, until it is known whether it
does.
"""
MAX_TRIES = 3
"""Sendings of one request.

Without a login, with one, and once more for a nonce that was too old.
"""
CONNECTING = "connecting"
SESSION_TIMEOUT_S = 60
"""Of a session whose Session header names none (RFC 2326, 12.37)."""


class Reconnect(Exception):  # noqa: N818 - not an error: what to do
    """Raised when the session has to begin again on a new connection.

    `carried` is the challenge that the new one answers; without one, all that was remembered is to
    be forgotten.
    """

    def __init__(self, carried: Challenge | None = None) -> None:
        self.carried = carried
        super().__init__()


class RtspRequests:
    """One connection; `step` is what is waited for, and `on_step` hears of each."""

    def __init__(
        self,
        wire: RtspConnection,
        login: Login,
        login_memory: LoginCache,
        on_step: Callable[[str], None],
    ) -> None:
        self.wire = wire
        self.login = login
        self.session_id = ""
        self.session_timeout_s = SESSION_TIMEOUT_S
        self.has_session = False
        """A SETUP was answered.

        The session lives on this connection, and so does every answer to a 401.
        """
        self._login_memory = login_memory
        self._on_step = on_step

    @classmethod
    async def open(
        cls,
        url: str,
        tls: ssl.SSLContext | None,
        login_memory: LoginCache,
        carried: Challenge | None,
        on_step: Callable[[str], None],
    ) -> RtspRequests:
        """Connect to the host of `url`. Raises CameraError."""
        parts = urlsplit(url)
        port = parts.port or PORTS[parts.scheme]
        on_step(CONNECTING)
        try:
            _, wire = await asyncio.get_running_loop().create_connection(
                RtspConnection, parts.hostname or "", port, ssl=tls
            )
        except ssl.SSLCertVerificationError:
            raise CameraError(
                Result.ERROR, "its certificate is not valid (tls_verify = true)", SessionEnd.NONE
            ) from None
        except ConnectionRefusedError:
            raise CameraError(
                Result.UNREACHABLE, "connection refused: nothing listens there", SessionEnd.NONE
            ) from None
        except OSError as error:
            raise CameraError(
                Result.UNREACHABLE,
                f"connection failed: {error.strerror or type(error).__name__}",
                SessionEnd.NONE,
            ) from None
        return cls(wire, Login(login_memory, carried), login_memory, on_step)

    async def request(self, method: str, uri: str, headers: dict[str, str]) -> Response:
        """An answer of 200.

        Raises CameraError with the meaning of any other, RedirectError, ConnectionClosed and
        Reconnect.
        """
        response = await self.ask(method, uri, headers)
        if response.status in (301, 302, 303, 307, 308):
            raise RedirectError(response.headers.get("Location"))
        if response.status != 200:
            raise refusal(method, response.status)
        return response

    async def ask(self, method: str, uri: str, headers: dict[str, str]) -> Response:
        """Any answer but 401, after the login.

        Raises ConnectionClosed, Reconnect, and CameraError when the login fails.
        """
        self._on_step(method)
        for _ in range(MAX_TRIES):
            fields = self._fields(method, uri)
            sent = "Authorization" in fields
            try:
                response = await self.wire.request(method, uri, fields | headers)
            except ConnectionClosed as closed:
                if not sent or self.login.remembered or self.login.was_accepted:
                    raise
                self._login_memory.closes_after_challenge = None
                raise CameraError(
                    Result.UNREACHABLE,
                    f"{closed} at {method}, when it was sent the login",
                    step=method,
                    login_refused=True,
                ) from None
            self._note_session(method, response)
            if response.status != 401:
                if sent and response.status != 403:
                    self.login.accepted(response.headers.get("Authentication-Info"))
                return response
            verdict = self.login.refused([response.headers.get("WWW-Authenticate")], sent=sent)
            if verdict is not Verdict.ANSWER:
                self._login_failed(verdict, method)
            await self._answer_elsewhere(response)
        raise _refused(Result.AUTH, "wrong username or password", method, login_refused=True)

    def ask_later(self, method: str, uri: str, answered: Callable[[Response], None]) -> None:
        """Send a request and go on; `answered` hears of its answer, never if none comes."""

        def noted(response: Response) -> None:
            if response.status not in (401, 403):
                self.login.accepted(response.headers.get("Authentication-Info"))
            answered(response)

        self.wire.ask(method, uri, self._fields(method, uri), noted)

    def stray(self) -> str:
        """What came and was no RTSP, for the end of a message."""
        return (
            f" ({self.wire.stray_bytes} bytes came that are no RTSP)"
            if self.wire.stray_bytes
            else ""
        )

    async def _answer_elsewhere(self, response: Response) -> None:
        """Answer over a new connection where the camera closes this one after its 401.

        Some Dahua cameras do.

        Nothing is sent before that is known: a login on a dying connection could be counted, and be
        sent twice.
        """
        login, memory = self.login, self._login_memory
        if self.has_session or login.carried or login.was_accepted:
            return
        if response.headers.get("Connection").lower() != "close":
            if memory.closes_after_challenge is False:
                return
            try:
                async with asyncio.timeout(CLOSING_S):
                    await asyncio.shield(self.wire.closed)
            except TimeoutError:
                memory.closes_after_challenge = False
                return
            memory.closes_after_challenge = True
        raise Reconnect(login.challenge)

    def _login_failed(self, verdict: Verdict, method: str) -> NoReturn:
        match verdict:
            case Verdict.RECONNECT:
                raise Reconnect
            case Verdict.NO_LOGIN:
                raise _refused(
                    Result.AUTH, "it asks for a login: give username and password", method
                )
            case Verdict.NOT_SPOKEN:
                raise _refused(Result.ERROR, self.login.words, method)
            case Verdict.LATER_REFUSED:
                raise _refused(
                    Result.FULL,
                    "it took the login, then refused it: its sessions are taken, or this user may"
                    " not watch",
                    method,
                )
            case _:
                challenge = self.login.challenge
                label = f", login {challenge.label}" if challenge is not None else ""
                raise _refused(
                    Result.AUTH,
                    "wrong username or password",
                    method,
                    login_refused=True,
                    label=label,
                )

    def _note_session(self, method: str, response: Response) -> None:
        """The first session id of any answer counts; some cameras name it to DESCRIBE only."""
        name, _, more = response.headers.get("Session").partition(";")
        if name.strip() and (not self.session_id or method == "SETUP"):
            self.session_id = name.strip()
        if match := re.search(r"timeout\s*=\s*([0-9]{1,5})", more):
            self.session_timeout_s = max(1, int(match[1]))

    def _fields(self, method: str, uri: str) -> dict[str, str]:
        """The header fields that every request has."""
        fields = {"User-Agent": USER_AGENT}
        if self.session_id:
            fields["Session"] = self.session_id
        if authorization := self.login.authorization(method, uri, secrets.token_hex(8)):
            fields["Authorization"] = authorization
        return fields


def _refused(
    result: Result, words: str, method: str, *, login_refused: bool = False, label: str = ""
) -> CameraError:
    return CameraError(
        result,
        f"{words} (401 to {method}{label})",
        SessionEnd.NONE,
        status=401,
        step=method,
        login_refused=login_refused,
    )
