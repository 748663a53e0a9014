"""Attempts with a small picture, for tests of the store."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import simplejpeg

from camserver.model import Attempt, Result, Snapshot, Source, Still

MOMENT = datetime(2026, 1, 4, 9, 30, 0, 250_000, tzinfo=UTC)
JPEG = simplejpeg.encode_jpeg(np.zeros((16, 32, 3), np.uint8))


def stored_attempt(at: datetime = MOMENT, camera: str = "gate") -> Attempt:
    still = Still(JPEG, 32, 16, "h264")
    return Attempt(
        camera,
        at,
        Result.OK,
        None,
        Snapshot(camera, "Tür ü", still, Source.RTSP, "native", at, 140.04, 1.5, None),
    )
