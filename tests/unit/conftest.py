"""Async tests run in virtual time. Properties have no time limit.

Hypothesis measures wall time, and its 200 ms pass while a busy machine runs others.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from support import VirtualLoop

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Time passes only while nothing can run: async tests here are about policy."""
    return "asyncio", {"loop_factory": VirtualLoop}
