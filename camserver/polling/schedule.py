"""Schedule arithmetic: phases, due times, back-off.

The code is pure: it takes `now` and returns moments and delays in seconds.
"""

from __future__ import annotations

import math

from camserver.model import Result

RETRY_CAP_S = 60.0
"""The longest delay. A repaired camera is due within a minute, however long it was broken."""
RETRY_FIRST_S = 5.0
FULL, NEARLY_ALL = 0.8, 0.9
"""A fleet that needs FULL of an interval for its start keeps the rhythm of its start.

So it begins spread over NEARLY_ALL of the interval. Otherwise its polls would use all of open_rate,
and the retries of failing cameras would delay the others.
"""
_GOLDEN = (math.sqrt(5) - 1) / 2


def phase(number: int) -> float:
    """The part of its interval at which the number-th camera is due, 0 <= phase < 1.

    Multiples of the golden ratio spread any number of cameras evenly. A new camera does not move
    the others.
    """
    return (number * _GOLDEN) % 1.0


def first_due(number: int, count: int, interval_s: float, open_rate: float) -> tuple[float, bool]:
    """When the number-th of `count` cameras that begin together is due, in seconds from now.

    They begin spread over the time that their starts need at `open_rate`, at most over an interval,
    or over nearly all of the interval if they need most of it.
    Those with shorter intervals are due again meanwhile: then some are later than planned.
    Also returned: whether the polls that follow may keep this rhythm. If the cameras begin within
    a part of the interval, that part would be full, interval by interval, and other cameras late.
    """
    spread_s = min(interval_s, count / open_rate)
    keeps_rhythm = spread_s >= FULL * interval_s
    if keeps_rhythm:
        spread_s = max(spread_s, NEARLY_ALL * interval_s)
    return number / count * spread_s, keeps_rhythm


def next_due(now: float, interval_s: float, offset_s: float) -> float:
    """The first moment after `now` that is `offset_s` plus a multiple of the interval.

    Due times do not drift, and missed ones are not repeated.
    """
    due = math.floor((now - offset_s) / interval_s) * interval_s + interval_s + offset_s
    return due if due > now else due + interval_s  # floating point may land on `now` itself


def following_due(started: float, interval_s: float, offset_s: float) -> float:
    """The due time after a poll at `started`, at least half an interval later.

    The first poll starts out of phase, so the next due time may be very near without this limit.
    """
    return next_due(started + interval_s / 2, interval_s, offset_s)


def retry_delay_s(
    failures: int, result: Result, interval_s: float, chance: float, *, worked: bool = False
) -> float:
    """The seconds until a failing camera is tried again.

    The delay doubles from the smaller of the interval and RETRY_FIRST_S up to RETRY_CAP_S. `chance`
    in [0, 1) shortens it by up to a quarter, so cameras that failed together are not retried
    together. A wrong password starts at the cap, because cameras lock accounts after a few tries.
    A password that worked before (`worked`) gets one early retry, because some cameras answer 401
    while they are busy. BUSY means that nothing was sent to the camera, and OVERLOADED
    that it has sent a picture, so there is no back-off:
    the delay is the interval, at most RETRY_CAP_S.
    """
    if result in (Result.BUSY, Result.OVERLOADED):
        return min(interval_s, RETRY_CAP_S)
    locks = result is Result.AUTH and not (worked and failures == 1)
    first = RETRY_CAP_S if locks else min(interval_s, RETRY_FIRST_S)
    return min(RETRY_CAP_S, first * 2.0 ** min(failures - 1, 30)) * (1 - chance / 4)
