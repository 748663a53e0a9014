"""Removes secrets and terminal control characters from every text that leaves the process.

It owns the known secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"
# user:password@ in any URL, also when the password contains an '@' that was not encoded.
_USERINFO = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s@/]*@)+")


# Texts from cameras reach terminals, so escape sequences are removed.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Redactor:
    """Replaces known secrets (plain or percent-encoded) and the user info of any URL."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: tuple[str, ...] = ()
        self.replace_secrets(secrets)

    def replace_secrets(self, secrets: Iterable[str]) -> None:
        """Replace the known secrets."""
        forms = {
            form
            for s in secrets
            for form in (s, quote(s, safe=""), quote(s), quote_plus(s), repr(s)[1:-1])
        }
        # The longest come first: a secret that contains another one must be masked as a whole.
        # Secrets of one or two characters are ignored, because they would mask almost every text.
        self._forms = tuple(sorted((f for f in forms if len(f) > 2), key=len, reverse=True))

    def scrub(self, text: str) -> str:
        """`text` without known secrets, user info of URLs and control characters."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return _CONTROL.sub("?", _USERINFO.sub(rf"\1{MASK}@", text))
