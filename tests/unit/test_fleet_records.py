"""The records of a fleet: what is written is read again, and rubbish is named."""

from __future__ import annotations

import pytest
from fleet_records import host_record
from hypothesis import given
from hypothesis import strategies as st

from camserver.fleet.records import (
    FORMAT,
    HostRecord,
    Keys,
    MetaRecord,
    OwnRecord,
    RecordError,
    decode,
)
from camserver.fleet.terms import FleetTerms

HOST = host_record(
    epoch=3, sequence=17, seen=99, url="https://a:8443", inventory="abc", labels=("site-a",)
)


@given(
    st.lists(st.floats(0, 1e4)),
    st.dictionaries(st.text(max_size=5), st.floats(-1e4, 1e4), max_size=4),
    st.none() | st.integers(0, 9),
)
def test_what_is_written_is_read(
    cooling: list[float], due: dict[str, float], cap: int | None
) -> None:
    own = OwnRecord(
        host="a", epoch=1, held=False, cooling_s=tuple(cooling), due_s=due, learned_cap=cap
    )
    assert decode(OwnRecord, "k", own.encode()) == own
    assert decode(HostRecord, "k", HOST.encode()) == HOST


def test_fields_of_a_newer_version_are_ignored() -> None:
    newer = HOST.encode().replace(b'"epoch"', b'"mood":"good","epoch"')
    assert decode(HostRecord, "k", newer) == HOST


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "k: all of it: Invalid JSON"),
        (b"[1]", "k: all of it: "),
        (HOST.encode().replace(b'"epoch":3', b'"epoch":0'), "k: epoch: "),
        (HOST.encode().replace(b'"epoch":3', b'"epoch":"3"'), "k: epoch: "),
        (HOST.encode().replace(b'"live"', b'"undead"'), "k: state: "),
        (HOST.encode().replace(b"https", b"\xff"), "k: all of it: "),
    ],
)
def test_rubbish_is_named_and_not_shown(data: bytes, said: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode(HostRecord, "k", data)
    assert str(caught.value).startswith(said)
    assert "8443" not in str(caught.value)


def test_who_may_join() -> None:
    terms = FleetTerms()
    meta = MetaRecord.of(terms)
    assert meta.refusal(terms) is None
    assert "valid_s=5.0" in (meta.refusal(FleetTerms(10.0, 12.0, 2.0)) or "")
    newer = meta.model_copy(update={"format": FORMAT + 1})
    assert f"format {FORMAT + 1}" in (newer.refusal(terms) or "")


@given(st.text(max_size=20), st.text(max_size=20))
def test_keys_hold_any_names(fleet: str, device: str) -> None:
    keys = Keys(fleet)
    assert keys.parse(keys.host(device)) == ("host", (device,))
    assert keys.parse(keys.own(device)) == ("own", (device,))
    assert keys.parse(keys.drain(device)) == ("drain", (device,))
    with pytest.raises(RecordError):
        Keys(fleet + "x").parse(keys.meta)
