"""The engine `libav`: RTSP through libav in a session worker. Parent's side; shows an access unit.

The worker holds the session, so `fetch` comes back only when the worker has closed it or is dead
and reaped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit, urlunsplit

from camserver.config import Camera
from camserver.errors import CameraError
from camserver.model import AccessUnit, Result, SessionEnd
from camserver.workers.pool import Reply, WorkerPool

MARGIN_S = 0.3
"""The worker gives up this much before the deadline, so that it can close the session itself.

Then it is killed.
"""


class LibavEngine:
    """Fetches access units; remembers which streams need the larger probe."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._probes: dict[str, str] = {}

    async def fetch(
        self,
        camera: Camera,
        url: str,
        deadline: float,
        ended: Callable[[SessionEnd], None],
        seen: Callable[[AccessUnit], None],
    ) -> None:
        """Show the first whole keyframe of `url` to `seen`, when the session is closed.

        `ended` is told how it ended.

        `deadline` is a moment of the event loop's clock, which is the host's monotonic one: the
        worker reads the same. Raises CameraError. When this is cancelled, the worker has a moment
        to tear the session down, or is dead.
        """
        left_s = deadline - asyncio.get_running_loop().time()
        order = {
            "url": with_credentials(url, camera.username, camera.password),
            "transport": camera.transport,
            "deadline": deadline - min(MARGIN_S, left_s / 4),
            "probe": self._probes.get(url, "small"),
            "tls_verify": camera.tls_verify,
        }
        ended(SessionEnd.UNCLEAN)  # so it is if this is cancelled: the worker is killed
        try:
            reply = await self._pool.run(
                "fetch", order, deadline=deadline, late=lambda reply: ended(_end(reply))
            )
        except CameraError as error:
            ended(error.end)
            raise
        try:
            ended(SessionEnd(reply.data["end"]))
            cut = int(reply.data["extradata_bytes"])
            at = datetime.fromtimestamp(float(reply.data["at"]), UTC)
            if reply.data["probe"] != "small":
                self._probes[url] = "large"
            unit = AccessUnit(
                str(reply.data["codec"]), reply.blob[cut:], reply.blob[:cut], at, "libav"
            )
        except (KeyError, ValueError, TypeError, OverflowError):
            raise CameraError(
                Result.CRASHED, "the session worker sent an answer that makes no sense"
            ) from None
        seen(unit)


def _end(reply: Reply) -> SessionEnd:
    try:
        return SessionEnd(reply.data["end"])
    except (KeyError, ValueError):
        return SessionEnd.UNCLEAN


def with_credentials(url: str, username: str, password: str) -> str:
    """`url` with percent-encoded userinfo.

    Libav decodes it again before it uses it (httpauth.c).
    """
    if not username:
        return url
    parts = urlsplit(url)
    userinfo = quote(username, safe="") + (":" + quote(password, safe="") if password else "")
    return urlunsplit(parts._replace(netloc=f"{userinfo}@{parts.netloc}"))
