"""Convert an access unit or a camera's JPEG to a Still in a decoder worker. Parent's side."""

from __future__ import annotations

import re
from typing import Any

from camserver.errors import CameraError
from camserver.model import (
    CELLS_BYTES,
    LOOK_NUMBERS,
    CodedKeyframe,
    Look,
    Result,
    SessionEnd,
    Still,
)
from camserver.workers.pool import Reply, WorkerPool

JOB_S = 5.0
"""How long one decoding may take. A worker that hangs must not keep others waiting until their
deadlines.
"""
MAX_JOB_S = 3600.0
MAX_NUMBER = 1000.0
HEX = re.compile("[0-9a-f]{16}")


class Decoder:
    """Converts coded data from a camera to a whole JPEG.

    `quality` is libjpeg's, 1 to 100. A reload may change it.
    """

    def __init__(self, pool: WorkerPool, quality: int) -> None:
        self._pool = pool
        self.quality = quality

    async def decode(
        self,
        unit: CodedKeyframe,
        *,
        width: int | None,
        deadline: float,
        previous: bytes | None = None,
    ) -> Still:
        """Decode one access unit. Raises CameraError: bad-picture, timeout, crashed.

        `previous` is the cells of the camera's picture before (Look), empty for the first one. With
        None it is not measured what the picture looks like.

        When no worker came free, the result is overloaded: the camera has not failed.
        """
        if unit.codec == "mjpeg":
            return await self.inspect(unit.data, width=width, deadline=deadline, previous=previous)
        request = {"codec": unit.codec, "extradata_bytes": len(unit.extradata), "width": width}
        return await self._run(
            "decode",
            request | _measured(previous),
            b"".join((unit.extradata, previous or b"", unit.data)),
            deadline,
        )

    async def inspect(
        self,
        jpeg: bytes,
        *,
        width: int | None,
        deadline: float,
        previous: bytes | None = None,
    ) -> Still:
        """Check a camera's own JPEG. Its bytes are kept unless it must be scaled.

        `previous` is as for `decode`. Raises CameraError.
        """
        request = {"width": width} | _measured(previous)
        return await self._run("inspect", request, (previous or b"") + jpeg, deadline)

    async def _run(self, job: str, data: dict[str, Any], blob: bytes, deadline: float) -> Still:
        reply = await self._pool.run(
            job, {**data, "quality": self.quality}, blob, deadline=deadline, job_s=JOB_S
        )
        return _still(reply)


def _still(reply: Reply) -> Still:
    """The Still of a worker's reply. Raises CameraError(crashed) when the reply is not valid.

    The worker is not trusted. Its reply must have the right types, and its blob must begin and end
    like a JPEG.
    """
    width, height, codec = (reply.data.get(k) for k in ("width", "height", "codec"))
    facts, jpeg = reply.data.get("look"), reply.blob
    look = None
    if facts is not None:
        look, jpeg = _look(facts, jpeg[:CELLS_BYTES]), jpeg[CELLS_BYTES:]
    whole = jpeg.startswith(b"\xff\xd8") and jpeg.endswith(b"\xff\xd9")
    if isinstance(width, int) and isinstance(height, int) and isinstance(codec, str) and whole:
        decode_s, encode_s, cpu_s = (
            _seconds(reply.data.get(k)) for k in ("decode_s", "encode_s", "cpu_s")
        )
        return Still(jpeg, width, height, codec, decode_s, encode_s, cpu_s, look)
    raise CameraError(
        Result.CRASHED, "the decoder sent an answer that makes no sense", SessionEnd.NONE
    )


def _measured(previous: bytes | None) -> dict[str, Any]:
    return {} if previous is None else {"previous_bytes": len(previous)}


def _look(facts: object, cells: bytes) -> Look | None:
    """What the picture looks like. None when the worker's facts make no sense."""
    if not isinstance(facts, dict) or len(cells) != CELLS_BYTES:
        return None
    numbers: list[Any] = [facts.get(name) for name in LOOK_NUMBERS]
    words: list[Any] = [facts.get(name) for name in ("hash", "digest")]
    fits = all(n is None or (isinstance(n, float) and 0 <= n <= MAX_NUMBER) for n in numbers)
    fits = fits and all(isinstance(w, str) and HEX.fullmatch(w) is not None for w in words)
    if not fits or None in numbers[:3]:
        return None
    brightness, contrast, sharpness, colour, change = numbers
    return Look(brightness, contrast, sharpness, colour, change, cells, *words)


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < MAX_JOB_S else None
