"""Async tests run in virtual time. Properties have no time limit.

Hypothesis measures wall time, and its 200 ms pass while a busy machine runs others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support import VirtualLoop
from worker_pools import StartPool, pools

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Time passes only while nothing can run: async tests here are about policy."""
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture(autouse=True)
def _closed_databases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close every database that a test leaves open: newer Pythons warn of each."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def note(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", note)
    yield
    for database in opened:
        database.close()


@pytest.fixture
async def start_pool() -> AsyncIterator[StartPool]:
    """Starts worker pools of one process; no process is left afterwards."""
    async with pools() as start:
        yield start
