"""A decoder that hangs or is busy: others wait, or get another one, and do not fail."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
from PIL import Image

from camserver.capture import decoder as decoder_module
from camserver.capture.decoder import Decoder
from camserver.errors import CameraError
from camserver.model import CodedKeyframe, Result
from camserver.workers.pool import PATIENCE_S, WorkerPool
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


@pytest.fixture
async def start_pool() -> AsyncIterator[Callable[[int], WorkerPool]]:
    pools, template = list[WorkerPool](), WorkerTemplate()

    def start(size: int) -> WorkerPool:
        pools.append(WorkerPool("decoder", size, template))
        return pools[-1]

    yield start
    for pool in pools:
        await pool.close()
    await template.close()


async def decode(pool: WorkerPool, limit_s: float = 60.0) -> Result:
    deadline = asyncio.get_running_loop().time() + limit_s
    try:
        await Decoder(pool, 90).decode(UNIT, width=None, deadline=deadline)
    except CameraError as error:
        return error.result
    return Result.OK


async def test_a_hung_decoder_is_replaced_while_others_wait(
    start_pool: Callable[[int], WorkerPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "JOB_S", 0.3)
    pool = start_pool(1)
    assert await decode(pool) is Result.OK  # the worker has loaded its libraries
    os.kill(pool.pids[0], signal.SIGSTOP)
    hung = asyncio.create_task(decode(pool))
    await asyncio.sleep(0)
    patient = [asyncio.create_task(decode(pool)) for _ in range(3)]
    hasty = asyncio.create_task(decode(pool, 0.05))
    assert await hasty is Result.OVERLOADED, "nobody says that its camera fails"
    assert await hung is Result.TIMEOUT
    assert await asyncio.gather(*patient) == [Result.OK] * 3
    assert pool.restarts == 1


async def test_one_decoder_is_enough_while_none_waits_for_long(
    start_pool: Callable[[int], WorkerPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PATIENCE_S, "decoder", 60.0)
    pool = start_pool(2)
    await pool.warm()
    assert await asyncio.gather(decode(pool), decode(pool)) == [Result.OK] * 2
    assert len(pool.pids) == 1


async def test_who_waits_for_long_gets_another_decoder(
    start_pool: Callable[[int], WorkerPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside one that hangs, or when more pictures come than one can decode."""
    monkeypatch.setattr(decoder_module, "JOB_S", 60.0)
    pool = start_pool(2)
    assert await decode(pool) is Result.OK
    (busy,) = pool.pids
    os.kill(busy, signal.SIGSTOP)
    hung = asyncio.create_task(decode(pool))
    await asyncio.sleep(0)
    assert await decode(pool) is Result.OK
    assert not hung.done()
    assert len(pool.pids) == 2
    os.kill(busy, signal.SIGCONT)
    assert await hung is Result.OK
