"""Schedule arithmetic: phases, due times, back-off.

Pure: takes `now`, returns moments and delays in seconds.
"""

from __future__ import annotations

import math

from camserver.model import Result

RETRY_CAP_S = 60.0
"""A repaired camera is back within a minute, however long it was away."""
RETRY_FIRST_S = 5.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def phase(number: int) -> float:
    """Where in its interval the number-th camera is due, 0 <= phase < 1.

    Multiples of the golden ratio spread any number of cameras evenly, and adding one moves no
    other.
    """
    return (number * _GOLDEN) % 1.0


def next_due(now: float, interval_s: float, offset_s: float) -> float:
    """The first moment after `now` that is `offset_s` plus a multiple of the interval.

    No drift, no catching up.
    """
    due = math.floor((now - offset_s) / interval_s) * interval_s + interval_s + offset_s
    return due if due > now else due + interval_s  # floating point may land on `now` itself


def following_due(started: float, interval_s: float, offset_s: float) -> float:
    """The due time after a poll at `started`, at least half an interval later.

    The first poll comes out of phase.
    """
    return next_due(started + interval_s / 2, interval_s, offset_s)


def retry_delay_s(
    failures: int, result: Result, interval_s: float, chance: float, *, worked: bool = False
) -> float:
    """Seconds until a failing camera is tried again.

    Doubles from the smaller of the interval and RETRY_FIRST_S up to RETRY_CAP_S; `chance` in [0, 1)
    takes off up to a quarter, so that cameras that died together do not come back together. A wrong
    password starts at the cap: makers lock accounts after a few tries; but one that worked until
    now (`worked`) is tried once more soon, because some cameras say 401 while they are busy. Busy
    means that the camera was never asked, so it is asked as soon as ever.
    """
    if result is Result.BUSY:
        return min(interval_s, RETRY_CAP_S)
    locks = result is Result.AUTH and not (worked and failures == 1)
    first = RETRY_CAP_S if locks else min(interval_s, RETRY_FIRST_S)
    return min(RETRY_CAP_S, first * 2.0 ** min(failures - 1, 30)) * (1 - chance / 4)
