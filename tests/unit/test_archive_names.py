"""Names of archived pictures: what they say of the time, and what they do not say."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camserver.storage.naming import ArchiveNames, archive_name, numbered

PATTERNS = [
    "%Y/%m/%d/%H%M%S.%LZ.jpg",
    "%Y%m%d-%H%M%S.jpg",
    "%y-%j/%I%M%S%p.%f.jpg",
    "%Y-%m-%dT%H%M%S%z.jpg",
    "%A/100%%-%s.jpg",
    "%s.%L.jpg",
    "%Y/%m/%d/%Y%m%d_%H%M%S.jpg",
]


@given(
    st.sampled_from(PATTERNS),
    st.sampled_from(["UTC", "Asia/Tokyo", "America/St_Johns"]),
    st.integers(946_800_000, 3_124_000_000_000 // 1000).map(
        lambda seconds: datetime.fromtimestamp(seconds + 0.25, UTC)
    ),
    st.integers(0, 12),
)
def test_a_name_says_its_time(pattern: str, zone: str, moment: datetime, number: int) -> None:
    """To the second at least, in every time zone; or nothing, in the hour that comes twice."""
    names = ArchiveNames(pattern, zone)
    local = moment.astimezone(ZoneInfo(zone))
    match = names.match(numbered(archive_name(pattern, local), number))
    assert match is not None
    said = names.taken_at(match)
    twice = (
        "%z" not in pattern
        and "%s" not in pattern
        and local.replace(fold=0).utcoffset() != (local.replace(fold=1).utcoffset())
    )
    if twice:
        assert said is None
    else:
        assert said is not None
        assert abs(moment.timestamp() - said) < 1
        if "%L" in pattern:
            assert abs(moment.timestamp() - said) < 0.0011


@pytest.mark.parametrize(
    "pattern", ["%Y-%m-%d.jpg", "%H%M%S.jpg", "%Y/%m/%d/%H%M.jpg", "%b/%d.jpg"]
)
def test_a_coarse_name_says_nothing(pattern: str) -> None:
    names = ArchiveNames(pattern, "UTC")
    match = names.match(archive_name(pattern, datetime(2026, 1, 4, 9, 30, tzinfo=UTC)))
    assert match is not None
    assert names.taken_at(match) is None


def test_digits_that_are_no_date_say_nothing() -> None:
    names = ArchiveNames("%Y%m%d-%H%M%S.jpg", "UTC")
    match = names.match("20269999-996199.jpg")
    assert match is not None
    assert names.taken_at(match) is None


@pytest.mark.parametrize(
    ("pattern", "ordered"),
    [
        ("%Y/%m/%d/%H%M%S.%LZ.jpg", True),
        ("%s.jpg", True),
        ("%d/%m/%Y/%H%M%S.jpg", False),
        ("%A/%Y%m%d%H%M%S.jpg", False),
        ("%Y-%m-%d.jpg", False),
    ],
)
def test_which_names_sort_by_time(pattern: str, ordered: bool) -> None:
    assert ArchiveNames(pattern, "UTC").are_chronological is ordered
