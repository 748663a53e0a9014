"""Digest (RFC 7616: MD5 and SHA-256, qop auth or none) and basic (RFC 7617) authentication. Pure."""

from __future__ import annotations

import base64
import hashlib
import re

ALGORITHMS = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]*))')


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
