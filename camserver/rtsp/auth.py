"""Login schemes of RTSP and HTTP: challenges, digest and basic. Pure.

Sources: RFC 9110, 11.6.1 (challenges), RFC 7616 (digest), RFC 7617 (basic).

Client's side: `parse_challenges`, `strongest`, `authorization`. Server's side, for the simulator:
`accepts`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from camserver.header_text import CONTROL, bytes_of

MAX_CHALLENGE_CHARS = 4096
STRENGTH = {
    "basic": 0,
    "MD5-SESS": 1,
    "MD5": 2,
    "SHA-256-SESS": 3,
    "SHA-256": 4,
    "SHA-512-256": 5,
}
"""The schemes that camserver supports, the weakest first."""
_HASHES: dict[str, Callable[[bytes], str]] = {
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data).hexdigest(),
}
_SEPARATOR = re.compile(r"[\s,]*", re.ASCII)
_WORD = re.compile(r'[^\s,="]{1,200}', re.ASCII)
_EQUALS = re.compile(r"\s{0,8}=\s{0,8}", re.ASCII)
# A quote ends a quoted string only before a comma, the end or the next parameter. Elsewhere it is a
# quote that the camera did not escape.
_QUOTED = re.compile(
    r'"((?:[^"\\]|(?<![^\x00-\x7f])\\["\\]|\\|"(?!\s{0,8}(?:,|$)|\s{1,8}[\w-]{1,20}\s{0,8}=))*)"?',
    re.DOTALL | re.ASCII,
)
# A backslash after a byte of another encoding is the second half of a character (GBK, Shift-JIS).
_ESCAPED = re.compile(r'(?<![^\x00-\x7f])\\(["\\])')
_BARE_QUOTE = re.compile(r'(?<!\\)"')
_BARE = re.compile(r"[^\s,]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a server.

    The scheme is in lower case. The parameters are unquoted, with names in lower case.
    """

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)
    quoted: dict[str, str] = field(default_factory=dict)
    """The text between the quotes, as it came, of those that were quoted."""

    @property
    def algorithm(self) -> str:
        """The digest algorithm in upper case. MD5 when none is named (RFC 7616, 3.3)."""
        return self.parameters.get("algorithm", "MD5").strip().upper() or "MD5"

    @property
    def nonce(self) -> str:
        """The digest nonce. Empty for other schemes."""
        return self.parameters.get("nonce", "")

    @property
    def stale(self) -> bool:
        """Whether only the nonce was too old. Then the password is not in doubt."""
        return self.parameters.get("stale", "").lower() == "true"

    @property
    def qop(self) -> str:
        """The quality of protection of an answer: "auth", or empty for the form of RFC 2069."""
        return "auth" if "auth" in self._offered_qops() else ""

    @property
    def strength(self) -> int | None:
        """Its value in STRENGTH. None when camserver does not support it."""
        if self.scheme == "basic":
            return STRENGTH["basic"]
        if self.scheme != "digest" or not self.nonce or self._is_unsendable:
            return None
        if self._offered_qops() and not self.qop:
            return None
        return STRENGTH.get(self.algorithm)

    @property
    def label(self) -> str:
        """Its name for people.

        Examples: "basic", "digest SHA-256", "digest MD5 with qop auth-int", "bearer".
        """
        if self.scheme != "digest":
            return self.scheme
        algorithm = self.algorithm.removesuffix("-SESS")
        name = algorithm + ("-sess" if algorithm != self.algorithm else "")
        if self._offered_qops() and not self.qop:
            name += f" with qop {self.parameters['qop']}"
        if self._is_unsendable:
            name += " with control characters"
        return f"digest {name}" + ("" if self.nonce else " without a nonce")

    def same_as(self, other: Challenge) -> bool:
        """Whether an answer to one challenge also answers the other."""
        names = ("realm", "nonce", "opaque", "qop", "algorithm")
        return self.scheme == other.scheme and all(
            self.parameters.get(name) == other.parameters.get(name) for name in names
        )

    @property
    def _is_unsendable(self) -> bool:
        """Whether an answer could not repeat it. An answer to another realm is a wrong login."""
        repeated = ("realm", "nonce", "opaque", "algorithm")
        return any(CONTROL.search(self.parameters.get(name, "")) for name in repeated)

    def _offered_qops(self) -> list[str]:
        words = self.parameters.get("qop", "").replace(",", " ").split()
        return [word.strip().lower() for word in words]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all WWW-Authenticate headers, in their order. Never raises."""
    found: list[Challenge] = []
    for header in headers:
        if len(header) <= MAX_CHALLENGE_CHARS:  # the digest over a part of it would be wrong
            found += _parse_header(header)
    return found


def strongest(challenges: Iterable[Challenge]) -> Challenge | None:
    """The strongest challenge that camserver supports. The first of several equal ones."""
    best: Challenge | None = None
    for challenge in challenges:
        if challenge.strength is None:
            continue
        if best is None or challenge.strength > (best.strength or 0):
            best = challenge
    return best


def not_spoken(challenges: Iterable[Challenge]) -> str:
    """The error text for a camera that offers no scheme that camserver supports."""
    labels = list(dict.fromkeys(challenge.label for challenge in challenges))
    if not labels:
        return "it refuses access and offers no way to log in"
    return f"it wants a login that camserver does not speak: {', '.join(labels)}"


def _parse_header(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    name, value_ends = "", 0
    at = 0
    while True:
        separator = _SEPARATOR.match(header, at)
        at = separator.end() if separator else at
        starts = separator is None or separator.start() == 0 or "," in separator[0]
        word = _WORD.match(header, at)
        if word is None:
            if at >= len(header):
                return found
            at += 1  # a stray quote or equals sign
            continue
        at = word.end()
        equals = _EQUALS.match(header, at)
        if equals is not None and found:
            name = word[0].lower()
            value, quoted, at = _value(header, equals.end())
            if name not in found[-1].parameters:
                found[-1].parameters[name] = value
                found[-1].quoted.update({} if quoted is None else {name: quoted})
            value_ends = at
        elif starts:
            found.append(Challenge(word[0].lower()))
            name = ""
        elif name:  # an unquoted value with spaces in it
            found[-1].parameters[name] += header[value_ends:at]
            value_ends = at


def _value(header: str, at: int) -> tuple[str, str | None, int]:
    """The value at `at`, the text between its quotes if it has any, and where it ends."""
    if quoted := _QUOTED.match(header, at):
        return _ESCAPED.sub(r"\1", quoted[1]), quoted[1], quoted.end()
    bare = _BARE.match(header, at)
    return (bare[0], None, bare.end()) if bare else ("", None, at)


def parameters(text: str) -> dict[str, str]:
    """The name=value pairs of credentials or Authentication-Info: unquoted, lower-case names."""
    challenges = _parse_header("x " + text[:MAX_CHALLENGE_CHARS])
    return challenges[0].parameters if challenges else {}


def digest(username: str, password: str, method: str, uri: str, fields: dict[str, str]) -> str:
    """The `response` of digest credentials (RFC 7616, 3.4.1).

    `fields` are those of the challenge, plus nc and cnonce when qop is used, plus cnonce for the
    "-sess" algorithms. Raises KeyError for a missing field or an unsupported algorithm.
    """
    name = fields.get("algorithm", "MD5").strip().upper() or "MD5"
    algorithm = _HASHES[name.removesuffix("-SESS")]

    def h(*parts: str) -> str:
        return algorithm(bytes_of(":".join(parts)))

    secret, what = h(username, fields.get("realm", ""), password), h(method, uri)
    if name.endswith("-SESS"):
        secret = h(secret, fields["nonce"], fields["cnonce"])
    if fields.get("qop"):
        return h(secret, fields["nonce"], fields["nc"], fields["cnonce"], fields["qop"], what)
    return h(secret, fields["nonce"], what)


def basic(username: str, password: str) -> str:
    """The value of an Authorization header for basic authentication."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def authorization(
    challenge: Challenge,
    username: str,
    password: str,
    method: str,
    uri: str,
    *,
    count: int,
    cnonce: str,
) -> str:
    """The Authorization header that answers a challenge of a supported scheme.

    `count` is the nonce count: how many requests have used this nonce, including this one.
    """
    if challenge.scheme == "basic":
        return basic(username, password)
    fields = dict(challenge.parameters)
    fields |= {"qop": challenge.qop, "nc": f"{count:08x}", "cnonce": cnonce}
    quoted = {
        "username": _escape(username),
        "realm": _repeated(challenge, "realm"),
        "nonce": _repeated(challenge, "nonce"),
        "uri": _escape(uri),
        "response": digest(username, password, method, uri, fields),
    }
    if "opaque" in fields:
        quoted["opaque"] = _repeated(challenge, "opaque")
    plain: dict[str, str] = {}
    if "algorithm" in fields:
        plain["algorithm"] = fields["algorithm"]
    if challenge.qop:
        plain |= {"qop": challenge.qop, "nc": fields["nc"]}
    if challenge.qop or challenge.algorithm.endswith("-SESS"):
        quoted["cnonce"] = cnonce
    return "Digest " + ", ".join(
        [
            *(f'{name}="{value}"' for name, value in quoted.items()),
            *(f"{name}={value}" for name, value in plain.items()),
        ]
    )


def accepts(
    authorization: str, username: str, password: str, method: str, challenge: dict[str, str]
) -> bool:
    """Whether an Authorization header proves the password for `challenge`. Server's side."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "basic":
        return authorization == basic(username, password)
    fields = parameters(rest)
    if fields.get("nonce") != challenge["nonce"] or fields.get("username") != username:
        return False
    try:
        wanted = digest(username, password, method, fields["uri"], challenge | fields)
    except KeyError:
        return False
    return fields.get("response") == wanted


def _repeated(challenge: Challenge, name: str) -> str:
    """A parameter for the answer, as it came. Quotes that the camera did not escape are escaped."""
    value, text = challenge.parameters.get(name, ""), challenge.quoted.get(name, "")
    # A nonce may have been replaced since (nextnonce)
    is_of_value = _ESCAPED.sub(r"\1", text) == value
    return text if is_of_value and not _BARE_QUOTE.search(text) else _escape(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
