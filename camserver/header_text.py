"""The text of protocol headers, in an encoding that nobody names. Pure.

A camera may write its realm in UTF-8, Latin-1 or GBK. The client sends it back, and computes the
digest over it: each byte must stay as it came, or a right password is refused. So bytes that are no
UTF-8 become lone surrogates, and become the same bytes again (PEP 383).
"""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""A character that a header may not have. A tab is allowed."""


def text_of(data: bytes) -> str:
    """The text of received bytes. `bytes_of` gives the same bytes back."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """The bytes to send, or to hash. Raises UnicodeEncodeError for surrogates of other origin."""
    return text.encode("utf-8", "surrogateescape")
