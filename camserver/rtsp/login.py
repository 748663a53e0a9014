"""The login of one RTSP connection, and what is known about a camera's nonces. Pure.

Rule two: a correct password is never sent in a way that a camera can count as a wrong one. So a
connection answers its own challenge. A challenge of an earlier connection is used again only when
the camera is proved to keep its nonce: two connections in a row, both begun without a login, got
the same challenge. After one refusal this is disproved for as long as this program runs.

A next nonce that the camera gives (Authentication-Info) is used on the same connection only.
Another connection could send it at the same time, and most such cameras accept each nonce once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import count

from camserver.rtsp.auth import (
    Challenge,
    authorization,
    not_spoken,
    parameters,
    parse_challenges,
    strongest,
)


class Verdict(Enum):
    """What a 401 means for the request that got it."""

    ANSWER = auto()  # send the request again: there is a challenge to answer
    RECONNECT = auto()  # the remembered challenge is useless: begin again on a new connection
    NO_LOGIN = auto()  # the camera asks for a login, and none is configured
    NOT_SPOKEN = auto()  # the camera offers no scheme that camserver supports
    WRONG = auto()  # the camera refused the password: the answered challenge was valid
    # The login was accepted before on this connection, but this request was refused
    LATER_REFUSED = auto()


@dataclass(slots=True)
class LoginCache:
    """What is known of one camera's login. All its connections share it, also at the same time."""

    username: str
    password: str = field(repr=False)
    kept: Challenge | None = None
    """A challenge that the camera is proved to keep."""
    kept_counts: Iterator[int] = field(default_factory=lambda: count(1), repr=False)
    """Its nonce counts, for all connections that use it. No count may be used twice."""
    taken: Challenge | None = None
    taken_counts: Iterator[int] = field(default_factory=lambda: count(1), repr=False)
    """The newest challenge that was answered, and its nonce counts."""
    newest: Challenge | None = None
    """The newest accepted challenge of a connection that began without a login."""
    disproved: bool = False
    """A kept challenge was refused once. So no challenge is kept again."""
    single_use: bool = False
    """The camera accepts each nonce once. So every request is first sent without a login."""
    closes_after_challenge: bool | None = None
    """The camera closes the connection after its 401. So the answer is sent over the next one.

    None: not known yet.
    """

    def counts_of(self, challenge: Challenge) -> Iterator[int]:
        """The nonce counts of a challenge; they go on where they are, if it is the newest one."""
        if self.taken is None or not self.taken.same_as(challenge):
            self.taken, self.taken_counts = challenge, count(1)
        return self.taken_counts

    def forget(self) -> None:
        """Forget the kept challenge, because it was refused."""
        self.kept, self.disproved = None, True


class Login:
    """The login of one connection.

    Call `authorization` for each request, then `accepted` or `refused` for its answer.
    """

    def __init__(self, cache: LoginCache, carried: Challenge | None = None) -> None:
        """`carried` is the challenge of the last connection, which the camera then closed."""
        self._cache = cache
        self._challenge = carried or cache.kept
        self._counts = cache.counts_of(carried) if carried is not None else cache.kept_counts
        self._carried = carried is not None
        self._remembered = carried is None and cache.kept is not None
        self._accepted = False
        self._answered_stale = carried is not None and carried.stale
        self._answered_again = False
        self._given_up = False
        self.offered: list[Challenge] = []
        """The challenges of the newest 401."""

    @property
    def challenge(self) -> Challenge | None:
        """The challenge that the next request answers."""
        return self._challenge

    @property
    def remembered(self) -> bool:
        """Whether it answers a kept challenge that this connection has not confirmed yet."""
        return self._remembered and not self._accepted

    @property
    def carried(self) -> bool:
        """Whether it answers the challenge of the last connection, which the camera closed."""
        return self._carried

    @property
    def was_accepted(self) -> bool:
        """Whether the camera has accepted the login on this connection."""
        return self._accepted

    @property
    def words(self) -> str:
        """The error text that names the unsupported schemes that the camera offers."""
        return not_spoken(self.offered)

    def authorization(self, method: str, uri: str, cnonce: str) -> str | None:
        """The Authorization header of a request. None while there is no challenge to answer."""
        cache = self._cache
        # Another connection's use of the kept challenge may have been refused meanwhile
        if self.remembered and self._challenge is not cache.kept:
            self._challenge, self._remembered = None, False
        challenge = self._challenge
        if challenge is None or self._given_up:
            return None
        number = next(self._counts)
        return authorization(
            challenge, cache.username, cache.password, method, uri, count=number, cnonce=cnonce
        )

    def accepted(self, authentication_info: str) -> None:
        """Note that a request with a login got an answer other than 401 and 403."""
        cache, challenge = self._cache, self._challenge
        if challenge is None or self._given_up:
            return
        if not self._accepted and not self._remembered:
            self._compare(challenge)
        self._accepted = True
        if self._answered_again:
            self._answered_again = False
            cache.single_use |= not challenge.stale
        nonce = parameters(authentication_info).get("nextnonce", "")
        if nonce and challenge.scheme == "digest":
            names = dict(challenge.parameters) | {"nonce": nonce}
            self._challenge, self._counts = replace(challenge, parameters=names), count(1)
        elif cache.single_use:
            self._challenge = None

    def give_up(self) -> None:
        """Send no login over this connection any more."""
        self._given_up = True

    def refused(self, headers: Sequence[str], *, sent: bool) -> Verdict:
        """What a 401 means.

        `headers` are its WWW-Authenticate fields. `sent` says whether a login was sent.
        """
        self.offered = parse_challenges(headers)
        offer = strongest(self.offered)
        if not self._cache.username:
            return Verdict.NO_LOGIN
        if self._given_up:
            return Verdict.LATER_REFUSED
        if not sent:
            return Verdict.NOT_SPOKEN if offer is None else self._take(offer)
        if self.remembered:
            return self._remembered_refused(offer)
        return self._own_refused(offer)

    def _own_refused(self, offer: Challenge | None) -> Verdict:
        """What it means that the answer to a challenge of this connection was refused."""
        answered = "" if self._challenge is None else self._challenge.nonce
        another = offer if offer is not None and offer.nonce != answered else None
        if self._accepted:
            if another is None or self._answered_again:
                self._given_up = True
                return Verdict.LATER_REFUSED
            self._answered_again = True
            return self._take(another)
        same_scheme = (
            self._challenge is not None
            and offer is not None
            and offer.scheme == self._challenge.scheme
        )
        if another is not None and another.stale and same_scheme and not self._answered_stale:
            self._answered_stale = True
            return self._take(another)
        return Verdict.WRONG

    def _take(self, offer: Challenge) -> Verdict:
        cache = self._cache
        self._challenge, self._counts = offer, cache.counts_of(offer)
        self._remembered = False
        return Verdict.ANSWER

    def _remembered_refused(self, offer: Challenge | None) -> Verdict:
        answered = self._challenge
        self._cache.forget()
        if offer is None:
            return Verdict.RECONNECT
        if answered is not None and offer.same_as(answered) and not offer.stale:
            return Verdict.WRONG  # the camera still keeps this nonce, so the password has changed
        return self._take(offer)

    def _compare(self, challenge: Challenge) -> None:
        """Keep the challenge when two connections in a row got the same one."""
        cache = self._cache
        same = cache.newest is not None and cache.newest.same_as(challenge)
        cache.newest = challenge
        if same and not cache.disproved and not cache.single_use:
            cache.kept, cache.kept_counts = challenge, self._counts
