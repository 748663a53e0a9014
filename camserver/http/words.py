"""What a camera says instead of a picture, in few words for a person. Pure."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_CHARS = 100
MAX_READ = 4096
# They cost linear time: no part can begin again inside of itself
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<>]{0,500})</title", re.IGNORECASE)
_HIDDEN = re.compile(r"<(script|style)\b.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]{0,500}>")
_TELLING = ("message", "msg", "error", "errormsg", "detail", "reason", "description", "status")
"""Names in JSON whose texts say most, the best first."""


class Quote(NamedTuple):
    """What a body says. `kind` is JSON, HTML, XML or text; both are empty when it says nothing."""

    kind: str = ""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


def said(body: bytes, content_type: str, scrub: Callable[[str], str] = lambda text: text) -> Quote:
    """What a body says: "JSON: please login first". Nothing if it is empty, or no text.

    `scrub` removes secrets.
    """
    # What is cut is cut before: a part of a secret would not be found
    text = scrub(body[:MAX_READ].decode("utf-8", "replace")).lstrip("\ufeff \t\r\n")
    if not text or "\0" in text or text.count("\ufffd") > len(text) // 10:
        return Quote()
    if text[0] in "{[":
        return _line("JSON", _of_json(text))
    if text[0] == "<" or "html" in content_type or "xml" in content_type:
        is_html = "html" in content_type or re.match(r"<!doctype html|<html", text, re.IGNORECASE)
        return _line("HTML" if is_html else "XML", _of_markup(text))
    return _line("text", text)


def _of_json(text: str) -> str:
    try:
        texts = list(_texts(json.loads(text)))
    except (ValueError, RecursionError):
        return text
    found = dict(reversed(texts))  # the first of each name
    return next((found[name] for name in _TELLING if found.get(name)), text)


def _texts(value: Any, name: str = "") -> Any:
    if isinstance(value, str):
        yield name.lower(), value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(each, str(key))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, name)


def _of_markup(text: str) -> str:
    visible = _TAG.sub(" ", _HIDDEN.sub(" ", text))
    title = _TITLE.search(text)
    return html.unescape(title[1] if title and title[1].strip() else visible)


def _line(kind: str, text: str) -> Quote:
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    short = words if len(words) <= MAX_CHARS else words[: MAX_CHARS - 1].rstrip() + "…"
    return Quote(kind, short)
