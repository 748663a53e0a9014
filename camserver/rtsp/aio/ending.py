"""The end of a session: TEARDOWN, and the transport proven closed (rule one)."""

from __future__ import annotations

import asyncio
import contextlib

from camserver.errors import CameraError
from camserver.rtsp.aio.connection import ConnectionClosed
from camserver.rtsp.aio.requests import RtspRequests
from camserver.rtsp.session import SessionCore, SessionEvent
from camserver.rtsp.session_cache import Reconnect

TEARDOWN_S = 1.0
"""Seconds to wait for the answer to TEARDOWN."""
CLOSE_S = 1.0
"""Seconds that an orderly close may take. Then the transport is aborted, which takes no time."""
EXPEDITED_CLOSE_S = 0.1
"""The same after `expedite`."""


class SessionEnding:
    """Ends one session. It takes at most TEARDOWN_S + CLOSE_S, and must not be cancelled."""

    def __init__(self, core: SessionCore) -> None:
        self._core = core
        self._expedited_s: float | None = None
        self._limit: asyncio.Timeout | None = None

    async def tear_down(self, requests: RtspRequests, *, over_udp: bool) -> None:
        """Send TEARDOWN, and wait for its answer."""
        core = self._core
        ask = core.tear_down()
        limit_s = TEARDOWN_S if self._expedited_s is None else self._expedited_s
        try:
            async with asyncio.timeout(limit_s) as self._limit:
                response = await requests.ask(ask.method, ask.uri, ask.headers)
        except TimeoutError:
            return
        except ConnectionClosed as closed:
            if closed.by_camera and not over_udp:  # over UDP a session may live on
                core.happened(SessionEvent.TEARDOWN_PROVED)
        except (CameraError, Reconnect):  # 401
            core.tear_down_answered(None, over_udp=over_udp)
        else:
            core.tear_down_answered(response.status, over_udp=over_udp)

    async def close(self, requests: RtspRequests | None) -> None:
        """Close the connection, and see it closed."""
        if requests is not None:
            connection = requests.connection
            connection.close()
            limit_s = CLOSE_S if self._expedited_s is None else EXPEDITED_CLOSE_S
            try:
                async with asyncio.timeout(limit_s) as self._limit:
                    await asyncio.shield(connection.closed)
            except TimeoutError:
                connection.abort()
                await connection.closed
        self._core.happened(SessionEvent.CLOSE)

    def expedite(self, teardown_s: float) -> None:
        """Limit the wait for TEARDOWN to `teardown_s`, and the close to EXPEDITED_CLOSE_S.

        This also works while `tear_down` or `close` is running.
        """
        if self._expedited_s is not None:
            return
        self._expedited_s = teardown_s
        if self._limit is not None and (when := self._limit.when()) is not None:
            soon = asyncio.get_running_loop().time() + teardown_s
            with contextlib.suppress(RuntimeError):  # the time-out block has just ended
                self._limit.reschedule(min(when, soon))
