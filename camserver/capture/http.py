"""Fetch a camera's snapshot URL: one GET, digest or basic login, limited time and size."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from itertools import count

from cachetools import LRUCache

from camserver.capture.http_connection import Address, ConnectionBrokeError, HttpConnection
from camserver.capture.session import CaptureSessionBase
from camserver.capture.tls import tls_context
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.host.clock import Seconds, utc_now
from camserver.host.redact import Redactor
from camserver.host.tasks import finish
from camserver.http.picture import Picture
from camserver.http.reader import Answer
from camserver.http.words import Quote, said
from camserver.model import CodedKeyframe, Result, SessionEnd
from camserver.rtsp.auth import Challenge, authorization, not_spoken, parse_challenges, strongest

CLOSING_S = 0.3
"""How long a camera is given to close the connection after its 401, until it is known whether it
does. The login then goes over a new connection, and is not lost.
"""
MAX_REMEMBERED = 10_000
MAX_REDIRECTS = 5
MAX_LOGINS = 2
"""How many logins a fetch sends at most: another path of the camera may ask for one, too."""
MAX_BUSY = 3
"""How often a camera is asked again that is busy and says for how long."""
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (429, 503)
Server = tuple[str, str, int]
"""Scheme, host and port."""


class HttpEngine:
    """Fetches pictures by HTTP.

    Each fetch opens its own connection and closes it, because cameras allow few connections.

    A login answers the strongest challenge that the camera offers, over the connection on which the
    challenge came. The login is sent once. It is sent a second time only if the camera says that
    the nonce was too old.
    """

    def __init__(self, wall: Seconds = time.time) -> None:
        self._wall = wall
        # Whether a server closes the connection after its 401
        self._closes: LRUCache[Server, bool] = LRUCache(MAX_REMEMBERED)
        # Nonce counts of a server's challenge
        self._counts: LRUCache[tuple[Server, str], Iterator[int]] = LRUCache(MAX_REMEMBERED)

    def session(self, camera: Camera, url: str, deadline: float) -> HttpSession:
        """A GET of `url`, with its redirects and its login."""
        return HttpSession(self, camera, url, deadline)

    def decoded(self, camera: Camera, url: str, unit: CodedKeyframe) -> None:
        """Do nothing: this engine does not learn."""

    def undecodable(
        self, camera: Camera, url: str, unit: CodedKeyframe, error: CameraError
    ) -> None:
        """Do nothing: this engine does not learn."""

    async def fetch(self, line: HttpLine, url: str, deadline: float) -> Picture:
        """The picture at `url`, over `line`. The decoder checks later whether it is whole.

        Raises CameraError.
        """
        limit_s = deadline - _now()
        try:
            async with asyncio.timeout_at(deadline):
                return await self._fetch(line, Address.of(url), deadline)
        except TimeoutError:
            raise _error(Result.TIMEOUT, f"{line.waits_for} within {limit_s:.1f} s") from None
        except ConnectionBrokeError as error:
            result = Result.BAD_PICTURE if error.is_nonsense else Result.UNREACHABLE
            raise _error(result, str(error)) from None
        except ssl.SSLCertVerificationError:
            raise _error(Result.ERROR, "the certificate is not valid (tls_verify = true)") from None
        except ssl.SSLError as error:
            why = (error.reason or type(error).__name__).lower().replace("_", " ")
            raise _error(Result.UNREACHABLE, f"no TLS connection: {why}") from None
        except OSError as error:
            raise _error(Result.UNREACHABLE, reason(error)) from None
        except ValueError:  # its text may contain the URL
            raise _error(Result.ERROR, "it is no URL that can be asked for") from None
        finally:
            await finish(line.close())

    async def _fetch(self, line: HttpLine, address: Address, deadline: float) -> Picture:
        redirects, waits, asked = 0, 0, set[str]()
        while True:
            may_log_in = line.logins < MAX_LOGINS and address.target not in asked
            asked.add(address.target)
            answer = await self._ask(line, address, may_log_in=may_log_in)
            head = answer.head
            if head.status in REDIRECTS and head.first("location"):
                redirects += 1
                address = _followed(address, head.first("location"), redirects)
                continue
            retry_s = head.retry_after_s(self._wall()) if head.status in BUSY else 0.0
            may_wait = 0 < retry_s < deadline - _now() and waits < MAX_BUSY
            if not may_wait or line.login is not None:  # it would be asked for the login again
                return _picture(answer, line, retry_s)
            waits += 1
            await line.close()
            await asyncio.sleep(retry_s)

    async def _ask(self, line: HttpLine, address: Address, *, may_log_in: bool) -> Answer:
        """The answer to a GET, with the login if it is asked for.

        One login is sent, and a second one only to a camera that says that the nonce was too old.
        """
        camera, tried = line.camera, None
        answer = await line.get(address, {})
        while answer.head.status == 401 and camera.username and may_log_in:
            challenges = parse_challenges(answer.head.all("www-authenticate"))
            challenge = strongest(challenges)
            if tried is None and challenge is None:
                raise _error(Result.ERROR, f"{not_spoken(challenges)} (401)", status=401)
            if challenge is None or not _worth_a_try(challenge, tried):
                break
            stale, tried = tried is not None, challenge
            line.login, line.logins = challenge, line.logins + 1
            answer = await self._log_in(line, address, self._login(camera, address, challenge))
            if stale:
                break
        return answer

    def _login(self, camera: Camera, address: Address, challenge: Challenge) -> str:
        """The Authorization header. A nonce that a camera gives again is counted on."""
        key = address.server, challenge.nonce
        if key not in self._counts:
            self._counts[key] = count(1)
        return authorization(
            challenge,
            camera.username,
            camera.password,
            "GET",
            address.target,
            count=next(self._counts[key]),
            cnonce=secrets.token_hex(8),
        )

    async def _log_in(self, line: HttpLine, address: Address, login: str) -> Answer:
        """Raises CameraError when the camera closes the connection instead of answering."""
        if self._closes.get(address.server, True):
            await line.wait_closed(CLOSING_S)
        try:
            answer = await line.get(address, {"Authorization": login})
        except ConnectionBrokeError as error:
            self._closes.pop(address.server, None)
            why = "the camera closed the connection when it was sent the login"
            raise _error(
                Result.BAD_PICTURE if error.is_nonsense else Result.UNREACHABLE,
                str(error) if error.is_nonsense else why,
                login_refused=True,
            ) from None
        self._closes[address.server] = not line.was_reused
        return answer


class HttpLine:
    """The connection of one fetch. A new one is opened when the last one cannot be used again."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.login: Challenge | None = None
        """The challenge that was answered with the login. None: it was not sent."""
        self.logins = 0
        self.end = SessionEnd.NONE
        """How the newest request ended. Unclean: the camera may still be busy with it."""
        self._address: Address | None = None
        self._connection: HttpConnection | None = None
        self._may_reuse = False
        self.was_reused = False
        """Whether the newest request went over the connection of the one before."""

    @property
    def waits_for(self) -> str:
        """What did not come, for a person."""
        if self._connection is None:
            return "no connection was made"
        reader = self._connection.reader
        if reader.head is None:
            return "it did not answer"
        return f"it sent {reader.received} bytes, but no whole picture,"

    async def get(self, address: Address, headers: dict[str, str]) -> Answer:
        """Send a GET. Raises ConnectionBrokeError, OSError."""
        connection = self._connection
        same = self._address is not None and self._address.server == address.server
        self.was_reused = (
            connection is not None and self._may_reuse and same and not connection.is_closed
        )
        if connection is None or not self.was_reused:
            await self.close()
            tls = tls_context(self.camera.tls_verify) if address.scheme == "https" else None
            connection = self._connection = await HttpConnection.open(address, tls)
        self._address, self.end = address, SessionEnd.UNCLEAN
        answer = await connection.get(address, headers)
        self._may_reuse, self.end = answer.may_reuse, SessionEnd.CLEAN
        return answer

    async def wait_closed(self, limit_s: float) -> None:
        """Wait whether the camera closes the connection."""
        if self._connection is not None and self._may_reuse:
            await self._connection.wait_closed(limit_s)

    async def close(self) -> None:
        """Close the connection, and see it closed: then the lease may end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            await connection.wait_closed()


class HttpSession(CaptureSessionBase):
    """One GET, as a session that gives one picture."""

    def __init__(self, engine: HttpEngine, camera: Camera, url: str, deadline: float) -> None:
        self._engine = engine
        self._line = HttpLine(camera)
        self._url = url
        self._deadline = deadline

    @property
    def end(self) -> SessionEnd:
        """How its last request ended."""
        return self._line.end

    async def keyframe(self) -> CodedKeyframe:
        """The camera's picture. Raises CameraError."""
        picture = await self._engine.fetch(self._line, self._url, self._deadline)
        return CodedKeyframe(picture.kind.value, picture.data, b"", utc_now(), "")


