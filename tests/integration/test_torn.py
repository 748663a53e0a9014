"""No torn picture is ever published.

Hundreds of seeded sessions through a proxy that damages key pictures.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque

import pytest
from house import House, psnr_to_source, with_house
from proxy import DamagingProxy

from camserver.model import Attempt, Result
from camserver.simulator.camera import SimulatedCamera

SHOTS = 84
LANES = 6
ALWAYS = float("inf")
LIMITS_S = (2.0, 40.0)
"""What never becomes whole is waited for so long.

On a machine so busy that nothing at all came, longer.
"""


def judge(attempt: Attempt, source: SimulatedCamera, seed: str, *, hopeless: bool) -> None:
    """A picture equals one that was sent; a failure is one of two, and had no spared picture.

    On a machine that is too busy to decode in time there is nothing to judge.
    """
    if attempt.result is Result.OVERLOADED:
        return
    if attempt.ok:
        assert psnr_to_source(attempt, source) > 35, seed
        return
    assert hopeless, (seed, attempt.error)
    assert attempt.result in (Result.BAD_PICTURE, Result.NO_KEYFRAME), (seed, attempt.error)


@pytest.mark.parametrize("codec", ["h264", "h265", "mjpeg"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_what_is_published_equals_its_source(codec: str, transport: str) -> None:
    """504 shots in all. Each session's first one or two key pictures are damaged, or all of them.

    What is published equals a picture that the camera sent; nothing else comes out but bad-picture
    and no-keyframe, and that only where no key picture was spared: a whole one that comes is taken.
    """
    results: Counter[tuple[bool, Result]] = Counter()
    closing = contextlib.ExitStack()

    async def lane(house: House, number: int) -> None:
        camera_id = f"cam{number}"
        source = house.fleet.cameras[camera_id]
        proxy = DamagingProxy(codec, source.port)
        closing.callback(proxy.stop)
        url = house.fleet.url(camera_id).replace(f":{source.port}", f":{await proxy.start()}")
        for shot in range(SHOTS // LANES):
            seed = f"{codec} {transport} {number} {shot}"
            for limit_s in LIMITS_S:
                dice = random.Random(seed)
                proxy.dice, proxy.damaged = dice, 0
                proxy.spare_after = dice.choice((1, 1, 2, 2, ALWAYS))
                hopeless = proxy.spare_after == ALWAYS
                attempt = await house.take(
                    camera_id,
                    url=url,
                    transport=transport,
                    timeout_s=limit_s if hopeless else LIMITS_S[-1],
                )
                if attempt.result is not Result.TIMEOUT:
                    break
            assert proxy.damaged, seed
            results[hopeless, attempt.result] += 1
            judge(attempt, source, seed, hopeless=hopeless)

    async def work(house: House) -> None:
        with closing:
            async with asyncio.TaskGroup() as tasks:
                for number in range(LANES):
                    tasks.create_task(lane(house, number))
        assert all(c.record.sessions_max == 1 for c in house.fleet.cameras.values())

    # on a busy machine many pictures are on their way at once
    with_house(
        [
            SimulatedCamera(
                f"cam{n}", f"Gate {n}", codec=codec, fps=20.0, gop=2, keyframes=deque(maxlen=100)
            )
            for n in range(LANES)
        ],
        work,
    )
    print(results)
    assert results[False, Result.OK] > SHOTS // 2
    refused = sum(n for (hopeless, result), n in results.items() if hopeless and result != "ok")
    assert refused > SHOTS // 30
