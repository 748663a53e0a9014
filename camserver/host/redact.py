"""Keeps secrets, and what terminals would obey, out of every text that leaves the process.

Owns the known secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"
# user:password@ in any URL, also when the password holds an '@' that somebody forgot to encode.
_USERINFO = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s@/]*@)+")


# Cameras' words reach terminals: no escape sequences.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Redactor:
    """Replaces known secrets, plain or percent-encoded, and the userinfo of any URL."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: tuple[str, ...] = ()
        self.replace_secrets(secrets)

    def replace_secrets(self, secrets: Iterable[str]) -> None:
        """Forget the old secrets and know these."""
        forms = {
            form
            for s in secrets
            for form in (s, quote(s, safe=""), quote(s), quote_plus(s), repr(s)[1:-1])
        }
        # Longest first, so that one secret inside another leaves no rest. One or two characters
        # would blank every text.
        self._forms = tuple(sorted((f for f in forms if len(f) > 2), key=len, reverse=True))

    def scrub(self, text: str) -> str:
        """`text` without any secret."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return _CONTROL.sub("?", _USERINFO.sub(rf"\1{MASK}@", text))