def _worth_a_try(challenge: Challenge, tried: Challenge | None) -> bool:
    """Whether to send a login.

    The first one is always sent. A second one is sent only in the same scheme, when the camera says
    that the nonce was too old and gives another nonce.
    """
    if tried is None:
        return True
    return challenge.scheme == tried.scheme and challenge.stale and challenge.nonce != tried.nonce


def _followed(address: Address, location: str, redirects: int) -> Address:
    """The address of a redirect on the same host. Raises CameraError."""
    try:
        found = address.follow(location)
    except ValueError:
        raise _error(Result.ERROR, "it redirects to what is no URL") from None
    same = found.server == address.server
    secured = (address.scheme, address.port, found.scheme, found.port) == ("http", 80, "https", 443)
    if found.host != address.host:
        host = "".join(c if c.isprintable() else "?" for c in found.host[:100])
        why = f"it redirects to another host, {host}: give the final URL as snapshot_url"
    elif not same and not secured:  # behind one address, another port may be another device
        where = f"{found.scheme}, port {found.port}"
        why = f"it redirects to {where}: give the final URL as snapshot_url"
    elif redirects > MAX_REDIRECTS:
        why = f"it redirects more than {MAX_REDIRECTS} times"
    else:
        return found
    raise _error(Result.ERROR, why)


