"""Digest (RFC 7616: MD5 and SHA-256, qop auth or none) and basic (RFC 7617) authentication. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field

ALGORITHMS = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
_PARAMETER = re.compile(r'\b(\w{1,32})\s{0,8}=\s{0,8}(?:"((?:[^"\\]|\\.)*)"|([^\s,]*))')
MAX_CHALLENGE_CHARS = 4096


def parameters(text: str) -> dict[str, str]:
    """The name=value pairs of a challenge or of credentials, unquoted."""
    return {m[1].lower(): re.sub(r"\\(.)", r"\1", m[2]) if m[2] is not None else m[3] for m in _PARAMETER.finditer(text)}


def digest(username: str, password: str, method: str, uri: str, fields: dict[str, str]) -> str:
    """The `response` of digest credentials; `fields` are those of the challenge plus nc and cnonce when qop is used.

    Raises KeyError for a missing field or an unknown algorithm.
    """
    algorithm = ALGORITHMS[fields.get("algorithm", "MD5").upper()]

    def h(*parts: str) -> str:
        return algorithm(":".join(parts).encode()).hexdigest()

    ha1, ha2 = h(username, fields["realm"], password), h(method, uri)
    if fields.get("qop"):
        return h(ha1, fields["nonce"], fields["nc"], fields["cnonce"], fields["qop"], ha2)
    return h(ha1, fields["nonce"], ha2)


def basic(username: str, password: str) -> str:
    """The value of an Authorization header for basic authentication."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def accepts(authorization: str, username: str, password: str, method: str, challenge: dict[str, str]) -> bool:
    """Server's side: whether an Authorization header proves the password against `challenge` (its realm and nonce)."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "basic":
        return authorization == basic(username, password)
    fields = parameters(rest)
    if fields.get("nonce") != challenge["nonce"] or fields.get("username") != username:
        return False
    try:
        return fields.get("response") == digest(username, password, method, fields["uri"], challenge | fields)
    except KeyError:
        return False


@dataclass(slots=True)
class Login:
    """Client's side: answers challenges, remembers the last one so that the next session needs no 401 first."""

    username: str
    password: str = field(repr=False)
    scheme: str = ""
    challenge: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def take(self, header: str) -> bool:
        """Remember the strongest challenge of a WWW-Authenticate header; False when answering it would be no use.

        It would when it is another nonce than the one last answered. The same nonce again means that the password is wrong;
        so does a new one for the same request, unless `stale` is true: that is the caller's to see.
        """
        header = header[:MAX_CHALLENGE_CHARS]
        offered = sorted(((_STRENGTH[key], scheme, fields) for scheme, fields in _challenges(header)
                          if (key := _strength_key(scheme, fields)) in _STRENGTH), key=lambda offer: offer[0])
        if not self.username or not offered:
            return False
        _, scheme, fields = offered[-1]
        fresh = (scheme, fields.get("nonce")) != (self.scheme, self.challenge.get("nonce"))
        self.scheme, self.challenge, self.count = scheme, fields, 0
        return fresh

    @property
    def stale(self) -> bool:
        """Whether the last challenge says that only the nonce was wrong, not the password."""
        return self.challenge.get("stale", "").lower() == "true"

    def header(self, method: str, uri: str, cnonce: str) -> str | None:
        """The Authorization header for a request, None before the first challenge."""
        if self.scheme == "basic":
            return basic(self.username, self.password)
        if not self.scheme:
            return None
        fields = dict(self.challenge)
        if "auth" in (word.strip() for word in fields.get("qop", "").split(",")):
            self.count += 1
            fields |= {"qop": "auth", "nc": f"{self.count:08x}", "cnonce": cnonce}
        else:
            fields.pop("qop", None)
        response = digest(self.username, self.password, method, uri, fields)
        quoted = {"username": self.username, "realm": fields["realm"], "nonce": fields["nonce"], "uri": uri,
                  "response": response} | {key: fields[key] for key in ("opaque",) if key in fields}
        plain = {key: fields[key] for key in ("algorithm",) if key in fields}
        if "qop" in fields:
            plain |= {"qop": "auth", "nc": fields["nc"]}
            quoted["cnonce"] = cnonce
        return "Digest " + ", ".join([*(f'{k}="{_escape(v)}"' for k, v in quoted.items()),
                                      *(f"{k}={v}" for k, v in plain.items())])


_STRENGTH = {"basic": 0, "MD5": 1, "SHA-256": 2}


def _strength_key(scheme: str, fields: dict[str, str]) -> str:
    if scheme == "basic":
        return scheme
    return fields.get("algorithm", "MD5").upper() if {"realm", "nonce"} <= fields.keys() else ""


def _challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    parts = re.split(r"(?i)(?:^|,\s*)(digest|basic)\s+", header)
    return [(scheme.lower(), parameters(rest)) for scheme, rest in zip(parts[1::2], parts[2::2], strict=True)]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
