"""Everything a camera can send.

Only our own errors come out, in time, and the connection is closed before we hear of it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzed import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"
KEPT = [path for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=3000))
def test_whatever_a_camera_sends(target: str, data: bytes) -> None:
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_worth_keeping(target: str) -> None:
    """Real descriptions and answers, and what the fuzzer found its way with."""
    kept = [path for path in KEPT if path.parent.name == target]
    assert len(kept) >= 10
    for path in kept:
        TARGETS[target](path.read_bytes())
