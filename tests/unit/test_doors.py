"""What one client may take: tries of a password, and pictures that are made smaller."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from camserver.api.login_limit import LOG_EVERY_S, TRIES, TRY_EVERY_S, LoginLimit
from camserver.api.thumbnails import MAKING, MAX_WAITING, Thumbnails, ThumbnailsBusy
from camserver.model import Still


def test_an_address_has_ten_tries_and_then_one_every_six_seconds() -> None:
    limit, now = LoginLimit(), 1000.0
    for _ in range(TRIES):
        assert limit.wait_s("10.0.0.7", now) == 0
        limit.count_wrong("10.0.0.7", now)
    assert limit.wait_s("10.0.0.7", now) == TRY_EVERY_S
    assert limit.wait_s("::ffff:10.0.0.7", now) == TRY_EVERY_S
    assert limit.wait_s("10.0.0.8", now) == 0
    assert limit.wait_s("10.0.0.7", now + TRY_EVERY_S) == 0
    limit.count_wrong("10.0.0.7", now + TRY_EVERY_S)
    assert limit.wait_s("10.0.0.7", now + TRY_EVERY_S) == TRY_EVERY_S
    assert limit.wait_s("10.0.0.7", now + 1000) == 0


def test_a_network_of_ipv6_counts_as_one() -> None:
    limit = LoginLimit()
    for host in range(TRIES):
        limit.count_wrong(f"2001:db8::{host:x}", 0.0)
    assert limit.wait_s("2001:db8::ffff:1", 0.0) > 0
    assert limit.wait_s("2001:db8:0:1::1", 0.0) == 0


def test_the_log_says_it_once_a_minute() -> None:
    limit = LoginLimit()
    said = [limit.count_wrong("10.0.0.7", second / 10) for second in range(3000)]
    assert [count for count in said if count] == [1, *[round(LOG_EVERY_S * 10)] * 4]


def test_many_addresses_take_no_memory() -> None:
    limit = LoginLimit()
    for number in range(20_000):
        limit.count_wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(limit._clients) <= 4096


class SlowDecoder:
    """Counts the pictures that are in memory at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def inspect(self, jpeg: bytes, **_: Any) -> Still:
        await asyncio.sleep(0.01)
        self.now -= 1
        return Still(b"small " + jpeg, 1, 1, "mjpeg")


async def test_few_pictures_are_in_memory_however_many_are_asked_for() -> None:
    """300 requests for 300 pictures: two are read at a time, and more than enough are refused."""
    decoder: Any = SlowDecoder()
    thumbnails = Thumbnails(decoder)

    async def read() -> bytes:
        decoder.now += 1
        decoder.most = max(decoder.most, decoder.now)
        return b"jpeg"

    answers = await asyncio.gather(
        *(thumbnails.get(Path(f"{n}/latest.jpg"), 1, 320, read) for n in range(300)),
        return_exceptions=True,
    )
    assert decoder.most == MAKING
    assert sum(isinstance(answer, ThumbnailsBusy) for answer in answers) == 300 - MAX_WAITING
    assert answers.count(b"small jpeg") == MAX_WAITING
    with pytest.raises(ThumbnailsBusy):  # each of the others is named
        raise answers[-1]  # type: ignore[misc]
