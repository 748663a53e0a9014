"""Convert an access unit or a camera's JPEG to a Still in a decoder worker. Parent's side."""

from __future__ import annotations

from typing import Any

from camserver.errors import CameraError
from camserver.model import CodedKeyframe, Result, SessionEnd, Still
from camserver.workers.pool import Reply, WorkerPool

JOB_S = 5.0
"""How long one decoding may take. A worker that hangs must not keep others waiting until their
deadlines.
"""
MAX_JOB_S = 3600.0


class Decoder:
    """Converts coded data from a camera to a whole JPEG.

    `quality` is libjpeg's, 1 to 100. A reload may change it.
    """

    def __init__(self, pool: WorkerPool, quality: int) -> None:
        self._pool = pool
        self.quality = quality

    async def decode(self, unit: CodedKeyframe, *, width: int | None, deadline: float) -> Still:
        """Decode one access unit. Raises CameraError: bad-picture, timeout, crashed.

        When no worker came free, the result is overloaded: the camera has not failed.
        """
        if unit.codec == "mjpeg":
            return await self.inspect(unit.data, width=width, deadline=deadline)
        return await self._run(
            "decode",
            {"codec": unit.codec, "extradata_bytes": len(unit.extradata), "width": width},
            unit.extradata + unit.data,
            deadline,
        )

    async def inspect(self, jpeg: bytes, *, width: int | None, deadline: float) -> Still:
        """Check a camera's own JPEG. Its bytes are kept unless it must be scaled.

        Raises CameraError.
        """
        return await self._run("inspect", {"width": width}, jpeg, deadline)

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
    whole = reply.blob.startswith(b"\xff\xd8") and reply.blob.endswith(b"\xff\xd9")
    if isinstance(width, int) and isinstance(height, int) and isinstance(codec, str) and whole:
        took = (_seconds(reply.data.get(k)) for k in ("decode_s", "encode_s", "cpu_s"))
        return Still(reply.blob, width, height, codec, *took)
    raise CameraError(
        Result.CRASHED, "the decoder sent an answer that makes no sense", SessionEnd.NONE
    )


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < MAX_JOB_S else None
