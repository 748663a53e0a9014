"""Removes secrets and terminal control characters from every text that leaves the process.

It owns the known secrets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from urllib.parse import quote, quote_plus

MASK = "***"
# user:password@ in any URL, also when the password contains an '@' that was not encoded.
# The lengths are limited, because the search would cost the square of the text otherwise.
_USERINFO = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]{0,15}://)(?:[^\s@/]{0,512}@)+")


# Texts from cameras reach terminals and pages. So escape sequences are removed, and characters
# that change the direction of a text or can't be seen: they can make a text look like another one.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
LONG_TEXT = 32_000
MAX_TEXT = 1000
"""The most characters of a text that comes from outside, in one line of the log or of a page."""


# The login of a request, in any header line or traceback: base64, or the answer to a challenge
_AUTHORIZATION = re.compile(r"(?i)(authorization\W{1,6}(?:b\W)?(?:basic|digest|bearer))\s[^\r\n]*")
_Forms = dict[str, tuple[tuple[int, ...], frozenset[str]]]
"""First characters -> (lengths of the secrets that begin so, longest first; the secrets)."""
_NONE: tuple[tuple[int, ...], frozenset[str]] = ((), frozenset())
PREFIX = 3
"""Secrets are found by their first characters. Shorter secrets are ignored."""


class Redactor:
    """Replaces known secrets (plain or percent-encoded), the user info of URLs, and logins.

    The cost does not grow with the number of secrets: a text is read once, and each position is
    looked up in a dictionary, once for each length of secrets that begin so.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: _Forms = {}
        self.replace_secrets(secrets)

    def replace_secrets(self, secrets: Iterable[str]) -> None:
        """Replace the known secrets."""
        found: dict[str, set[str]] = {}
        for secret in secrets:
            for form in (
                secret,
                quote(secret, safe=""),
                quote(secret),
                quote_plus(secret),
                repr(secret)[1:-1],
            ):
                # Secrets of one or two characters would mask almost every text
                if len(form) >= PREFIX:
                    found.setdefault(form[:PREFIX], set()).add(form)
        # The longest come first: a secret that contains another one must be masked as a whole
        self._forms = {
            prefix: (tuple(sorted({len(f) for f in forms}, reverse=True)), frozenset(forms))
            for prefix, forms in found.items()
        }

    def scrub(self, text: str) -> str:
        """`text` without known secrets, user info of URLs, logins and control characters."""
        return _scrub(self._forms, text)

    def line(self, text: str) -> str:
        """`scrub`, in one line of limited length."""
        return _line(self._forms, text)

    def line_of_now(self) -> Callable[[str], str]:
        """`line` with the secrets that are known now, whatever replaces them until it is called."""
        return partial(_line, self._forms)


def _scrub(forms: _Forms, text: str) -> str:
    text = _USERINFO.sub(rf"\1{MASK}@", _mask(forms, text))
    return _CONTROL.sub("?", _AUTHORIZATION.sub(rf"\1 {MASK}", text))


def _line(forms: _Forms, text: str) -> str:
    if len(text) > LONG_TEXT:  # without the end, where a secret may be cut
        text = text[: LONG_TEXT - MAX_TEXT]
    text = _scrub(forms, text[:LONG_TEXT]).replace("\n", " ")
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _mask(forms: _Forms, text: str) -> str:
    if not forms:
        return text
    parts: list[str] = []
    copied = at = 0
    while at <= len(text) - PREFIX:
        lengths, known = forms.get(text[at : at + PREFIX], _NONE)
        for length in lengths:
            if text[at : at + length] in known:
                parts += (text[copied:at], MASK)
                at = copied = at + length
                break
        else:
            at += 1
    return "".join((*parts, text[copied:]))
