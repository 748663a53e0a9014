"""A camera that closes just when it is believed to leave the connection open.

The login must not go over a connection whose end has come: it would be called refused.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from camserver.capture.http_connection import HttpConnection
from camserver.rtsp.aio.connection import ConnectionClosed
from camserver.rtsp.aio.requests import CLOSING_S, RtspRequests
from camserver.rtsp.messages import Response
from camserver.rtsp.session_cache import Reconnect


@pytest.mark.parametrize("comes", [True, False])
async def test_an_end_that_comes_at_the_last_moment_counts(comes: bool) -> None:
    """The transport says one turn later that it is closed."""
    connection: Any = SimpleNamespace(closed=asyncio.get_running_loop().create_future(), end=None)
    login: Any = SimpleNamespace(carried=False, was_accepted=False, challenge=None)
    cache: Any = SimpleNamespace(closes_after_challenge=None)
    session: Any = SimpleNamespace(has_session=False)
    requests = RtspRequests(connection, login, cache, session)
    if comes:
        ended = ConnectionClosed("the camera closed the connection", by_camera=True)
        asyncio.get_running_loop().call_later(CLOSING_S, setattr, connection, "end", ended)
    try:
        await requests._answer_elsewhere(Response(401))
    except Reconnect:
        assert comes
    assert cache.closes_after_challenge is comes


async def test_a_snapshot_urls_connection_is_closed_from_its_end_on() -> None:
    connection = HttpConnection()
    assert not connection.is_closed
    connection.eof_received()
    assert connection.is_closed
