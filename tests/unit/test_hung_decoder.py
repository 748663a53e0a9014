"""A decoder that hangs costs its own picture and a few seconds. Others wait, and do not fail."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from datetime import UTC, datetime

import pytest
from PIL import Image

from camserver.capture import decoder as decoder_module
from camserver.capture.decoder import Decoder
from camserver.errors import CameraError
from camserver.model import CodedKeyframe, Result
from camserver.workers.pool import WorkerPool
from camserver.workers.template import WorkerTemplate


@pytest.fixture
def anyio_backend() -> str:
    """Real processes want real time."""
    return "asyncio"


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(file, "JPEG")
    return file.getvalue()


UNIT = CodedKeyframe("mjpeg", jpeg(), b"", datetime(2026, 1, 4, tzinfo=UTC), "")


async def test_a_hung_decoder_is_replaced_while_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoder_module, "JOB_S", 0.3)
    template = WorkerTemplate()
    pool = WorkerPool("decoder", 1, template)
    decoder, loop = Decoder(pool, 90), asyncio.get_running_loop()

    async def decode(limit_s: float) -> Result:
        try:
            await decoder.decode(UNIT, width=None, deadline=loop.time() + limit_s)
        except CameraError as error:
            return error.result
        return Result.OK

    try:
        assert await decode(60) is Result.OK  # the worker has loaded its libraries
        os.kill(pool.pids[0], signal.SIGSTOP)
        hung = asyncio.create_task(decode(60))
        await asyncio.sleep(0)
        patient = [asyncio.create_task(decode(60)) for _ in range(3)]
        hasty = asyncio.create_task(decode(0.05))
        assert await hasty is Result.OVERLOADED, "nobody says that its camera fails"
        assert await hung is Result.TIMEOUT
        assert await asyncio.gather(*patient) == [Result.OK] * 3
        assert pool.restarts == 1
    finally:
        await pool.close()
        await template.close()
