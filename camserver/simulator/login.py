"""The login check of one simulated connection, with the camera's quirks."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from camserver.rtsp import auth
from camserver.rtsp.messages import Request
from camserver.simulator.camera import SimulatedCamera
from camserver.simulator.quirks import challenges

REALM = "camserver simulator"


@dataclass(frozen=True, slots=True)
class LoginRefusal:
    """How a login is refused: with a 401 or without an answer.

    `closes`: the camera also closes the connection.
    """

    answered: bool = True
    challenges: tuple[str, ...] = ()
    closes: bool = False


class SimulatedLogin:
    """The nonce of one connection, and the camera's answers to logins."""

    def __init__(self, camera: SimulatedCamera) -> None:
        self._camera = camera
        self._own_nonce = secrets.token_hex(16)

    def next_request(self) -> None:
        """Note that a request was accepted. With the quirk new-nonce the nonce changes."""
        if self._has("new-nonce"):
            self._own_nonce = secrets.token_hex(16)

    def accepts(self, request: Request) -> bool:
        """Whether a request has the correct login, or needs none."""
        camera = self._camera
        if not camera.username:
            return True
        if camera.record.locked:
            return False
        challenge = auth.strongest(auth.parse_challenges(self._challenges()))
        return challenge is not None and auth.accepts(
            request.headers.get("Authorization"),
            camera.username,
            camera.password,
            request.method,
            challenge.parameters | {"realm": REALM, "nonce": self._nonce},
        )

    def refuse(self, request: Request) -> LoginRefusal:
        """How a request is refused after `accepts` returned False. It counts wrong logins."""
        sent = request.headers.get("Authorization")
        if sent and not self._has("new-nonce"):  # new-nonce sends stale=true: no wrong login
            self._camera.wrong_login()
        if sent and self._has("wrong-login-closes"):
            return LoginRefusal(answered=False, closes=True)
        nonce = auth.parameters(sent.partition(" ")[2]).get("nonce", self._nonce)
        stale = bool(sent) and nonce != self._nonce
        if stale and self._has("stale-closes"):
            return LoginRefusal(answered=False, closes=True)
        if stale and self._has("stale-bare-401"):
            return LoginRefusal(closes=True)
        return LoginRefusal(
            challenges=tuple(self._challenges()), closes=self._has("closes-after-401")
        )

    @property
    def _nonce(self) -> str:
        kept = self._has("kept-nonce") or self._has("closes-after-401")
        return self._camera.nonce if kept else self._own_nonce

    def _challenges(self) -> list[str]:
        return challenges(self._camera.quirks, self._camera.auth == "basic", REALM, self._nonce)

    def _has(self, quirk: str) -> bool:
        return quirk in self._camera.quirks
