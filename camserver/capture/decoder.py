"""Convert an access unit or a camera's JPEG to a Still in a decoder worker. Parent's side."""

from __future__ import annotations

import re
from typing import Any

from camserver.errors import CameraError
from camserver.model import (
    CELLS_BYTES,
    CodedKeyframe,
    Look,
    References,
    Result,
    SessionEnd,
    Still,
)
from camserver.workers.pool import WorkerPool
from camserver.workers.process import Reply

JOB_S = 5.0
"""How long one decoding may take. A worker that hangs must not keep others waiting until their
deadlines.
"""
MAX_JOB_S = 3600.0
MAX_NUMBER = 1000.0
HEX = re.compile("[0-9a-f]{16}")
NUMBERS = ("brightness", "contrast", "sharpness", "shadows", "highlights")
MAYBE_NUMBERS = ("colour", "change", "motion")
"""The facts of a look that may be missing."""


class Decoder:
    """Converts coded data from a camera to a whole JPEG.

    `quality` is libjpeg's, 1 to 100. A reload may change it.
    """

    def __init__(self, pool: WorkerPool, quality: int) -> None:
        self.pool = pool
        self.quality = quality

    async def decode(
        self,
        unit: CodedKeyframe,
        *,
        width: int | None,
        deadline: float,
        references: References | None = None,
    ) -> Still:
        """Decode one access unit. Raises CameraError: bad-picture, timeout, crashed.

        With `references` None it is not measured what the picture looks like.

        When no worker came free, the result is overloaded: the camera has not failed.
        """
        if unit.codec == "mjpeg":
            return await self.inspect(
                unit.data, width=width, deadline=deadline, references=references
            )
        request = {"codec": unit.codec, "extradata_bytes": len(unit.extradata), "width": width}
        return await self._run(
            "decode",
            request | _measured(references),
            b"".join((unit.extradata, *_cells(references), unit.data)),
            deadline,
        )

    async def inspect(
        self,
        jpeg: bytes,
        *,
        width: int | None,
        deadline: float,
        references: References | None = None,
    ) -> Still:
        """Check a camera's own JPEG. Its bytes are kept unless it must be scaled.

        `references` is as for `decode`. Raises CameraError.
        """
        request = {"width": width} | _measured(references)
        return await self._run("inspect", request, b"".join((*_cells(references), jpeg)), deadline)

    async def _run(self, job: str, data: dict[str, Any], blob: bytes, deadline: float) -> Still:
        reply = await self.pool.run(
            job, {**data, "quality": self.quality}, blob, deadline=deadline, job_s=JOB_S
        )
        return _still(reply, int(data.get("scenes", 0)))


def _still(reply: Reply, scenes: int) -> Still:
    """The Still of a worker's reply. Raises CameraError(crashed) when the reply is not valid.

    The worker is not trusted. Its reply must have the right types, and its blob must begin and end
    like a JPEG.
    """
    width, height, codec = (reply.data.get(k) for k in ("width", "height", "codec"))
    facts, jpeg = reply.data.get("look"), reply.blob
    look = None
    if facts is not None:
        look, jpeg = _look(facts, jpeg[:CELLS_BYTES], scenes), jpeg[CELLS_BYTES:]
    whole = jpeg.startswith(b"\xff\xd8") and jpeg.endswith(b"\xff\xd9")
    if isinstance(width, int) and isinstance(height, int) and isinstance(codec, str) and whole:
        decode_s, encode_s, cpu_s = (
            _seconds(reply.data.get(k)) for k in ("decode_s", "encode_s", "cpu_s")
        )
        return Still(jpeg, width, height, codec, decode_s, encode_s, cpu_s, look)
    raise CameraError(
        Result.CRASHED, "the decoder sent an answer that makes no sense", SessionEnd.NONE
    )


def _measured(references: References | None) -> dict[str, Any]:
    if references is None:
        return {}
    return {"previous_bytes": len(references.previous), "scenes": len(references.scenes)}


def _cells(references: References | None) -> tuple[bytes, ...]:
    return () if references is None else (references.previous, *references.scenes)


def _look(facts: object, cells: bytes, scenes: int) -> Look | None:
    """What the picture looks like. None when the worker's facts make no sense.

    `scenes` is with how many it was compared.
    """
    if not isinstance(facts, dict) or len(cells) != CELLS_BYTES:
        return None
    numbers = {name: facts.get(name) for name in NUMBERS}
    maybe = {name: facts.get(name) for name in MAYBE_NUMBERS}
    words = {name: facts.get(name) for name in ("hash", "digest")}
    likeness = facts.get("likeness")
    fits = (
        all(_is_number(value) for value in numbers.values())
        and all(value is None or _is_number(value) for value in maybe.values())
        and all(isinstance(word, str) and HEX.fullmatch(word) for word in words.values())
        and isinstance(likeness, list | tuple)
        and len(likeness) == scenes
        and all(isinstance(value, float) and -2 < value < 2 for value in likeness)
    )
    if not fits:
        return None
    known: dict[str, Any] = {**numbers, **maybe, **words, "likeness": tuple(likeness or ())}
    return Look(cells=cells, **known)


def _is_number(value: object) -> bool:
    return isinstance(value, float) and 0 <= value <= MAX_NUMBER


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < MAX_JOB_S else None
