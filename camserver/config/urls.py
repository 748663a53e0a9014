"""Check and split URLs of cameras. Pure. Errors never contain the URL."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from pydantic import AfterValidator

RTSP_PORTS = {"rtsp": 554, "rtsps": 322}
HTTP_PORTS = {"http": 80, "https": 443}


def check_url(url: str, ports: dict[str, int]) -> SplitResult:
    """Split a camera's URL. Raises ValueError without the URL, which may contain a password."""
    schemes = "://, ".join(ports) + "://"
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok = False
    if not port_ok:
        raise ValueError(
            'not a URL (is there a / # ? or : in the password? Then give it as password = "…")'
        )
    if parts.scheme not in ports:
        raise ValueError(f"expected a URL that begins with {schemes}")
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError(
            "there is a space in the URL: in a path write %20; in a password, give it as password"
            ' = "…"'
        )
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if parts.fragment:
        raise ValueError(
            'there is a # in the URL: in a password, give it as password = "…"; elsewhere write %23'
        )
    # Otherwise a part of the password would be used as a host name and be looked up
    if "@" in parts.path + parts.query and "@" in parts.netloc:
        raise ValueError(
            "there is a / or ? in the password, or an @ after the host: give the password as"
            ' password = "…"; an @ of the path or the query is written %40'
        )
    if "@" in parts.path + parts.query and ":" in parts.netloc and "@" not in parts.netloc:
        raise ValueError(
            'there is a / or ? in the password: give it as password = "…"; an @ of the path is'
            " written %40"
        )
    return parts


def _rtsp(url: str) -> str:
    check_url(url, RTSP_PORTS)
    return url


def _http(url: str) -> str:
    check_url(url, HTTP_PORTS)
    return url


RtspUrl = Annotated[str, AfterValidator(_rtsp)]
HttpUrl = Annotated[str, AfterValidator(_http)]


def host_of(url: str) -> str:
    """The host of a URL, in the form for URLs: an IPv6 address is in brackets."""
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host


def split_credentials(url: str | None) -> tuple[str | None, str, str]:
    """(URL without credentials, username, password). The last two are percent-decoded."""
    if url is None:
        return None, "", ""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, "", ""
    user, _, password = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=host)), unquote(user), unquote(password)


def with_credentials(url: str, username: str, password: str) -> str:
    """`url` with percent-encoded userinfo. Most programs decode it before they use it."""
    if not username:
        return url
    parts = urlsplit(url)
    userinfo = quote(username, safe="") + (":" + quote(password, safe="") if password else "")
    return urlunsplit(parts._replace(netloc=f"{userinfo}@{parts.netloc}"))
