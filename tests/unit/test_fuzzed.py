"""Everything a camera can send.

Only our own errors come out, in time, and the connection is closed before we hear of it.
"""

from __future__ import annotations

from fuzzed import talk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=3000))
def test_whatever_a_camera_says(data: bytes) -> None:
    talk(data)
