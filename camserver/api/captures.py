"""Who may have a picture taken, and for whom it is taken: the rule of each server of the API."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from camserver.api.listener import PEER
from camserver.api.responses import MAX_LABEL_CHARS, refusal
from camserver.client.exchange import CLAIM_BY_SECRET, CLAIM_HEADER
from camserver.leases import Holder

CAPTURE_HEADER, NO_CAPTURE = "X-Camserver-Capture", "no"
"""A host of a fleet that forwards a request says so when no session may be opened for it."""


def anybody(_: web.Request) -> str | None:
    """The rule of a server whose clients may all have pictures taken."""
    return None


@dataclass(frozen=True, slots=True)
class CaptureRule:
    """The rule of one server."""

    asker: Callable[[web.Request], Holder]
    """Returns for whom a picture is taken, as `leases` shows it."""
    refused: Callable[[web.Request], str | None] = anybody
    """Returns why no session may be opened for a request, or None when it may."""


CAPTURES: web.AppKey[CaptureRule] = web.AppKey("captures", CaptureRule)
"""Where an application keeps its rule."""


def passed_on(request: web.Request) -> dict[str, str]:
    """Return the headers that tell another host of the fleet whether it may open a session."""
    is_refused = request.app[CAPTURES].refused(request) is not None
    return {CAPTURE_HEADER: NO_CAPTURE} if is_refused else {}


def holder_of(request: web.Request, kind: str) -> Holder:
    """Return who sent the request, as the kernel knows the peer (unix(7), SO_PEERCRED)."""
    label = request.query.get("label", "")
    if not label.isprintable() or len(label) > MAX_LABEL_CHARS:
        raise refusal(
            web.HTTPBadRequest,
            f"label: expected printable text of at most {MAX_LABEL_CHARS} characters",
        )
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return Holder(kind, label)
    keeps_secret = request.headers.get(CLAIM_HEADER) == CLAIM_BY_SECRET
    pid, uid, _ = PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    command = ""
    with contextlib.suppress(OSError):  # the process may have ended already
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
        # The name is shown on terminals: no control characters.
        command = "".join(c if c.isprintable() else "?" for c in name)
    return Holder(kind, label or command, pid, uid, command, keeps_secret)
