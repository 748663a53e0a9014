"""Requests over one connection to a camera, with their answers and the login.

This module and camserver.rtsp.login ensure rule two: a correct password is never sent in a way that
a camera can count as a wrong one. If a request fails that used a remembered login, Reconnect is
raised. Then the session begins again on a new connection, without remembered facts.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from camserver.errors import CameraError
from camserver.model import Result, SessionEnd, Step
from camserver.rtsp.aio.connection import ConnectionClosed, RtspConnection
from camserver.rtsp.auth import Challenge
from camserver.rtsp.login import Login, LoginCache, Verdict
from camserver.rtsp.messages import Response
from camserver.rtsp.refusals import login_failure, login_unanswered, refusal
from camserver.rtsp.session import SessionCore, SessionEvent
from camserver.rtsp.session_cache import Reconnect, RedirectError

PORTS = {"rtsp": 554, "rtsps": 322}
USER_AGENT = "camserver"
CLOSING_S = 0.3
"""How long to wait after a 401 to find out whether the camera closes the connection."""
MAX_TRIES = 3
"""How often one request is sent: without a login, with one, and again for a stale nonce."""


class RtspRequests:
    """The requests of one session over one connection."""

    def __init__(
        self,
        connection: RtspConnection,
        login: Login,
        login_cache: LoginCache,
        session: SessionCore,
    ) -> None:
        self.connection = connection
        self.login = login
        self._login_cache = login_cache
        self._session = session

    @classmethod
    async def open(
        cls,
        url: str,
        tls: ssl.SSLContext | None,
        login_cache: LoginCache,
        carried: Challenge | None,
        session: SessionCore,
    ) -> RtspRequests:
        """Connect to the host of `url`. Raises CameraError."""
        parts = urlsplit(url)
        port = parts.port or PORTS[parts.scheme]
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
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
        session.happened(SessionEvent.CONNECT)
        return cls(connection, Login(login_cache, carried), login_cache, session)

    async def request(self, method: Step, uri: str, headers: dict[str, str]) -> Response:
        """Send a request. Return its answer, which has the status 200.

        Raises CameraError with the meaning of another status, RedirectError, ConnectionClosed and
        Reconnect.
        """
        response = await self.ask(method, uri, headers)
        if response.status in (301, 302, 303, 307, 308):
            raise RedirectError(response.headers.get("Location"))
        if response.status != 200:
            raise refusal(method, response.status)
        return response

    async def ask(self, method: Step, uri: str, headers: dict[str, str]) -> Response:
        """Send a request, with the login if needed. Return its answer, which is never 401.

        Raises ConnectionClosed, Reconnect, and CameraError when the login fails.
        """
        for _ in range(MAX_TRIES):
            fields = self._fields(method, uri)
            sent = "Authorization" in fields
            try:
                response = await self.connection.request(method, uri, fields | headers)
            except ConnectionClosed as closed:
                if not sent or self.login.remembered or self.login.was_accepted:
                    raise
                self._login_cache.closes_after_challenge = None
                raise login_unanswered(method, str(closed)) from None
            self._session.note_session(method, response.headers.get("Session"))
            if response.status != 401:
                if sent and response.status != 403:
                    self.login.accepted(response.headers.get("Authentication-Info"))
                return response
            verdict = self.login.refused([response.headers.get("WWW-Authenticate")], sent=sent)
            if verdict is Verdict.RECONNECT:
                raise Reconnect
            if verdict is not Verdict.ANSWER:
                raise login_failure(verdict, self.login, method)
            await self._answer_elsewhere(response)
        raise login_failure(Verdict.WRONG, self.login, method)

    def ask_later(self, method: Step, uri: str, answered: Callable[[Response], None]) -> None:
        """Send a request and go on. `answered` is called with its answer, never if none comes.

        A new challenge is answered once, so that a nonce that is refused is not sent again.
        """

        def send(tries_left: int) -> None:
            fields = self._fields(method, uri)
            sent = "Authorization" in fields

            def noted(response: Response) -> None:
                if response.status == 401:
                    offered = [response.headers.get("WWW-Authenticate")]
                    verdict = self.login.refused(offered, sent=sent)
                    if verdict is Verdict.ANSWER and tries_left and self.connection.end is None:
                        send(tries_left - 1)
                        return
                    self.login.give_up()  # else each keep-alive would send what was refused
                elif sent and response.status != 403:
                    self.login.accepted(response.headers.get("Authentication-Info"))
                answered(response)

            self.connection.ask(method, uri, fields, noted)

        send(1)

    def stray(self) -> str:
        """The text about received bytes that are not RTSP, for the end of an error message."""
        return (
            f" ({self.connection.stray_bytes} bytes came that are no RTSP)"
            if self.connection.stray_bytes
            else ""
        )

    async def _answer_elsewhere(self, response: Response) -> None:
        """Raise Reconnect if the camera closes the connection after its 401.

        Some Dahua cameras do this. Then the challenge is answered over a new connection. Nothing is
        sent before this is known: the camera could count a login on a closing connection, and it
        would be sent twice.
        """
        login, cache = self.login, self._login_cache
        if self._session.has_session or login.carried or login.was_accepted:
            return
        if response.headers.get("Connection").lower() != "close":
            if cache.closes_after_challenge is False:
                return
            try:
                async with asyncio.timeout(CLOSING_S):
                    await asyncio.shield(self.connection.closed)
            except TimeoutError:
                # It may have closed at this moment, and the transport is not closed yet
                if self.connection.end is None:
                    cache.closes_after_challenge = False
                    return
            cache.closes_after_challenge = True
        raise Reconnect(login.challenge)

    def _fields(self, method: Step, uri: str) -> dict[str, str]:
        """The header fields of every request: User-Agent, Session and Authorization."""
        fields = {"User-Agent": USER_AGENT}
        if self._session.session_id:
            fields["Session"] = self._session.session_id
        if authorization := self.login.authorization(method, uri, secrets.token_hex(8)):
            fields["Authorization"] = authorization
        return fields