def _picture(answer: Answer, line: HttpLine, retry_after_s: float) -> Picture:
    """The picture of an answer. Raises CameraError."""
    if answer.picture is not None:
        return answer.picture
    head = answer.head
    words = said(answer.body, head.content_type, _scrub(line.camera))
    if head.status != 200:
        raise _refused(answer, line, words, retry_after_s)
    if answer.is_cut:
        raise _error(Result.BAD_PICTURE, f"the JPEG is not whole ({len(answer.body)} bytes came)")
    if not answer.body:
        raise _error(Result.BAD_PICTURE, "its answer is empty")
    raise _error(
        Result.BAD_PICTURE,
        f"it answered {words}" if words.kind else "what came is no picture (JPEG, PNG, WebP, BMP)",
    )


def _scrub(camera: Camera) -> Callable[[str], str]:
    """Removes the camera's login from a text, before the text is cut: a camera may repeat it."""
    login = f"{camera.username}:{camera.password}".encode()
    basic = base64.b64encode(login).decode()
    return Redactor([camera.password, basic.rstrip("=")]).scrub


def _refused(answer: Answer, line: HttpLine, words: Quote, retry_after_s: float) -> CameraError:
    status, tried = answer.head.status, line.login
    quoted = f": {words.text}" if words.text else ""
    if status == 401 and not line.camera.username:
        return _error(
            Result.AUTH, "it asks for a login: give username and password (401)", status=401
        )
    is_login = status == 403 and parse_challenges(answer.head.all("www-authenticate"))
    if status == 401 or is_login:
        label = f", login {tried.label}" if tried is not None else ""
        return _error(
            Result.AUTH,
            f"wrong username or password ({status}{label})",
            status=status,
            login_refused=tried is not None,
        )
    if status == 403:
        why = "forbidden: the camera is busy, or this user may not have it (403)"
        return _error(Result.FULL, why + quoted, status=status)
    if status in BUSY:
        again = f", and wants to be asked again in {retry_after_s:.0f} s" if retry_after_s else ""
        return _error(Result.FULL, f"the camera is busy ({status}){again}{quoted}", status=status)
    if status in REDIRECTS:
        return _error(Result.ERROR, f"it redirects, and does not say where ({status})")
    result = Result.NOT_FOUND if status == 404 else Result.ERROR
    return _error(result, f"it answers {status}{quoted}", status=status)


def reason(error: OSError) -> str:
    """Why no connection was made, without the address that is in asyncio's text.

    The error numbers of gaierror are negative.
    """
    number = error.errno or 0
    return (
        os.strerror(number).lower()
        if number > 0
        else "the host name is not known"
        if number
        else "connection failed"
    )


def _error(
    result: Result, message: str, *, status: int | None = None, login_refused: bool = False
) -> CameraError:
    return CameraError(
        result,
        f"the snapshot URL: {message}",
        SessionEnd.NONE,
        status=status,
        login_refused=login_refused,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
