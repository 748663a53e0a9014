"""Properties have no time limit.

Hypothesis measures wall time, and its 200 ms pass while a busy machine runs others.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
